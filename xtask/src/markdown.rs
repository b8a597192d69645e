//! Generated sections of the documentation: tables between markers.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, Result, bail};

/// A Markdown table whose columns also line up in a terminal; the first line is the header.
pub fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        if index == 0 {
            let rules = widths.map(|width| "-".repeat(width));
            let _ = writeln!(text, "| {} |", rules.join(" | "));
        }
    }
    text
}

/// Writes the text between `<!-- SECTION -->` and `<!-- /SECTION -->`. A page without the markers gets them
/// at its end.
pub fn write_section(page: &Path, section: &str, text: &str) -> Result<()> {
    let before = match fs::read_to_string(page) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("cannot read {}", page.display()))?,
    };
    let after =
        replaced(&before, section, text).with_context(|| format!("cannot write into {}", page.display()))?;
    fs::write(page, after).with_context(|| format!("cannot write {}", page.display()))
}

fn replaced(page: &str, section: &str, text: &str) -> Result<String> {
    let (open, close) = (format!("<!-- {section} -->"), format!("<!-- /{section} -->"));
    let body = format!("{open}\n\n{text}\n{close}");
    match (page.find(&open), page.find(&close)) {
        (Some(start), Some(end)) if start < end => {
            Ok(format!("{}{body}{}", &page[..start], &page[end + close.len()..]))
        }
        (None, None) => Ok(format!("{page}\n{body}\n")),
        _ => bail!("the markers {open} and {close} do not form a pair"),
    }
}

/// The date in UTC, as 2026-01-31.
pub fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_of_the_page_stays() {
        let page = "# Benchmarks\nwords\n";
        let first = replaced(page, "bench clip", "old\n").unwrap();
        let second = replaced(&format!("{first}more words\n"), "bench clip", "new\n").unwrap();
        assert_eq!(
            second,
            "# Benchmarks\nwords\n\n<!-- bench clip -->\n\nnew\n\n<!-- /bench clip -->\nmore words\n"
        );
        assert!(replaced("<!-- bench clip -->", "bench clip", "").is_err());
    }
}
