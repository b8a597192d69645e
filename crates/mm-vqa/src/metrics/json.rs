//! Lists in JSON files: each entry is parsed by itself, so that an error names it.

use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{Error, Result};

/// Parses a whole file. `layout` describes the expected content in the error.
pub(super) fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a str, layout: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|problem| Error::invalid(path, format!("{problem}; expected {layout}")))
}

/// Parses the entries of a list in parallel. `name` is that of the list: the error names `name[3]`.
pub(super) fn entries<'a, T: Send>(
    path: &Path,
    name: &str,
    entries: &[&'a RawValue],
    parse: impl Fn(&'a str) -> serde_json::Result<T> + Sync,
) -> Result<Vec<T>> {
    let parse =
        |(number, entry): (usize, &&'a RawValue)| parse(entry.get()).map_err(|problem| (number, problem));
    let parsed: std::result::Result<Vec<T>, _> = entries.par_iter().enumerate().map(parse).collect();
    parsed.map_err(|(number, problem)| Error::invalid(path, format!("{name}[{number}]: {problem}")))
}

/// Parses a list of objects: a JSON list, or one object a line in a `.jsonl` file.
pub(super) fn list<'a, T: Deserialize<'a> + Send>(
    path: &Path,
    text: &'a str,
    layout: &str,
) -> Result<Vec<T>> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !matches!(extension, "jsonl" | "ndjson") {
        let list: Vec<&RawValue> = parse(path, text, &format!("a list of {layout}"))?;
        return entries(path, "", &list, serde_json::from_str);
    }
    lines(path, text, layout)
}

/// Parses one object a line; empty lines are skipped.
pub(super) fn lines<'a, T: Deserialize<'a>>(path: &Path, text: &'a str, layout: &str) -> Result<Vec<T>> {
    let lines = mm_data::text::lines(text).enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|problem| {
                Error::invalid(path, format!("line {}: {problem}; expected {layout}", number + 1))
            })
        })
        .collect()
}
