//! Words that documentation of this field does not use, in comments, messages and pages.

use super::Problem;
use super::files::File;

/// Each word, and what to write instead.
const WORDS: [(&str, &str); 16] = [
    ("asks", "requests, needs, reads"),
    ("comes about", "happens"),
    ("heed", "use, apply"),
    ("heeded", "used, applied"),
    ("heeds", "uses, applies"),
    ("lacks", "has no, is missing"),
    ("mended", "fixed, changed"),
    ("mends", "fixes, changes"),
    ("nobody", "no process, no caller"),
    ("tells", "says, shows, returns"),
    ("told", "reported, set, given"),
    ("whereabouts", "location"),
    ("whither", "destination"),
    ("who", "the process, the caller, the user"),
    ("whoever", "the process, the caller, the user"),
    ("whom", "the process, the caller, the user"),
];

/// Files that quote the words.
const EXEMPT: [&str; 2] = ["CONTRIBUTING.md", "xtask/src/tidy/words.rs"];

/// Finds the words of [`WORDS`]. The code of tests may hold any text; their comments may not.
pub fn check(file: &File) -> Vec<Problem> {
    if EXEMPT.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let tests = if file.extension() == "rs" { file.first_test_line() } else { usize::MAX };
    let mut found = Vec::new();
    for (number, line) in file.lines().filter(|(number, line)| *number < tests || file.is_comment(line)) {
        let line = line.to_lowercase();
        let used = WORDS.iter().filter(|(word, _)| contains(&line, word));
        found.extend(used.map(|(word, better)| {
            file.problem(number, format!("\"{word}\" is not a word of this documentation: write {better}"))
        }));
    }
    found
}

/// Whether `word` stands in `line` with no letter, digit or underscore on either side.
fn contains(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn words_are_found_in_comments_messages_and_pages_but_not_in_the_data_of_tests() {
        let text = "//! The loader asks.\nfn whose() {}\nlet m = \"Nobody\";\n#[cfg(test)]\n\
                    mod tests {\n    // Who?\n    let caption = \"who is that\";\n}\n";
        let lines = |path| {
            let found = check(&File::new(Path::new(""), path, text));
            found.iter().map(|problem| problem.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("src/a.rs"), [1, 3, 6]);
        assert_eq!(lines("docs/a.md"), [1, 3, 6, 7]);
    }
}
