//! The shards of a config: braces, wildcards, lists of shards, commands, standard input.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::index::INDEX_EXTENSION;
use crate::sources::walk::{Counted, is_hidden};
use crate::{Error, Result, text};

/// The limit on the number of shards. Brace expressions multiply: more are most likely a mistake.
const MOST: usize = 1_000_000;

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shard {
    /// A tar, plain or compressed.
    File(PathBuf),
    /// A shell command whose output is a tar.
    Pipe(String),
    /// Standard input.
    Stdin,
}

impl Shard {
    /// Whether it is an uncompressed local tar, which can be read by index.
    pub fn is_plain_file(&self) -> bool {
        const COMPRESSED: [&str; 4] = ["gz", "tgz", "zst", "tzst"];
        let is_compressed =
            |path: &Path| path.extension().is_some_and(|end| COMPRESSED.iter().any(|known| end == *known));
        matches!(self, Self::File(path) if !is_compressed(path))
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Pipe(command) => write!(f, "pipe:{command}"),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// All shards of the patterns of a config, in order: `a/{000..099}.tar`, `a/*.tar`, `a/{train,val}-*.tar`,
/// `pipe:cat a/{0..9}.tar`, `-` for standard input, and `list.txt` for a file with one pattern a line.
///
/// # Errors
/// A brace that is not closed, a pattern without a match, an empty or unreadable list.
pub(crate) fn shards(words: &[String]) -> Result<Vec<Shard>> {
    let mut found = Vec::new();
    for word in words {
        if word.ends_with(".txt") && !word.starts_with("pipe:") {
            let path = Path::new(word);
            let list = text::read(path)?;
            let lines: Vec<&str> =
                text::lines(&list).map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() {
                return Err(Error::Empty { name: word.clone(), hint: "the list has no shard".into() });
            }
            lines.into_iter().try_for_each(|line| add(line, &mut found))?;
        } else {
            add(word, &mut found)?;
        }
    }
    Ok(found)
}

fn add(word: &str, found: &mut Vec<Shard>) -> Result<()> {
    for name in braces(word)? {
        match name.strip_prefix("pipe:") {
            Some(command) => found.push(Shard::Pipe(command.trim().to_owned())),
            None if name == "-" => found.push(Shard::Stdin),
            None if name.contains(['*', '?', '[']) => found.extend(glob(&name)?),
            None => found.push(Shard::File(name.into())),
        }
        if found.len() > MOST {
            return Err(Error::Setting(format!("shards: `{word}` names more than {MOST} shards")));
        }
    }
    Ok(())
}

fn glob(pattern: &str) -> Result<Vec<Shard>> {
    let wrong = |reason: String| Error::Setting(format!("shards: `{pattern}`: {reason}"));
    let paths = glob::glob(pattern).map_err(|error| wrong(error.to_string()))?;
    let mut shards = Vec::new();
    let mut hidden = Counted::default();
    for path in paths {
        let path = path.map_err(|error| wrong(error.to_string()))?;
        if is_hidden_match(pattern, &path) {
            hidden.add(&path);
            continue;
        }
        // `*.tar*` is for gzipped shards, too, but not for index files.
        if path.extension().is_none_or(|end| end != INDEX_EXTENSION) {
            shards.push(Shard::File(path));
        }
    }
    hidden.report_hidden(Path::new(pattern));
    if shards.is_empty() {
        return Err(wrong("no file matches this pattern".into()));
    }
    Ok(shards)
}

/// Whether a wildcard matched a hidden file or folder. As in the shell, a pattern must name its leading dot.
fn is_hidden_match(pattern: &str, path: &Path) -> bool {
    let is_named = |part: &OsStr| {
        let part = part.to_string_lossy();
        let names = |named: &str| {
            named == part
                || named.starts_with('.') && glob::Pattern::new(named).is_ok_and(|named| named.matches(&part))
        };
        pattern.split('/').any(names)
    };
    let mut parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part),
        _ => None,
    });
    parts.any(|part| is_hidden(part) && !is_named(part))
}

/// The shell's brace expansion: `{a,b}` and `{00..12}`, nested and repeated. Braces without a comma or `..`
/// are kept.
fn braces(word: &str) -> Result<Vec<String>> {
    let Some(open) = word.find('{') else { return Ok(vec![word.to_owned()]) };
    let mut depth = 0;
    let mut commas = Vec::new();
    let mut close = None;
    for (at, character) in word[open..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => commas.push(open + at),
            _ => {}
        }
        if depth == 0 {
            close = Some(open + at);
            break;
        }
    }
    let unclosed = || Error::Setting(format!("shards: `{word}`: a brace is not closed"));
    let close = close.ok_or_else(unclosed)?;
    let (before, inner, after) = (&word[..open], &word[open + 1..close], braces(&word[close + 1..])?);
    let alternatives: Vec<String> = if commas.is_empty() {
        match range(inner)? {
            Some(range) => range,
            None => braces(inner)?.into_iter().map(|inner| format!("{{{inner}}}")).collect(),
        }
    } else {
        let starts = std::iter::once(open).chain(commas.iter().copied()).map(|at| at + 1);
        let ends = commas.iter().copied().chain(std::iter::once(close));
        let parts = starts.zip(ends).map(|(start, end)| braces(&word[start..end]));
        parts.collect::<Result<Vec<_>>>()?.concat()
    };
    if alternatives.len().saturating_mul(after.len()) > MOST {
        return Err(Error::Setting(format!("shards: `{word}` names more than {MOST} shards")));
    }
    let joined = |alternative: &String| {
        after.iter().map(move |after| format!("{before}{alternative}{after}")).collect()
    };
    Ok(alternatives.iter().map(joined).collect::<Vec<Vec<_>>>().concat())
}

/// Expands the range `00..12`, ascending or descending; `None` if it is not a range.
fn range(inner: &str) -> Result<Option<Vec<String>>> {
    let Some((from, to)) = inner.split_once("..") else { return Ok(None) };
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(from) || !is_number(to) {
        return Err(Error::Setting(format!(
            "shards: `{{{inner}}}`: a range goes from one number to another: `{{000..099}}`"
        )));
    }
    let number = |text: &str| text.parse::<u64>().unwrap_or_default();
    let (first, last) = (number(from), number(to));
    if first.abs_diff(last) >= MOST as u64 {
        return Err(Error::Setting(format!("shards: `{{{inner}}}` names more than {MOST} shards")));
    }
    // As in the shell, a leading zero pads all numbers to one width.
    let padded = [from, to].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { from.len().max(to.len()) } else { 0 };
    let name = |number: u64| format!("{number:0width$}");
    Ok(Some(if first <= last {
        (first..=last).map(name).collect()
    } else {
        (last..=first).rev().map(name).collect()
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(word: &str) -> Vec<String> {
        braces(word).unwrap()
    }

    #[test]
    fn braces_expand_as_in_the_shell() {
        assert_eq!(expanded("a{00..02}.tar"), ["a00.tar", "a01.tar", "a02.tar"]);
        assert_eq!(expanded("{2..0}"), ["2", "1", "0"]);
        assert_eq!(expanded("{8..10}"), ["8", "9", "10"]);
        assert_eq!(expanded("{08..10}"), ["08", "09", "10"]);
        assert_eq!(
            expanded("{a,b{1..2},}-{x,y}"),
            ["a-x", "a-y", "b1-x", "b1-y", "b2-x", "b2-y", "-x", "-y"]
        );
        assert_eq!(expanded("${HOME}/é.tar"), ["${HOME}/é.tar"]);
        for wrong in ["a{0..3.tar", "{a..c}", "{0..}", "{0..99999999}", "{0..999999}{0..9}"] {
            assert!(braces(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_are_files_globs_lists_commands_and_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["b-1.tar", "b-0.tar", "c.tar.gz", "._b-0.tar"] {
            std::fs::write(path(name), b"").unwrap();
        }
        std::fs::write(
            path("list.txt"),
            format!("\u{feff}{}\r\n\npipe: cat {{1..2}}.tar\n", path("x.tar").display()),
        )
        .unwrap();
        let words =
            [path("b-*.tar").display().to_string(), path("list.txt").display().to_string(), "-".into()];
        let pipe = |command: &str| Shard::Pipe(command.into());
        let expected = [path("b-0.tar"), path("b-1.tar"), path("x.tar")].map(Shard::File);
        let found = shards(&words).unwrap();
        assert_eq!(found[..3], expected);
        assert_eq!(found[3..], [pipe("cat 1.tar"), pipe("cat 2.tar"), Shard::Stdin]);
        assert!(found[0].is_plain_file() && !Shard::File("c.tar.gz".into()).is_plain_file());
        assert!(!Shard::File("c.tar.zst".into()).is_plain_file());
        let all = |pattern: &str| shards(&[path(pattern).display().to_string()]).unwrap();
        assert_eq!(
            all("*.tar"),
            [path("b-0.tar"), path("b-1.tar")].map(Shard::File),
            "a hidden file is not a shard"
        );
        assert_eq!(all("._*.tar"), [Shard::File(path("._b-0.tar"))], "unless the pattern names it");
        let none = shards(&[path("d-*.tar").display().to_string()]).unwrap_err().to_string();
        assert!(none.ends_with("no file matches this pattern"), "{none}");
    }

    proptest! {
        #![proptest_config(
            ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }
        )]

        #[test]
        fn no_word_panics_or_expands_without_bound(word in "[{},.0-9aé]{0,24}") {
            if let Ok(names) = braces(&word) {
                prop_assert!(!names.is_empty() && names.len() <= MOST);
            }
        }
    }
}
