//! Links between pages, and paths of the workspace that pages and comments name, lead to files that exist.

use super::Problem;
use super::files::File;

/// Folders at which a path of the workspace begins.
const FOLDERS: [&str; 5] = ["configs/", "crates/", "docs/", "xtask/", "data/goldens/"];

/// Finds broken relative links in a page, and paths that do not exist in a page or a comment.
pub fn check(file: &File, all: &[File]) -> Vec<Problem> {
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        let is_page = file.extension() == "md";
        if is_page {
            for target in links(line) {
                found.extend(broken(file, target, all).map(|message| file.problem(number, message)));
            }
        }
        if is_page || file.is_comment(line) {
            let missing = paths(line).filter(|path| !file.exists(path));
            found.extend(missing.map(|path| file.problem(number, format!("{path} does not exist"))));
        }
    }
    found
}

/// The targets of Markdown links: `target` of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Why a link does not lead anywhere, if so. Links to other sites are not followed.
fn broken(file: &File, target: &str, all: &[File]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { file.path.clone() } else { resolved(&file.path, path) };
    if !file.exists(&path) {
        return Some(format!("the link to {target} is broken: {path} does not exist"));
    }
    let page = all.iter().find(|page| page.path == path)?;
    let has_anchor = anchor.is_empty() || headings(&page.text).any(|heading| heading == anchor);
    (!has_anchor).then(|| format!("the link to {target} is broken: {path} has no heading #{anchor}"))
}

/// `target`, relative to the folder of `page`, as a path from the workspace.
fn resolved(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a page's headings, as GitHub makes them.
fn headings(page: &str) -> impl Iterator<Item = String> {
    let titles = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    titles.map(|title| {
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    })
}

/// The paths of the workspace that a line names. Patterns, such as `configs/*.toml` or `src/NAME.rs`, are
/// left out.
fn paths(line: &str) -> impl Iterator<Item = String> {
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || "_./-*{<".contains(c)));
    words.filter_map(|word| {
        let word = word.trim_end_matches(['.', '-']);
        let is_pattern = word.contains(['*', '{', '<']) || word.contains("NAME");
        let is_source =
            ["/src/", "/tests/", "/benches/", "/examples/"].iter().any(|part| word.contains(part));
        if is_pattern {
            None
        } else if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
            Some(word.to_owned())
        } else if word.starts_with("mm-") && is_source {
            Some(format!("crates/{word}"))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_and_missing_paths_are_found() {
        let root = tempfile::tempdir().unwrap();
        for path in ["docs/a.md", "configs/clip/b.toml", "crates/mm-c/src/d.rs"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let page = "# The page, in short\n[a](a.md) [self](#the-page-in-short) [site](https://x.org/y.md)\n\
                    [b](../configs/clip/b.toml) configs/clip/b.toml, configs/*.toml, docs/NAME.md, \
                    mm-c/src/d.rs.\n\
                    [gone](gone.md) [up](../gone.md)\n\
                    [no](a.md#no) configs/clip/gone.toml\nmm-c/src/gone.rs\n";
        let page = File::new(root.path(), "docs/a.md", page);
        let found = check(&page, std::slice::from_ref(&page));
        // File::new reads nothing: the page in `all` is `page` itself.
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/a.md:4: the link to gone.md is broken: docs/gone.md does not exist",
                "docs/a.md:4: the link to ../gone.md is broken: gone.md does not exist",
                "docs/a.md:5: the link to a.md#no is broken: docs/a.md has no heading #no",
                "docs/a.md:5: configs/clip/gone.toml does not exist",
                "docs/a.md:6: crates/mm-c/src/gone.rs does not exist",
            ]
        );
        let source = File::new(root.path(), "a.rs", "//! See docs/b.md.\nconst A: &str = \"docs/b.md\";\n");
        let found = check(&source, &[]);
        assert_eq!(found, [source.problem(1, "docs/b.md does not exist")]);
    }
}
