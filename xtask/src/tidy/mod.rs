//! `cargo xtask tidy`: rules of style that rustfmt and clippy do not hold. CONTRIBUTING.md lists them.
//!
//! Each rule is a function from a file to its problems, in a file of its own. To add one, write it and call
//! it in [`problems`].

mod files;
mod head;
mod length;
mod paths;
mod words;

use std::fmt;

use anyhow::{Result, bail};

use self::files::File;
use crate::workspace::Workspace;

/// Something that a rule forbids.
#[derive(Debug, PartialEq)]
struct Problem {
    path: String,
    /// Counted from 1.
    line: usize,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Options of `tidy`.
#[derive(clap::Args, Default)]
#[command(after_help = "Examples:\n  cargo xtask tidy\n  cargo xtask tidy crates/mm-core docs")]
pub struct Args {
    /// Check only these files and folders, given relative to the workspace
    paths: Vec<String>,
}

/// Runs the verb: prints every problem.
///
/// # Errors
/// There is a problem, or a file cannot be read.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let files = files::read(&workspace.path(""))?;
    let checked: Vec<&File> = files.iter().filter(|file| args.includes(&file.path)).collect();
    let problems: Vec<Problem> = checked.iter().flat_map(|file| problems(file, &files)).collect();
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} problems of style; the rules are in CONTRIBUTING.md", problems.len());
    }
    eprintln!("{} files are tidy", checked.len());
    Ok(())
}

impl Args {
    fn includes(&self, file: &str) -> bool {
        self.paths.is_empty()
            || self.paths.iter().map(|path| path.trim_end_matches('/')).any(|path| {
                file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }
}

/// The problems of one file among all files of the workspace.
fn problems(file: &File, all: &[File]) -> Vec<Problem> {
    let mut found = length::check(file);
    found.extend(head::check(file));
    found.extend(paths::check(file, all));
    found.extend(words::check(file));
    found.sort_by_key(|problem| problem.line);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_files_and_folders_are_checked_alone() {
        let args = Args { paths: vec!["docs/".to_owned(), "crates/mm/src/main.rs".to_owned()] };
        assert!(args.includes("docs/a.md") && args.includes("crates/mm/src/main.rs"));
        assert!(!args.includes("docs.md") && !args.includes("crates/mm/src/a.rs"));
        assert!(Args::default().includes("docs/a.md"));
    }
}
