//! `mm inspect` of a PNG: how the image was made.

use crate::{output, table};
use anyhow::{Context, Result, ensure};
use mm_diffusion::{ImageParameters, PARAMETERS_KEYWORD, RECORD_KEYWORD};
use mm_image::read_png_text;
use serde_json::{Map, Value};
use std::path::Path;

/// The longest text of another program that the table shows.
const SHOWN: usize = 2000;

/// Prints what the PNG `file` says of its making, by this program or another.
pub fn run(file: &Path, json: bool) -> Result<()> {
    let read = || -> Result<Vec<(String, String)>> { Ok(read_png_text(&std::fs::read(file)?)?) };
    let texts = read().with_context(|| format!("cannot read the image {}", file.display()))?;
    ensure!(
        !texts.is_empty(),
        "{} does not say how it was made: the PNG has no text, which many programs drop",
        file.display()
    );
    let text = |keyword: &str| texts.iter().find(|(found, _)| found == keyword).map(|(_, text)| text);
    let parameters = text(PARAMETERS_KEYWORD).map(|text| ImageParameters::parse(text));
    // Another program may use the same keyword.
    let record: Option<Value> = text(RECORD_KEYWORD).and_then(|text| serde_json::from_str(text).ok());
    let known = [parameters.as_ref().map(|_| PARAMETERS_KEYWORD), record.as_ref().map(|_| RECORD_KEYWORD)];
    let others: Vec<&(String, String)> =
        texts.iter().filter(|(keyword, _)| !known.contains(&Some(keyword.as_str()))).collect();
    if json {
        let fields = parameters.as_ref().map(|parameters| {
            let field = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
            parameters.fields.iter().map(field).collect::<Map<String, Value>>()
        });
        let texts: Map<String, Value> =
            others.iter().map(|(keyword, text)| (keyword.clone(), Value::from(text.as_str()))).collect();
        return output::print(&format!(
            "{:#}\n",
            serde_json::json!({
                "prompt": parameters.as_ref().map(|parameters| &parameters.prompt),
                "negative_prompt": parameters.as_ref().map(|parameters| &parameters.negative_prompt),
                "parameters": fields,
                RECORD_KEYWORD: record,
                "texts": texts,
            })
        ));
    }
    let mut rows: Vec<(String, String)> = Vec::new();
    if let Some(parameters) = parameters {
        rows.push(("prompt".to_owned(), parameters.prompt));
        rows.push(("negative prompt".to_owned(), parameters.negative_prompt));
        rows.extend(parameters.fields);
    }
    if let Some(record) = record {
        flatten("precision", &record["precision"], &mut rows);
        flatten("edit", &record["edit"], &mut rows);
        flatten("", &record["settings"], &mut rows);
    }
    for (keyword, text) in others {
        let end: String = text.chars().skip(SHOWN).take(1).map(|_| '…').collect();
        rows.push((keyword.clone(), text.chars().take(SHOWN).collect::<String>() + &end));
    }
    output::print(&table::render_left(2, &["setting", "value"], &lines(rows)))
}

/// A row for each value in `value`, named by the keys that lead to it.
fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{key}"), value, rows);
            }
        }
        Value::Null => {}
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        value => rows.push((name.to_owned(), value.to_string())),
    }
}

/// A row for each line of a value, without empty values and control characters.
fn lines(rows: Vec<(String, String)>) -> Vec<Vec<String>> {
    let clean = |text: &str| text.replace(char::is_control, " ");
    let mut lines = Vec::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        for (index, line) in value.lines().enumerate() {
            let name = if index == 0 { clean(name) } else { String::new() };
            lines.push(vec![name, clean(line)]);
        }
    }
    lines
}
