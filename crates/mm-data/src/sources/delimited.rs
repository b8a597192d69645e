//! Files of comma- or tab-separated values: rows with line numbers, and the detection of misplaced quotation
//! marks.

use std::io::Read;
use std::path::{Path, PathBuf};

use csv::ByteRecord;

use crate::{Error, Result};

/// The dialect of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    /// Whether quotation marks enclose values with a delimiter or a line end.
    pub(crate) quoting: bool,
    /// The advice for a quotation mark that encloses too much.
    pub(crate) way_out: &'static str,
}

/// The line of a row, with its record or its problem.
pub(crate) type Row = (u64, std::result::Result<ByteRecord, String>);

/// The rows of a file, including the header.
///
/// # Errors
/// The file cannot be read, or a quotation mark that is never closed would enclose all further lines.
pub(crate) struct Rows<R> {
    path: PathBuf,
    dialect: Dialect,
    reader: csv::Reader<Kept<R>>,
    /// The number of lines before the next row.
    lines: u64,
    last_byte: u8,
}

impl<R: Read> Rows<R> {
    pub(crate) fn new(path: &Path, input: R, dialect: Dialect) -> Self {
        let reader = csv::ReaderBuilder::new()
            .delimiter(dialect.delimiter)
            .quoting(dialect.quoting)
            .flexible(true)
            .has_headers(false)
            .from_reader(Kept { input, bytes: Vec::new(), from: 0 });
        Self { path: path.to_owned(), dialect, reader, lines: 0, last_byte: b'\n' }
    }

    fn error(&self, line: u64, reason: String) -> Error {
        Error::Line { path: self.path.clone(), line, reason }
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let begin = self.reader.position().byte();
        self.reader.get_mut().forget(begin);
        let mut record = ByteRecord::new();
        match self.reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(self.error(self.lines + 1, error.to_string()))),
        }
        // The reader's own line count is wrong after empty lines and `\r\n`.
        let bytes = self.reader.get_ref().between(begin, self.reader.position().byte());
        let row = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let (empty, bytes) = bytes.split_at(row);
        let line = 1 + self.lines + line_ends(self.last_byte, empty);
        let spans_lines = record.as_slice().iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        let may_be_misplaced = self.dialect.quoting && (spans_lines || !bytes.ends_with(b"\n"));
        let quote = may_be_misplaced.then(|| misplaced_quote(bytes, self.dialect.delimiter)).flatten();
        self.lines = line - 1 + line_ends(b'x', bytes);
        self.last_byte = bytes.last().copied().unwrap_or(self.last_byte);
        let way_out = self.dialect.way_out;
        let opened = |at: usize| line + line_ends(b'x', &bytes[..at]);
        Some(match quote {
            Some(Quote { at, closed: None }) => {
                let below = line_ends(b'x', bytes[at..].trim_ascii_end());
                let what = "the quotation mark that opens here is never closed";
                match below {
                    0 => Ok((opened(at), Err(format!("{what}: {way_out}")))),
                    _ => {
                        let lost = format!("the {below} lines below it would become a part of its column");
                        Err(self.error(opened(at), format!("{what}, so that {lost}: {way_out}")))
                    }
                }
            }
            Some(Quote { at, closed: Some(closed) }) if spans_lines => {
                let what = "the quotation mark that opens here is closed on line";
                let last = opened(closed);
                Ok((
                    opened(at),
                    Err(format!("{what} {last}, before something other than a delimiter: {way_out}")),
                ))
            }
            _ => Ok((line, Ok(record))),
        })
    }
}

/// A misplaced quotation mark that opens a column.
struct Quote {
    /// Its position in the row.
    at: usize,
    /// The position of the closing one, if it is followed by something other than a delimiter or the row's
    /// end.
    closed: Option<usize>,
}

/// The first quotation mark of a row that is never closed, or closed in the middle of a column.
fn misplaced_quote(row: &[u8], delimiter: u8) -> Option<Quote> {
    enum State {
        Begin,
        Plain,
        Quoted(usize),
        Closed(usize),
    }
    let mut state = State::Begin;
    for (at, &byte) in row.iter().enumerate() {
        state = match state {
            State::Begin if byte == b'"' => State::Quoted(at),
            State::Begin | State::Plain if byte == delimiter => State::Begin,
            State::Begin | State::Plain => State::Plain,
            State::Quoted(open) if byte == b'"' => State::Closed(open),
            State::Quoted(open) => State::Quoted(open),
            State::Closed(open) if byte == b'"' => State::Quoted(open),
            State::Closed(_) if byte == delimiter || matches!(byte, b'\r' | b'\n') => State::Begin,
            State::Closed(open) => return Some(Quote { at: open, closed: Some(at - 1) }),
        };
    }
    match state {
        State::Quoted(open) => Some(Quote { at: open, closed: None }),
        _ => None,
    }
}

/// The line ends in `bytes`, `\n`, `\r\n` or `\r`; `before` is the byte before them.
fn line_ends(mut before: u8, bytes: &[u8]) -> u64 {
    let mut count = 0;
    for &byte in bytes {
        count += u64::from(byte == b'\r' || (byte == b'\n' && before != b'\r'));
        before = byte;
    }
    count
}

/// An input that keeps the bytes read from it, to inspect the raw text of a row.
struct Kept<R> {
    input: R,
    bytes: Vec<u8>,
    /// The position of the first kept byte in the input.
    from: u64,
}

impl<R> Kept<R> {
    fn between(&self, begin: u64, end: u64) -> &[u8] {
        &self.bytes[(begin - self.from) as usize..(end - self.from) as usize]
    }

    /// Drops bytes before `begin` once there are many.
    fn forget(&mut self, begin: u64) {
        let passed = (begin - self.from) as usize;
        if passed > 1 << 16 {
            self.bytes.drain(..passed);
            self.from = begin;
        }
    }
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: Dialect = Dialect { delimiter: b',', quoting: true, way_out: "close it" };

    /// Each row as its line and its columns, or its problem.
    fn rows(text: &str) -> Vec<(u64, String)> {
        let message_of = |row: Result<Row>| match row {
            Ok((line, Ok(record))) => {
                (line, record.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join("|"))
            }
            Ok((line, Err(reason))) => (line, format!("bad: {reason}")),
            Err(Error::Line { line, reason, .. }) => (line, format!("error: {reason}")),
            Err(error) => panic!("{error}"),
        };
        Rows::new(Path::new("table.csv"), text.as_bytes(), CSV).map(message_of).collect()
    }

    fn lines(text: &str) -> Vec<u64> {
        rows(text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn rows_have_the_line_of_their_start() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "a,b\n1,x\n\n\n2,\"y\n\nz\"\n\"3\",w\n4,v".replace('\n', end);
            assert_eq!(lines(&text), [1, 2, 5, 8, 9], "{text:?}");
            assert_eq!(lines(&text.replace("a,b", &format!("{end}{end}a,b"))), [3, 4, 7, 10, 11], "{text:?}");
        }
        // More than is kept in memory.
        let long = format!("a,b\r\n{}", format!("{},\"x\r\ny\"\r\n", "é".repeat(40)).repeat(5000));
        assert_eq!(lines(&long)[1..], (0..5000).map(|row| 2 + 2 * row).collect::<Vec<_>>());
    }

    #[test]
    fn a_quotation_mark_that_encloses_other_lines_is_reported_with_its_line() {
        let never = "never closed";
        let (line, message) = rows("a,b\n1,x\n2,\"open\n3,y\n4,z\n").pop().unwrap();
        assert!(
            line == 3
                && message.starts_with("error: ")
                && message.contains(never)
                && message.contains("the 2 lines"),
            "{message}"
        );
        let (line, message) = rows("a,b\r\n\r\n1,\"two\r\nlines\",\"open\r\n2,y\r\n").pop().unwrap();
        assert!(line == 4 && message.contains("the 1 lines below"), "{line} {message}");
        // No line follows the last one.
        for end in ["", "\n", "\r\n\r\n"] {
            let (line, message) = rows(&format!("a,b\n1,x\n2,\"open{end}")).pop().unwrap();
            assert!(line == 3 && message.starts_with("bad: ") && message.contains(never), "{line} {message}");
        }
        // A quotation mark of a later row closes it, so that two rows would become one.
        for text in ["a,b\n1,\"a dog\n2,\"a cat\"\n3,x\n", "a,b\n1,\"a dog\n2,a \"big\" cat\n3,x\n"] {
            let found = rows(text);
            assert!(
                found[1].0 == 2 && found[1].1.contains("is closed on line 3, before something other"),
                "{found:?}"
            );
            assert_eq!(found[2], (4, "3|x".to_owned()));
        }
    }

    #[test]
    fn harmless_quotation_marks_are_kept() {
        let text = "a,b\n1,\"big\" dog\n2,5\" screen\n3,\"two \"\"fine\"\"\nlines\"\n\"4\",\"\"\n5,\"last\"";
        let expected = [
            (1, "a|b"),
            (2, "1|big dog"),
            (3, "2|5\" screen"),
            (4, "3|two \"fine\"\nlines"),
            (6, "4|"),
            (7, "5|last"),
        ];
        assert_eq!(rows(text), expected.map(|(line, row)| (line, row.to_owned())));
        let tsv = Rows::new(
            Path::new("t"),
            &b"a\tb\n1\t\"open\n2\tx\n"[..],
            Dialect { delimiter: b'\t', quoting: false, ..CSV },
        );
        assert_eq!(tsv.map(|row| row.unwrap().1.unwrap().len()).collect::<Vec<_>>(), [2, 2, 2]);
    }
}
