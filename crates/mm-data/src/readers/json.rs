//! Whole JSON files of the field's annotation layouts: read once, each entry of their lists judged by itself.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::readers::broken::shortened;
use crate::{Error, Result};

/// The text of a JSON file, which what is parsed of it borrows from.
pub(crate) struct JsonFile {
    path: PathBuf,
    text: String,
}

impl JsonFile {
    /// Reads the file. Errors: it is not there, or not UTF-8, told with the line.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let whole = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + whole.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let column = 1 + whole.iter().rev().take_while(|&&byte| byte != b'\n').count();
            Error::Line { path: path.to_owned(), line, reason: format!("column {column}: not UTF-8 text") }
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// The outer object. `layout` is what it should be, for the error: "COCO captions: `images` and `annotations`".
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&'a self, layout: &str) -> Result<T> {
        let text = self.text.trim_start_matches('\u{feff}');
        serde_json::from_str(text).map_err(|error| Error::Line {
            path: self.path.clone(),
            line: error.line() as u64,
            reason: format!("column {}: {}; the file should be {layout}", error.column(), said(&error)),
        })
    }
}

/// An entry of a list. The error is a reason without a place: the entry's number tells more than a column of a line
/// that is the whole file.
pub(crate) fn entry<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> std::result::Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|error| said(&error))
}

/// The message without the place that serde_json ends it with.
fn said(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    shortened(message.strip_suffix(&place).unwrap_or(&message).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Numbers<'a> {
        #[serde(borrow)]
        numbers: Vec<&'a RawValue>,
    }

    fn error(bytes: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let read = JsonFile::read(file.path());
        let error = read.and_then(|file| file.parse::<Numbers>("numbers").map(|_| ())).unwrap_err();
        error.to_string().split_once(':').unwrap().1.to_owned()
    }

    #[test]
    fn an_error_tells_line_and_column() {
        assert_eq!(
            error(b"{\"numbers\":\n 7}"),
            "2: column 2: invalid type: integer `7`, expected a sequence; the file should be numbers"
        );
        assert_eq!(error(b"{\n}"), "2: column 1: missing field `numbers`; the file should be numbers");
        assert_eq!(error(b"{\"numbers\": [1,"), "1: column 15: EOF while parsing a value; the file should be numbers");
        assert_eq!(error(b"{\n \"numbers\": [\"\xff\"]}"), "2: column 15: not UTF-8 text");
    }

    #[test]
    fn an_entry_is_judged_by_itself() {
        let numbers: Numbers = serde_json::from_str("{\"numbers\": [1, \"x\", 3]}").unwrap();
        let read: Vec<_> = numbers.numbers.iter().map(|&raw| entry::<u8>(raw)).collect();
        assert_eq!(read, [Ok(1), Err("invalid type: string \"x\", expected u8".to_owned()), Ok(3)]);
    }
}
