//! Every Rust file begins with a `//!` line that says what it holds.

use super::Problem;
use super::files::File;

/// Finds a Rust file without a `//!` line at its beginning.
pub fn check(file: &File) -> Option<Problem> {
    let mut lines = file.lines().map(|(_, line)| line).filter(|line| !line.is_empty());
    let has_doc = lines.find(|line| !line.starts_with("#!")).is_some_and(|line| line.starts_with("//!"));
    (file.extension() == "rs" && !has_doc)
        .then(|| file.problem(1, "the file has no `//!` line that says what it holds"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_file_needs_a_first_line_about_its_contents() {
        let found = |text: &str| check(&File::new(Path::new(""), "src/a.rs", text)).is_some();
        assert!(!found("//! Layers.\n\nuse a;\n"));
        assert!(!found("#![allow(unused)]\n//! Layers.\n"));
        assert!(found("use a;\n//! Layers.\n") && found("// Layers.\n") && found(""));
    }
}
