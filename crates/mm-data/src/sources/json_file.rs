//! JSON files of annotations: read once, with each entry of their lists parsed by itself.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::sources::broken::shortened;
use crate::{Error, Result, json, text};

/// The text of a JSON file. Parsed values borrow from it.
pub(crate) struct JsonFile {
    path: PathBuf,
    text: String,
    /// The text as standard JSON, where it has Python's extensions.
    standard: OnceCell<Option<String>>,
}

impl JsonFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Those of [`text::read`].
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), text: text::read(path)?, standard: OnceCell::new() })
    }

    /// Parses the outer object. `layout` describes the expected object in the error: "COCO captions: `images`
    /// and `annotations`".
    ///
    /// # Errors
    /// Invalid JSON, or an object of another layout.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&'a self, layout: &str) -> Result<T> {
        let parsed = serde_json::from_str(&self.text).or_else(|error| {
            let standard = self.standard.get_or_init(|| json::standard(&self.text));
            standard.as_deref().map_or(Err(error), serde_json::from_str)
        });
        parsed.map_err(|error| Error::Line {
            path: self.path.clone(),
            line: error.line() as u64,
            reason: format!("column {}: {}; expected {layout}", error.column(), without_place(&error)),
        })
    }
}

/// The members of an object with their names, in the order of the file. A repeated name is kept: a map would
/// drop one of the two.
pub(crate) struct Members<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Object;
        impl<'a> Visitor<'a> for Object {
            type Value = Members<'a>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> std::result::Result<Members<'a>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Parses an entry of a list. The error has no position: the number of the entry is more useful than a column
/// in a file of one line.
pub(crate) fn entry<T: DeserializeOwned>(raw: &RawValue) -> std::result::Result<T, String> {
    json::parse(raw.get()).map_err(|error| without_place(&error))
}

/// The message without the position that serde_json appends.
fn without_place(error: &serde_json::Error) -> String {
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

    fn file(bytes: &[u8]) -> Result<JsonFile> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        JsonFile::read(file.path())
    }

    fn error(bytes: &[u8]) -> String {
        let error = file(bytes).and_then(|file| file.parse::<Numbers>("numbers").map(|_| ())).unwrap_err();
        error.to_string().split_once(':').unwrap().1.to_owned()
    }

    #[test]
    fn an_error_has_line_and_column() {
        assert_eq!(
            error(b"{\"numbers\":\n 7}"),
            "2: column 2: invalid type: integer `7`, expected a sequence; expected numbers"
        );
        assert_eq!(error(b"{\n}"), "2: column 1: missing field `numbers`; expected numbers");
        assert_eq!(error(b"{\"numbers\": [1,"), "1: column 15: EOF while parsing a value; expected numbers");
        assert_eq!(
            error(b"{\n \"numbers\": [\"\xff\"]}"),
            "2: column 15: not UTF-8 text: convert it with iconv"
        );
    }

    #[test]
    fn an_invalid_entry_does_not_affect_others() {
        let numbers: Numbers = serde_json::from_str("{\"numbers\": [1, \"x\", 3]}").unwrap();
        let read: Vec<_> = numbers.numbers.iter().map(|&raw| entry::<u8>(raw)).collect();
        assert_eq!(read, [Ok(1), Err("invalid type: string \"x\", expected u8".to_owned()), Ok(3)]);
    }

    #[test]
    fn files_of_python_and_windows_are_read() {
        let read = |bytes: &[u8]| {
            let file = file(bytes).unwrap();
            let numbers = file.parse::<Numbers>("numbers").unwrap().numbers;
            numbers.iter().map(|&raw| entry::<Option<String>>(raw).unwrap()).collect::<Vec<_>>()
        };
        let text = "{\"numbers\": [\"\\ud83d.\", NaN]}";
        let expected = [Some("\u{fffd}.".to_owned()), None];
        assert_eq!(read(format!("\u{feff}{text}").as_bytes()), expected);
        let utf_16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(read(&utf_16), expected);
    }
}
