//! What the ranks write: whole lines under the rank's name, and which of them tells why it ended.

use std::io::{BufRead, BufReader, Read, Write};

/// A line longer than this many bytes is broken: a rank that never ends its line must not fill the memory.
const LONGEST: u64 = 1 << 20;

/// The latest lines of a rank that may tell why it ended.
#[derive(Default)]
pub struct LastWords {
    error: Option<String>,
    line: Option<String>,
}

impl LastWords {
    /// Takes note of a line.
    pub fn hear(&mut self, line: &str) {
        let line = line.trim();
        if let Some(message) = line.strip_prefix("error: ") {
            self.error = Some(message.to_owned());
        } else if !line.is_empty() && !line.starts_with("note: ") {
            self.line = Some(line.to_owned()); // A panic's last line is a note on backtraces.
        }
    }

    /// What the last `error:` line says.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What the last `error:` line says, or else the last line.
    pub fn message(&self) -> Option<&str> {
        self.error().or(self.line.as_deref())
    }
}

/// What stands before each line of a rank, as wide for every rank of the group.
pub fn prefix(rank: u32, world_size: u32, dimmed: bool) -> String {
    let width = (world_size - 1).to_string().len();
    if dimmed { format!("\x1b[2m[rank {rank:>width$}]\x1b[0m ") } else { format!("[rank {rank:>width$}] ") }
}

/// Copies a rank's stream to its end, each line in one write and behind the prefix, and calls `heard` with
/// it.
pub fn copy(stream: impl Read, prefix: &str, out: &mut dyn Write, mut heard: impl FnMut(&str)) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = prefix.as_bytes().to_vec();
        match stream.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        heard(&String::from_utf8_lossy(&line[prefix.len()..]));
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // A reader that went away is no reason to stop: a rank whose pipe is full would wait for ever.
        let _ = out.write_all(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(written: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut out, mut heard) = (Vec::new(), Vec::new());
        copy(written, "> ", &mut out, |line| heard.push(line.to_owned()));
        (out, heard)
    }

    #[test]
    fn every_line_has_its_prefix_whatever_its_bytes_and_the_last_ends() {
        let (out, heard) = copied(b"one\n\n\xff\xfe two\nthree");
        assert_eq!(out, b"> one\n> \n> \xff\xfe two\n> three\n");
        assert_eq!(heard[2], "\u{fffd}\u{fffd} two\n");
    }

    #[test]
    fn a_long_line_stays_whole_and_an_endless_one_is_broken() {
        let mut long = vec![b'x'; LONGEST as usize - 1];
        long.push(b'\n');
        assert_eq!(copied(&long).0, [b"> ", &long[..]].concat());
        let (out, heard) = copied(&vec![b'x'; LONGEST as usize + 1]);
        assert_eq!((heard.len(), &out[out.len() - 5..]), (2, &b"\n> x\n"[..]));
    }

    #[test]
    fn the_last_error_line_tells_more_than_what_comes_after_it() {
        let mut words = LastWords::default();
        assert_eq!(words.message(), None);
        words.hear("thread 'main' panicked: no room\n");
        words.hear("note: run with `RUST_BACKTRACE=1`\n");
        words.hear("  \n");
        assert_eq!((words.error(), words.message()), (None, Some("thread 'main' panicked: no room")));
        words.hear("error: no such file\n");
        words.hear("bye\n");
        assert_eq!(words.message(), Some("no such file"));
    }

    #[test]
    fn prefixes_are_as_wide_as_the_largest_ranks() {
        assert_eq!(prefix(2, 10, false), "[rank 2] ");
        assert_eq!(prefix(2, 11, false), "[rank  2] ");
        assert_eq!(prefix(0, 1, true), "\x1b[2m[rank 0]\x1b[0m ");
    }
}
