//! Lines with their axes as SVG.

use mm_data::html::escape;
use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 220.0;
/// Room for the labels of the axes.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 26.0;

/// Lines over an axis named `x_name`, each as points (x, y), in one picture of 560 by 220; the vertical axis
/// starts at 0. `name` is read out by screen readers.
pub(super) fn lines(name: &str, x_name: &str, lines: &[Vec<(f64, f64)>]) -> String {
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let values = lines.iter().flatten().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((first, last), (_, high)) = (bounds(|p| p.0), bounds(|p| p.1));
    let (low, high) = (0.0, if high > 0.0 { high * 1.05 } else { 1.0 });
    let x = |value: f64| LEFT + (value - first) / (last - first).max(1e-9) * (WIDTH - LEFT - 8.0);
    let y = |value: f64| 8.0 + (high - value) / (high - low) * (HEIGHT - BOTTOM - 8.0);
    let (name, x_name) = (escape(name), escape(x_name));
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{name} by {x_name}\">");
    // Two digits of the largest label differ between ticks.
    let decimals = (2.0 - high.log10().floor()).clamp(0.0, 6.0) as usize;
    for tick in 0..=4 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let at = y(value);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let (left, baseline) = (LEFT - 6.0, at + 4.0);
        let _ = write!(
            svg,
            "<text x=\"{left}\" y=\"{baseline:.1}\" text-anchor=\"end\">{value:.decimals$}</text>"
        );
    }
    for (value, anchor) in [(first, "start"), (last, "end")] {
        let (at, baseline) = (x(value), HEIGHT - 8.0);
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{baseline}\" text-anchor=\"{anchor}\">{x_name} {value}</text>"
        );
    }
    for line in lines {
        let points: Vec<String> = line.iter().map(|&(at, v)| format!("{:.1},{:.1}", x(at), y(v))).collect();
        let _ = write!(svg, "<polyline points=\"{}\"/>", points.join(" "));
    }
    svg + "</svg>"
}
