//! Curves of a run's metrics, drawn as SVG.

use mm_data::html::escape;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A metric over steps.
pub(super) struct Curve {
    pub(super) name: String,
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// All metrics in the text of a `metrics.jsonl`, by name.
    pub(super) fn read_all(metrics: &str) -> Vec<Self> {
        let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for line in metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let Some(step) = line["step"].as_f64() else { continue };
            for (name, value) in line.as_object().into_iter().flatten().filter(|(name, _)| *name != "step") {
                if let Some(value) = value.as_f64() {
                    curves.entry(name.clone()).or_default().push((step, value));
                }
            }
        }
        curves.into_iter().map(|(name, points)| Self { name, points }).collect()
    }

    /// The last value.
    pub(super) fn last(&self) -> Option<f64> {
        self.points.last().map(|&(_, value)| value)
    }

    /// Whether there is more than one point to draw.
    pub(super) fn has_shape(&self) -> bool {
        self.points.len() > 1
    }

    /// The curve as an SVG of 560 by 220 with its axes.
    pub(super) fn svg(&self) -> String {
        const WIDTH: f64 = 560.0;
        const HEIGHT: f64 = 220.0;
        const LEFT: f64 = 52.0;
        const BOTTOM: f64 = 26.0;
        let bounds = |of: fn(&(f64, f64)) -> f64| {
            self.points
                .iter()
                .map(of)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((first, last), (_, high)) = (bounds(|p| p.0), bounds(|p| p.1));
        let (low, high) = (0.0, if high > 0.0 { high * 1.05 } else { 1.0 });
        let x = |step: f64| LEFT + (step - first) / (last - first).max(1e-9) * (WIDTH - LEFT - 8.0);
        let y = |value: f64| 8.0 + (high - value) / (high - low) * (HEIGHT - BOTTOM - 8.0);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by step\">",
            escape(&self.name)
        );
        // Two digits of the largest label differ between ticks.
        let decimals = (2.0 - high.log10().floor()).clamp(0.0, 6.0) as usize;
        for tick in 0..=4 {
            let value = low + (high - low) * f64::from(tick) / 4.0;
            let at = y(value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            );
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.decimals$}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (step, anchor) in [(first, "start"), (last, "end")] {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">step {step}</text>",
                x(step),
                HEIGHT - 8.0
            );
        }
        let points: Vec<String> =
            self.points.iter().map(|&(s, v)| format!("{:.1},{:.1}", x(s), y(v))).collect();
        let _ = write!(svg, "<polyline points=\"{}\"/></svg>", points.join(" "));
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_read_from_all_lines_and_broken_lines_are_skipped() {
        let text =
            "{\"step\":1,\"loss\":4.0,\"kind\":\"train\"}\nbroken\n{\"step\":2,\"loss\":2.0,\"r@1\":0.5}\n";
        let curves = Curve::read_all(text);
        assert_eq!(
            curves.iter().map(|c| (c.name.as_str(), c.last())).collect::<Vec<_>>(),
            [("loss", Some(2.0)), ("r@1", Some(0.5))]
        );
        assert!(curves[0].svg().contains("<polyline points=\"52.0,"));
    }
}
