//! What the user sees: lines that nobody need read.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::{env, io};

/// Writes a line to standard error; one that is closed is no reason to end, as it would be with `eprintln!`.
pub fn note(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Whether standard error takes colours: it is a terminal, and `NO_COLOR` (no-color.org) is not set.
pub fn is_coloured() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
