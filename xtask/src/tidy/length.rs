//! Lines of at most 110 columns, comments and strings included, which rustfmt leaves alone.

use super::Problem;
use super::files::File;

/// As `max_width` in rustfmt.toml.
const COLUMNS: usize = 110;

/// Finds long lines in Rust, TOML and Python. A line that is a single word, such as a URL, has no place to
/// break.
pub fn check(file: &File) -> Vec<Problem> {
    if !["rs", "toml", "py"].contains(&file.extension()) {
        return Vec::new();
    }
    let long = file.lines().filter_map(|(number, line)| {
        let columns = line.chars().count();
        (columns > COLUMNS && !is_one_word(line)).then(|| {
            file.problem(number, format!("the line has {columns} columns, and {COLUMNS} is the limit"))
        })
    });
    long.collect()
}

fn is_one_word(line: &str) -> bool {
    let markers = |c: char| c.is_whitespace() || "/!#*-".contains(c);
    !line.trim_start_matches(markers).trim_end().contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn long_lines_are_found_but_not_long_words() {
        let words = "word ".repeat(25);
        let url = format!("//! https://example.org/{}", "x".repeat(120));
        let text = format!("//! Short.\n// {words}\n{url}\n    \"{words}\"\n{}\n", "é".repeat(110));
        let file = |path| File::new(Path::new(""), path, text.as_str());
        let lines: Vec<usize> = check(&file("a.rs")).iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2, 4]);
        assert_eq!(check(&file("a.md")), []);
    }
}
