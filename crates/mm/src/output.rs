//! Standard output and standard error.

use std::io::{ErrorKind, IsTerminal, Write};

/// Writes `text` to standard output. A reader that has closed the pipe, as `head` does, is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// As [`print()`], with a newline.
pub fn print_line(line: impl std::fmt::Display) -> anyhow::Result<()> {
    print(&format!("{line}\n"))
}

/// Writes a line to standard error. A closed terminal or a full disk is no error: the work goes on.
pub fn note(line: impl std::fmt::Display) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Whether standard error takes colors: it is a terminal, and `NO_COLOR` (no-color.org) is not set.
pub fn is_colored() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
