//! The output of the ranks: complete lines with the rank's prefix, and the line that explains a failure.

use std::io::{BufRead, BufReader, Read, Write};

/// A line of more bytes is broken: a rank that never ends its line must not fill the memory.
const LONGEST: u64 = 1 << 20;

/// The last lines of a rank that may explain its end.
#[derive(Default)]
pub struct LastLines {
    error: Option<String>,
    line: Option<String>,
}

impl LastLines {
    /// Records a line.
    pub fn record(&mut self, line: &str) {
        let line = line.trim();
        if let Some(message) = line.strip_prefix("error: ") {
            self.error = Some(message.to_owned());
        } else if !line.is_empty() && !line.starts_with("note: ") {
            self.line = Some(line.to_owned()); // A panic's last line is a note on backtraces.
        }
    }

    /// The message of the last `error:` line.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The message of the last `error:` line, or else the last line.
    pub fn message(&self) -> Option<&str> {
        self.error().or(self.line.as_deref())
    }
}

/// The prefix of each line of a rank, of one width in the whole group.
pub fn prefix(rank: u32, world_size: u32, dimmed: bool) -> String {
    let width = (world_size - 1).to_string().len();
    if dimmed { format!("\x1b[2m[rank {rank:>width$}]\x1b[0m ") } else { format!("[rank {rank:>width$}] ") }
}

/// Copies a rank's stream to its end, each line in one write after the prefix, and calls `on_line` with it.
pub fn copy(stream: impl Read, prefix: &str, out: &mut dyn Write, mut on_line: impl FnMut(&str)) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = prefix.as_bytes().to_vec();
        match stream.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        on_line(&String::from_utf8_lossy(&line[prefix.len()..]));
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // Continue after a failed write: a rank whose pipe is full would wait for ever.
        let _ = out.write_all(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(written: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut out, mut lines) = (Vec::new(), Vec::new());
        copy(written, "> ", &mut out, |line| lines.push(line.to_owned()));
        (out, lines)
    }

    #[test]
    fn every_line_has_its_prefix_whatever_its_bytes_and_the_last_ends() {
        let (out, lines) = copied(b"one\n\n\xff\xfe two\nthree");
        assert_eq!(out, b"> one\n> \n> \xff\xfe two\n> three\n");
        assert_eq!(lines[2], "\u{fffd}\u{fffd} two\n");
    }

    #[test]
    fn a_long_line_stays_whole_and_an_endless_one_is_broken() {
        let mut long = vec![b'x'; LONGEST as usize - 1];
        long.push(b'\n');
        assert_eq!(copied(&long).0, [b"> ", &long[..]].concat());
        let (out, lines) = copied(&vec![b'x'; LONGEST as usize + 1]);
        assert_eq!((lines.len(), &out[out.len() - 5..]), (2, &b"\n> x\n"[..]));
    }

    #[test]
    fn the_last_error_line_wins_over_lines_after_it() {
        let mut last = LastLines::default();
        assert_eq!(last.message(), None);
        last.record("thread 'main' panicked: no room\n");
        last.record("note: run with `RUST_BACKTRACE=1`\n");
        last.record("  \n");
        assert_eq!((last.error(), last.message()), (None, Some("thread 'main' panicked: no room")));
        last.record("error: no such file\n");
        last.record("bye\n");
        assert_eq!(last.message(), Some("no such file"));
    }

    #[test]
    fn prefixes_are_as_wide_as_the_largest_ranks() {
        assert_eq!(prefix(2, 10, false), "[rank 2] ");
        assert_eq!(prefix(2, 11, false), "[rank  2] ");
        assert_eq!(prefix(0, 1, true), "\x1b[2m[rank 0]\x1b[0m ");
    }
}
