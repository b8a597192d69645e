//! The HTML page of a contact sheet.

use std::fmt::Write;

use super::{Sheet, Shown, Tile};
use crate::tools::html::{data_url, escape};
use crate::{BadSample, Question};

const STYLE: &str = include_str!("sheet.css");

/// The page as HTML.
pub(super) fn page(sheet: &Sheet) -> String {
    let title = escape(&sheet.title);
    let count = sheet.tiles.len();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n<p>{count} of {} samples</p>\n<main>\n",
        sheet.total
    );
    for Tile { index, shown } in &sheet.tiles {
        page += &match shown {
            Ok(shown) => figure(*index, shown),
            Err(bad) => bad_figure(*index, bad),
        };
    }
    page + "</main></body></html>\n"
}

fn figure(index: usize, Shown { sample, thumbnail, sizes }: &Shown) -> String {
    let alt = escape(sample.captions.first().map_or("", String::as_str));
    let mut html = "<figure>".to_owned();
    if let Some(thumbnail) = thumbnail {
        let _ = write!(html, "<img src=\"{}\" alt=\"{alt}\">", data_url(thumbnail));
    }
    html += "<figcaption>";
    if let Some(label) = &sample.label {
        let _ = write!(html, "<span class=\"label\">{}</span>", escape(label));
    }
    if let Some(instruction) = &sample.instruction {
        let _ = write!(html, "<p class=\"instruction\">{}</p>", escape(instruction));
    }
    if let Some(preferred) = sample.preferred {
        let _ = write!(html, "<p>the first image is preferred with probability {preferred}</p>");
    }
    let captions: String = sample.captions.iter().map(|caption| format!("<li>{}", escape(caption))).collect();
    let _ = write!(html, "<ol>{captions}</ol>");
    if !sample.questions.is_empty() {
        let questions: String = sample.questions.iter().map(question).collect();
        let _ = write!(
            html,
            "<details><summary>{} questions</summary><ul>{questions}</ul></details>",
            sample.questions.len()
        );
    }
    let variant =
        sample.variant_of.as_ref().map_or(String::new(), |of| format!(", a variant of {}", escape(of)));
    if !sample.negatives.is_empty() {
        let negatives: String =
            sample.negatives.iter().map(|pair| format!("<li>{}", escape(&pair.negative))).collect();
        let count = sample.negatives.len();
        let _ =
            write!(html, "<details><summary>{count} false captions</summary><ul>{negatives}</ul></details>");
    }
    let key = escape(&sample.key);
    let sizes: Vec<String> = sizes.iter().map(|(width, height)| format!("{width} × {height}")).collect();
    let sizes = if sizes.is_empty() { "no image".to_owned() } else { sizes.join(", ") };
    let _ = writeln!(html, "<small>#{index} {key}, {sizes}{variant}</small></figcaption></figure>");
    html
}

fn question(Question { text, answers, .. }: &Question) -> String {
    let answers = if answers.is_empty() { "no answer given".to_owned() } else { answers.join(", ") };
    format!("<li>{} <b>{}</b>", escape(text), escape(&answers))
}

fn bad_figure(index: usize, BadSample { key, fault, reason, .. }: &BadSample) -> String {
    let (key, reason) = (escape(key), escape(reason));
    format!("<figure class=\"bad\"><b>{fault}</b>: {reason}<br><small>#{index} {key}</small></figure>\n")
}
