//! The files that tidy checks: sources, configurations, scripts and pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Problem;

/// Folders that hold no sources, beside hidden ones.
const SKIPPED: [&str; 4] = ["target", "runs", "data", "__pycache__"];

/// A text file of the workspace.
#[derive(Debug)]
pub struct File {
    /// The path relative to the workspace, with `/`.
    pub path: String,
    pub text: String,
    /// The workspace's folder.
    root: PathBuf,
}

impl File {
    /// A file of the workspace `root`.
    pub fn new(root: &Path, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), root: root.to_owned() }
    }

    /// The extension of its name; empty without one.
    pub fn extension(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// Its lines, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether `path`, relative to the workspace, exists.
    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A problem in this file.
    pub fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem { path: self.path.clone(), line, message: message.into() }
    }

    /// Whether the line is a comment and nothing else.
    pub fn is_comment(&self, line: &str) -> bool {
        let line = line.trim_start();
        match self.extension() {
            "rs" => line.starts_with("//"),
            "md" => false,
            _ => line.starts_with('#'),
        }
    }

    /// The number of the line where the unit tests of a Rust file begin; all lines of a file in `tests` or
    /// `benches` are tests.
    pub fn first_test_line(&self) -> usize {
        if self.path.split('/').any(|part| part == "tests" || part == "benches" || part == "tests.rs") {
            return 1;
        }
        let marker = self.lines().find(|(_, line)| *line == "#[cfg(test)]");
        marker.map_or(usize::MAX, |(number, _)| number)
    }
}

/// Reads all text files that tidy checks, in order of their paths.
pub fn read(root: &Path) -> Result<Vec<File>> {
    let mut paths = BTreeSet::new();
    walk(root, root, &mut paths)?;
    let read = |path: String| {
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
        Ok(File::new(root, path, text))
    };
    paths.into_iter().map(read).collect()
}

fn walk(root: &Path, folder: &Path, paths: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            walk(root, &path, paths)?;
        } else if kind.is_file() && is_checked(&name) {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            paths.insert(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

fn is_checked(name: &str) -> bool {
    ["rs", "toml", "py", "md", "sbatch"].iter().any(|end| name.ends_with(&format!(".{end}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_pages_are_read_and_built_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        for path in ["src/a.rs", "docs/b.md", "target/c.rs", ".hidden/d.md", "data/e.toml", "src/f.bin"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text\n").unwrap();
        }
        let files = read(root.path()).unwrap();
        assert_eq!(
            files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
            ["docs/b.md", "src/a.rs"]
        );
        assert!(files[0].exists("src/f.bin") && !files[0].exists("src/b.md"));
    }

    #[test]
    fn unit_tests_begin_at_their_marker() {
        let file = |path| File::new(Path::new(""), path, "//! A.\n\n#[cfg(test)]\nmod tests {}\n");
        assert_eq!(file("src/a.rs").first_test_line(), 3);
        assert_eq!(file("crates/a/tests/b.rs").first_test_line(), 1);
    }
}
