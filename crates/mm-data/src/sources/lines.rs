//! Files with one sample a line: JSON lines and lists of texts.

use std::io::BufRead;
use std::path::Path;

use crate::{Error, Result, text};

/// The rows of a file: the line of each, from 1, and its content or the reason why it cannot be read.
pub(crate) type Rows<T> = Vec<(u64, std::result::Result<T, String>)>;

/// The rows of the lines that are not blank, without their line ends and byte order marks.
///
/// # Errors
/// The file cannot be read. A line that is not text is a bad row.
pub(crate) fn rows<T>(
    path: &Path,
    file: impl BufRead,
    mut parse: impl FnMut(&str) -> Result<std::result::Result<T, String>>,
) -> Result<Rows<T>> {
    let mut rows = Vec::new();
    for (line, bytes) in (1..).zip(file.split(b'\n')) {
        let bytes = bytes.map_err(Error::io(path))?;
        // Concatenated files have byte order marks in the middle.
        match text::decode(bytes) {
            Ok(content) if content.trim_ascii().is_empty() => {}
            Ok(content) => rows.push((line, parse(&content)?)),
            Err(not_text) => rows.push((line, Err(not_text.to_string()))),
        }
    }
    Ok(rows)
}

/// A row as a sample's content.
///
/// # Errors
/// The row cannot be read.
pub(crate) fn row<'a, T>(path: &Path, rows: &'a Rows<T>, index: usize) -> Result<(u64, &'a T)> {
    let (line, row) = &rows[index];
    match row {
        Ok(row) => Ok((*line, row)),
        Err(reason) => Err(Error::Line { path: path.to_owned(), line: *line, reason: reason.clone() }),
    }
}

/// Checks that at least one row can be read.
///
/// # Errors
/// The file has no rows, or none that can be read.
pub(crate) fn check_some<T>(path: &Path, rows: &Rows<T>) -> Result<()> {
    let hint = match rows.iter().find_map(|(line, row)| Some((line, row.as_ref().err()?))) {
        _ if rows.iter().any(|(_, row)| row.is_ok()) => return Ok(()),
        None => "the file has no rows".to_owned(),
        Some((line, reason)) => {
            format!("none of its {} rows can be read; the first is line {line}: {reason}", rows.len())
        }
    };
    Err(Error::Empty { name: path.display().to_string(), hint })
}
