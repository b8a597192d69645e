//! Reads text files: UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows programs write
//! them. All text of this crate is decoded here, so that a byte order mark never becomes a part of it.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("texts.txt");
//! std::fs::write(&file, b"\xef\xbb\xbfa cat\r\na dog\r\n")?;
//! let text = mm_data::text::read(&file)?;
//! assert_eq!(mm_data::text::lines(&text).collect::<Vec<_>>(), ["a cat", "a dog"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use crate::file_kind::{HEAD_BYTES, refuse_git_lfs_pointer};
use crate::{Error, Fault, Result};

/// The byte order mark as a character.
const MARK: char = '\u{feff}';
const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file, without its byte order mark.
///
/// # Errors
/// The file cannot be read, is neither UTF-8 nor marked as UTF-16, or is a Git LFS pointer.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    into_text(read_bytes(path)?).map_err(|not_text| not_text.of_file(path))
}

/// The lines of a text without their line ends, and without the byte order marks that concatenated files
/// leave at the start of a line.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.trim_start_matches(MARK))
}

/// The text in `bytes`, without its byte order mark.
///
/// # Errors
/// Neither UTF-8 nor marked as UTF-16.
pub(crate) fn decode(bytes: Vec<u8>) -> std::result::Result<String, NotText> {
    into_text(utf_8(bytes)?)
}

/// The bytes of a file as UTF-8, without its byte order mark. Invalid UTF-8 stays as it is, for readers that
/// check each line by itself.
///
/// # Errors
/// The file cannot be read, is invalid UTF-16, or is a Git LFS pointer.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    refuse_git_lfs_pointer(path, &bytes)?;
    utf_8(bytes).map_err(|not_text| not_text.of_file(path))
}

/// As [`read_bytes`], but as a stream.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(Error::io(path))?;
    refuse_git_lfs_pointer(path, &head)?;
    if matches!(head[..], [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff, ..]) {
        file.read_to_end(&mut head).map_err(Error::io(path))?;
        return Ok(Box::new(Cursor::new(utf_8(head).map_err(|not_text| not_text.of_file(path))?)));
    }
    let head = utf_8(head).map_err(|not_text| not_text.of_file(path))?;
    Ok(Box::new(Cursor::new(head).chain(BufReader::with_capacity(1 << 16, file))))
}

/// The position and reason of bytes that are not text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotText {
    /// From 1.
    line: usize,
    /// In bytes, from 1.
    column: usize,
    reason: &'static str,
}

impl NotText {
    fn after(valid: &[u8], reason: &'static str) -> Self {
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        let column = 1 + valid.iter().rev().take_while(|&&byte| byte != b'\n').count();
        Self { line, column, reason }
    }

    fn of_file(&self, path: &Path) -> Error {
        let Self { line, column, reason } = self;
        Error::bad(Fault::Text, format!("{}:{line}: column {column}: {reason}", path.display()))
    }
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, reason } = self;
        match line {
            1 => write!(f, "column {column}: {reason}"),
            _ => write!(f, "line {line}, column {column}: {reason}"),
        }
    }
}

fn into_text(bytes: Vec<u8>) -> std::result::Result<String, NotText> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        NotText::after(valid, "not UTF-8 text: convert it with iconv")
    })
}

/// The bytes as UTF-8 without their byte order mark, converted from UTF-16 where it is marked so.
fn utf_8(mut bytes: Vec<u8>) -> std::result::Result<Vec<u8>, NotText> {
    match bytes[..] {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err(NotText::after(&[], "UTF-32 text: convert it to UTF-8 with iconv"))
        }
        [0xff, 0xfe, ..] => utf_16(&bytes[2..], u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf_16(&bytes[2..], u16::from_be_bytes),
        _ if bytes.starts_with(UTF_8_MARK) => {
            bytes.drain(..UTF_8_MARK.len());
            Ok(bytes)
        }
        _ => Ok(bytes),
    }
}

fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> std::result::Result<Vec<u8>, NotText> {
    let (units, rest) = bytes.as_chunks();
    let mut text = String::with_capacity(bytes.len());
    for character in char::decode_utf16(units.iter().map(|&bytes| unit(bytes))) {
        text.push(character.map_err(|_| NotText::after(text.as_bytes(), "half a character of UTF-16"))?);
    }
    if !rest.is_empty() {
        return Err(NotText::after(text.as_bytes(), "half a character of UTF-16"));
    }
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf_16_of(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    /// The result of `read` and `open` for a file, which must be equal.
    fn read_both(bytes: &[u8]) -> std::result::Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let without_path =
            |error: Error| error.to_string().replace(&file.path().display().to_string(), "FILE");
        let whole = read(file.path()).map_err(without_path);
        let mut pieces = Vec::new();
        let opened = open(file.path()).map_err(without_path);
        let opened = opened.and_then(|mut text| {
            text.read_to_end(&mut pieces).unwrap();
            into_text(pieces).map_err(|not_text| without_path(not_text.of_file(file.path())))
        });
        assert_eq!(whole, opened);
        whole
    }

    #[test]
    fn a_byte_order_mark_of_any_encoding_is_removed() {
        let text = "é 🐈\nzwei\n".repeat(20);
        let marked = format!("{MARK}{text}");
        assert_eq!(read_both(text.as_bytes()).unwrap(), text);
        assert_eq!(read_both(marked.as_bytes()).unwrap(), text);
        assert_eq!(read_both(&utf_16_of(&marked, u16::to_le_bytes)).unwrap(), text);
        assert_eq!(read_both(&utf_16_of(&marked, u16::to_be_bytes)).unwrap(), text);
        assert_eq!(read_both(UTF_8_MARK).unwrap(), "");
        assert_eq!(lines("\u{feff}a\r\n\u{feff}b\u{feff}c\n").collect::<Vec<_>>(), ["a", "b\u{feff}c"]);
    }

    #[test]
    fn invalid_text_is_an_error_with_its_position() {
        let message_of = |bytes: &[u8]| read_both(bytes).unwrap_err();
        assert_eq!(message_of(b"one\ncaf\xe9"), "FILE:2: column 4: not UTF-8 text: convert it with iconv");
        assert_eq!(message_of(b"\xff\xfea\0\n\0b\0c"), "FILE:2: column 2: half a character of UTF-16");
        assert_eq!(message_of(b"\xff\xfe\x00\xd8a\0"), "FILE:1: column 1: half a character of UTF-16");
        assert_eq!(
            message_of(b"\xff\xfe\0\0a\0\0\0"),
            "FILE:1: column 1: UTF-32 text: convert it to UTF-8 with iconv"
        );
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        assert_eq!(message_of(pointer), "FILE: a Git LFS pointer, not the file itself: run `git lfs pull`");
    }
}
