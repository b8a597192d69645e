//! Walks the folders that hold a data set: hidden entries are left out, links are followed, and what is
//! passed over is counted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};
use mm_image::{IMAGE_EXTENSIONS, is_image_extension};

/// Names that archives, file managers and file systems leave behind without a leading dot.
const LEFT_BEHIND: [&str; 7] = [
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
];

/// Extensions of image formats that are not decoded, for a word on what to do about them.
const UNREAD_IMAGES: [&str; 17] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "svg", "ico", "psd", "tga", "exr", "hdr", "qoi", "dds",
    "dng", "cr2", "nef",
];

/// Kinds of passed-over files that one line names.
const NAMED_KINDS: usize = 8;

/// Whether a file or folder of this name is no data: hidden (`.ipynb_checkpoints`, the `._x.jpg` that macOS
/// writes beside `x.jpg`), or left behind by an archive or a file manager.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || LEFT_BEHIND.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// How many of something there are, and the first.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    count: usize,
    first: PathBuf,
}

impl Counted {
    pub(crate) fn add(&mut self, path: &Path) {
        if self.count == 0 {
            self.first = path.to_owned();
        }
        self.count += 1;
    }

    /// Says that `self` are hidden entries of `folder` that were left out, if there are any.
    pub(crate) fn report_hidden(&self, folder: &Path) {
        self.report(folder, "hidden files or folders are left out");
    }

    fn report(&self, folder: &Path, what: &str) {
        if self.count > 0 {
            tracing::warn!("{}: {} {what} (first: {})", folder.display(), self.count, self.first.display());
        }
    }
}

/// What a folder holds, to any depth.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Paths of images below the folder, sorted. A link to a file that is not there is among them if its name
    /// is an image's: reading it fails, and counts as a bad sample.
    pub(crate) images: Vec<PathBuf>,
    /// Paths of `.txt` files below the folder, which may be captions.
    texts: Vec<PathBuf>,
    /// Other files by extension in lower case, or by what they are.
    others: BTreeMap<String, usize>,
    hidden: Counted,
    loops: Counted,
    dangling: Counted,
}

impl Walk {
    /// Walks `root` and all folders below it, links to folders included.
    ///
    /// Errors: a folder cannot be read.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let mut walk = Self::default();
        walk.folder(root, Path::new(""), &mut Vec::new())?;
        walk.images.sort();
        walk.count_texts();
        Ok(walk)
    }

    /// `ancestors` are the device and inode of each folder on the way to `below`.
    fn folder(&mut self, root: &Path, below: &Path, ancestors: &mut Vec<(u64, u64)>) -> Result<()> {
        let folder = root.join(below);
        let place =
            fs::metadata(&folder).map(|place| (place.dev(), place.ino())).map_err(Error::io(&folder))?;
        if ancestors.contains(&place) {
            self.loops.add(below);
            return Ok(());
        }
        ancestors.push(place);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            let kind = entry.file_type().map_err(Error::io(entry.path()))?;
            entries.push((entry.file_name(), kind));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, mut kind) in entries {
            let path = below.join(&name);
            if is_hidden(&name) {
                self.hidden.add(&path);
                continue;
            }
            if kind.is_symlink() {
                match fs::metadata(root.join(&path)) {
                    Ok(target) => kind = target.file_type(),
                    Err(_) if is_image(&path) => self.images.push(path.clone()),
                    Err(_) => self.dangling.add(&path),
                }
            }
            match () {
                () if kind.is_symlink() => {}
                () if kind.is_dir() => self.folder(root, &path, ancestors)?,
                () if !kind.is_file() => {
                    *self.others.entry("pipes, sockets or devices".into()).or_default() += 1
                }
                () if is_image(&path) => self.images.push(path),
                () if path.extension().is_some_and(|extension| extension == "txt") => self.texts.push(path),
                () => *self.others.entry(kind_of(&path)).or_default() += 1,
            }
        }
        ancestors.pop();
        Ok(())
    }

    /// Counts the texts that stand beside no image.
    fn count_texts(&mut self) {
        let mut stems: Vec<PathBuf> = self.images.iter().map(|image| image.with_extension("")).collect();
        stems.sort();
        let alone =
            self.texts.iter().filter(|text| stems.binary_search(&text.with_extension("")).is_err()).count();
        if alone > 0 {
            self.others.insert(".txt without an image".into(), alone);
        }
    }

    /// Says what of `root` was left out, a line for each reason.
    pub(crate) fn report(&self, root: &Path) {
        self.hidden.report_hidden(root);
        self.loops.report(root, "links to a folder that they lie in are not followed");
        self.dangling.report(root, "links lead to nothing: mount or copy what they name");
        if let Some(passed) = self.passed_over() {
            tracing::warn!("{}: {passed}", root.display());
        }
    }

    /// How many files of which kinds are no images that can be read, in one line; none: there are none.
    fn passed_over(&self) -> Option<String> {
        let mut kinds: Vec<(&str, usize)> =
            self.others.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let total: usize = kinds.iter().map(|(_, count)| count).sum();
        let is_unread =
            |kind: &&str| kind.strip_prefix('.').is_some_and(|kind| UNREAD_IMAGES.contains(&kind));
        let unread: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).filter(is_unread).collect();
        let more = kinds.len().saturating_sub(NAMED_KINDS);
        let mut named: Vec<String> =
            kinds.iter().take(NAMED_KINDS).map(|(kind, count)| format!("{count} {kind}")).collect();
        named.extend((more > 0).then(|| format!("{more} other kinds")));
        let advice = match unread.is_empty() {
            true => String::new(),
            false => format!("; convert {} to JPEG, PNG or WebP", unread.join(", ")),
        };
        (total > 0).then(|| format!("{total} files are passed over: {}{advice}", named.join(", ")))
    }

    /// Why the folder gave no image: what is read, and what is there instead.
    pub(crate) fn why_empty(&self) -> String {
        let read: Vec<String> = IMAGE_EXTENSIONS.iter().map(|extension| format!(".{extension}")).collect();
        let nothing = format!("no image ({}) is in the folder", read.join(", "));
        let hidden =
            (self.hidden.count > 0).then(|| format!("{} hidden entries are left out", self.hidden.count));
        [Some(nothing), self.passed_over(), hidden].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

fn is_image(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(is_image_extension)
}

/// The extension with its dot, in lower case.
fn kind_of(path: &Path) -> String {
    match path.extension() {
        Some(extension) => format!(".{}", extension.to_string_lossy().to_lowercase()),
        None => "without an extension".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        folder
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn hidden_files_and_folders_are_left_out_and_counted() {
        let folder = folder(&[
            "cat/a.jpg",
            "cat/._a.jpg",
            "cat/.DS_Store",
            "cat/Thumbs.db",
            "cat/@eaDir/a.jpg",
            ".ipynb_checkpoints/a-checkpoint.jpg",
            "__MACOSX/cat/a.jpg",
            "not.hidden.jpg",
        ]);
        let walk = Walk::of(folder.path()).unwrap();
        assert_eq!(walk.images, paths(&["cat/a.jpg", "not.hidden.jpg"]));
        assert_eq!((walk.hidden.count, walk.hidden.first.as_path()), (6, Path::new(".ipynb_checkpoints")));
        assert_eq!(walk.passed_over(), None);
        let beside = tempfile::Builder::new().prefix(".hidden").tempdir().unwrap();
        fs::write(beside.path().join("a.png"), b"x").unwrap();
        assert_eq!(
            Walk::of(beside.path()).unwrap().images,
            paths(&["a.png"]),
            "the folder itself may be hidden"
        );
    }

    #[test]
    fn links_are_followed_unless_they_lead_back_up_or_nowhere() {
        let (folder, elsewhere) = (folder(&["cat/a.jpg", "dog/b.jpg"]), folder(&["c.jpg", "deep/d.png"]));
        let at = |name: &str| folder.path().join(name);
        symlink(elsewhere.path(), at("bird")).unwrap();
        symlink("../cat/a.jpg", at("dog/linked.jpg")).unwrap();
        symlink("..", at("cat/up")).unwrap();
        symlink(at("dog"), at("dog/self")).unwrap();
        symlink("../dog", at("cat/other")).unwrap();
        symlink("gone", at("fish")).unwrap();
        symlink("gone.jpg", at("cat/z.jpg")).unwrap();
        symlink("ring", at("ring")).unwrap();
        let walk = Walk::of(folder.path()).unwrap();
        let found = [
            "bird/c.jpg",
            "bird/deep/d.png",
            "cat/a.jpg",
            "cat/other/b.jpg",
            "cat/other/linked.jpg",
            "cat/z.jpg", // a bad sample, when it is read
            "dog/b.jpg",
            "dog/linked.jpg",
        ];
        assert_eq!(walk.images, paths(&found));
        assert_eq!((walk.loops.count, walk.loops.first.as_path()), (3, Path::new("cat/other/self")));
        assert_eq!((walk.dangling.count, walk.dangling.first.as_path()), (2, Path::new("fish")));
    }

    #[test]
    fn files_of_other_kinds_are_counted_by_kind_in_one_line() {
        let folder = folder(&[
            "a.JFIF",
            "a.txt",
            "b.jpe",
            "c.TIFF",
            "c.json",
            "d.avif",
            "e.AVIF",
            "f.mp4",
            "notes.txt",
            "README",
        ]);
        let _socket = UnixListener::bind(folder.path().join("s.jpg")).unwrap();
        let walk = Walk::of(folder.path()).unwrap();
        assert_eq!(walk.images, paths(&["a.JFIF", "b.jpe", "c.TIFF"]));
        let expected = "7 files are passed over: 2 .avif, 1 .json, 1 .mp4, 1 .txt without an image, 1 pipes, sockets or devices, \
                        1 without an extension; convert .avif to JPEG, PNG or WebP";
        assert_eq!(walk.passed_over().unwrap(), expected);
    }
}
