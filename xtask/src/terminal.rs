//! Lines for the user on standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::{env, io};

/// Writes a line to standard error. A closed standard error is ignored; `eprintln!` would panic.
pub fn note(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Whether standard error takes colours: it is a terminal, and `NO_COLOR` (no-color.org) is not set.
pub fn is_coloured() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
