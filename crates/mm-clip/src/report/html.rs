use super::chart::Curve;
use super::{HeatMap, Report, Search};
use crate::EvalReport;
use mm_data::html::escape;
use std::fmt::Write;

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub(super) fn page(report: &Report, curves: &[Curve], searches: &[Search], heat_maps: &[HeatMap]) -> String {
    let title = escape(report.title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n"
    );
    let parts = [
        results(report.evaluation),
        curve_section(curves),
        search_section(searches),
        heat_map_section(heat_maps),
        format!("<footer>{}</footer>", escape(report.credit)),
    ];
    page.extend(parts);
    page.push_str("</body></html>\n");
    page
}

fn results(evaluation: &EvalReport) -> String {
    let mut html = format!("<h2>What it reaches on {}</h2>\n", escape(&evaluation.name));
    html.push_str("<table><tr><th>retrieval<th>pairs<th>R@1<th>R@5<th>R@10<th>median rank</tr>\n");
    for (pairs, row, found) in evaluation.retrieval_rows() {
        let [r1, r5, r10, median] = found.named().map(|(_, value)| value);
        let (r1, r5, r10) = (percent(r1), percent(r5), percent(r10));
        let _ = writeln!(html, "<tr><td>{row}<td>{pairs}<td>{r1}<td>{r5}<td>{r10}<td>{median}</tr>");
    }
    html.push_str("</table>\n");
    if let Some(zero_shot) = &evaluation.zero_shot {
        let chance = 1.0 / zero_shot.classes.len() as f64;
        let _ = write!(
            html,
            "<h2>Zero-shot classification: {} (chance {})</h2>\n<table><tr><th>class<th>images<th>found<th>right when said</tr>\n",
            percent(zero_shot.accuracy),
            percent(chance)
        );
        for class in &zero_shot.classes {
            let share = |of: usize| {
                if of == 0 { "–".to_owned() } else { percent(class.correct as f64 / of as f64) }
            };
            let (label, images) = (escape(&class.label), class.images);
            let _ = writeln!(
                html,
                "<tr><td>{label}<td>{images}<td>{}<td>{}</tr>",
                share(images),
                share(class.predicted)
            );
        }
        html.push_str("</table>\n");
    }
    html
}

fn curve_section(curves: &[Curve]) -> String {
    let shown = |curve: &&Curve| curve.name == "loss" || curve.name.ends_with("text_to_image_r@1");
    let mut html = "<h2>How it learned</h2>\n<div class=\"row\">".to_owned();
    for curve in curves.iter().filter(shown).filter(|curve| curve.has_shape()) {
        let last = curve.last().unwrap_or(f64::NAN);
        let _ = write!(
            html,
            "<figure>{}<figcaption>{}, at last {last:.3}</figcaption></figure>",
            curve.svg(),
            escape(&curve.name)
        );
    }
    html + "</div>\n"
}

fn search_section(searches: &[Search]) -> String {
    let mut html = "<h2>What it finds</h2>\n<p>Texts that were never seen in training, spread evenly over the set, and the five images \
                    nearest to each. The one that belongs to the text is framed.</p>\n<table class=\"search\">"
        .to_owned();
    for Search { text, found, rank } in searches {
        let _ = write!(html, "<tr><td>{}<br><small>rank {rank}</small>", escape(text));
        for (picture, caption, right) in found {
            let class = if *right { " class=\"right\"" } else { "" };
            let caption = escape(caption);
            let _ = write!(html, "<td><img{class} src=\"{picture}\" alt=\"{caption}\" title=\"{caption}\">");
        }
        html.push_str("</tr>\n");
    }
    html + "</table>\n"
}

fn heat_map_section(heat_maps: &[HeatMap]) -> String {
    let mut html =
        "<h2>Where it looks</h2>\n<p>Red is what speaks most for the caption.</p>\n<div class=\"row\">"
            .to_owned();
    for HeatMap { caption, similarity, picture, heat } in heat_maps {
        let caption = escape(caption);
        let _ = write!(
            html,
            "<figure><img src=\"{picture}\" alt=\"{caption}\"> <img src=\"{heat}\" alt=\"heat map for {caption}\">\
             <figcaption>{caption} <small>(cosine {similarity:.2})</small></figcaption></figure>"
        );
    }
    html + "</div>\n"
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
