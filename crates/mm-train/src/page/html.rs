//! The parts of the page as HTML.

use super::curve::Curve;
use super::svg;
use crate::{Cell, Evaluation, Plot, Section, SectionRow, Table};
use mm_data::html::{data_url, escape};
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(title: &str, curves: &[Curve], evaluations: &[Evaluation]) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    page.extend(curves_section(curves, evaluations));
    page.extend(evaluations.iter().map(evaluation));
    page.push_str("</body></html>\n");
    page
}

/// The curves of the loss and of the headline metrics.
fn curves_section(curves: &[Curve], evaluations: &[Evaluation]) -> Option<String> {
    let is_headline = |name: &str| {
        let of_set = |evaluation: &Evaluation| {
            let metric = name.strip_prefix(&evaluation.set).and_then(|name| name.strip_prefix('/'));
            evaluation.metrics.iter().any(|known| known.is_headline && Some(&*known.name) == metric)
        };
        name == "loss" || evaluations.iter().any(of_set)
    };
    let mut shown: Vec<&Curve> =
        curves.iter().filter(|curve| is_headline(&curve.name) && curve.has_shape()).collect();
    shown.sort_by_key(|curve| curve.name != "loss"); // the loss first
    let figures: String = shown
        .into_iter()
        .map(|curve| {
            let (svg, name, last) = (curve.svg(), escape(&curve.name), curve.last().unwrap_or(f64::NAN));
            format!("<figure>{svg}<figcaption>{name}, last {last:.3}</figcaption></figure>")
        })
        .collect();
    (!figures.is_empty()).then(|| format!("<h2>Training</h2>\n<div class=\"row\">{figures}</div>\n"))
}

/// One evaluation set, with its credit.
fn evaluation(evaluation: &Evaluation) -> String {
    let Evaluation { set, samples, bad_samples, tables, plots, sections, credit, .. } = evaluation;
    let bad = if *bad_samples > 0 { format!(", {bad_samples} unreadable") } else { String::new() };
    let mut html = format!("<h2>{}: {samples} samples{bad}</h2>\n", escape(set));
    if tables.is_empty() {
        html += &table(&metrics_table(evaluation));
    }
    html.extend(tables.iter().map(table));
    html.extend(plots.iter().map(plot));
    html.extend(sections.iter().map(section));
    if !credit.is_empty() {
        let _ = writeln!(html, "<footer>{}</footer>", escape(credit));
    }
    html
}

/// The metrics of an evaluation that has no table of its own.
fn metrics_table(evaluation: &Evaluation) -> Table {
    let row = |metric: &crate::Metric| vec![Cell::Text(metric.name.clone()), Cell::Number(metric.value)];
    let columns = ["metric", "value"].map(str::to_owned).into();
    Table { title: String::new(), columns, rows: evaluation.metrics.iter().map(row).collect() }
}

fn table(table: &Table) -> String {
    let mut html = String::new();
    if !table.title.is_empty() {
        let _ = writeln!(html, "<h3>{}</h3>", escape(&table.title));
    }
    let cells = |tag: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    html += "<table>";
    html += &cells("th", &table.columns);
    for row in &table.rows {
        html += &cells("td", &row.iter().map(Cell::text).collect::<Vec<_>>());
    }
    html + "</table>\n"
}

fn plot(plot: &Plot) -> String {
    let (names, lines): (Vec<_>, Vec<_>) = plot.lines.iter().cloned().unzip();
    let last = |line: &Vec<(f64, f64)>| line.last().map_or(f64::NAN, |&(_, value)| value);
    let named = names.iter().zip(&lines).map(|(name, line)| format!("{name}, last {:.3}", last(line)));
    let caption = escape(&format!("{}: {}", plot.title, named.collect::<Vec<_>>().join("; ")));
    let svg = svg::lines(&plot.title, &plot.x, &lines);
    format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>\n")
}

fn section(section: &Section) -> String {
    let (title, text) = (escape(&section.title), escape(&section.text));
    let rows: String = section.rows.iter().map(section_row).collect();
    format!("<h3>{title}</h3>\n<p>{text}</p>\n<table class=\"figures\">\n{rows}</table>\n")
}

fn section_row(row: &SectionRow) -> String {
    let mut html = format!("<tr><td>{}<br><small>{}</small>", escape(&row.label), escape(&row.note));
    for figure in &row.figures {
        let class = if figure.is_framed { " class=\"framed\"" } else { "" };
        let (picture, caption) = (data_url(&figure.image), escape(&figure.caption));
        let _ = write!(html, "<td><img{class} src=\"{picture}\" alt=\"{caption}\" title=\"{caption}\">");
    }
    html + "</tr>\n"
}
