//! Curves of a run's metrics.

use super::svg;
use serde_json::Value;
use std::collections::BTreeMap;

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

    /// The curve as an SVG with its axes.
    pub(super) fn svg(&self) -> String {
        svg::lines(&self.name, "step", std::slice::from_ref(&self.points))
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
