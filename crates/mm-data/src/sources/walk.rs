//! Walks the folders of a data set: hidden entries are left out, links are followed, and skipped files are
//! counted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::dicom::has_dicom_extension;
use crate::{Error, Result};
use mm_image::{IMAGE_EXTENSIONS, is_image_extension};

/// Names without a leading dot that archives, file managers and file systems create.
const SYSTEM_NAMES: [&str; 7] = [
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
];

/// Extensions of unsupported image formats, for advice on converting them.
const UNSUPPORTED_IMAGES: [&str; 17] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "svg", "ico", "psd", "tga", "exr", "hdr", "qoi", "dds",
    "dng", "cr2", "nef",
];

/// The number of kinds of skipped files that the log line lists.
const NAMED_KINDS: usize = 8;

/// Whether a file or folder of this name is not data: hidden (`.ipynb_checkpoints`, the `._x.jpg` that macOS
/// writes beside `x.jpg`), or created by an archive or a file manager.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || SYSTEM_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// A number of paths, and the first of them.
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

    /// Logs that these hidden entries of `folder` are left out, if there are any.
    pub(crate) fn report_hidden(&self, folder: &Path) {
        self.report(folder, "hidden files or folders are left out");
    }

    fn report(&self, folder: &Path, what: &str) {
        if self.count > 0 {
            tracing::warn!("{}: {} {what} (first: {})", folder.display(), self.count, self.first.display());
        }
    }
}

/// The contents of a folder, at any depth.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The sorted paths of images, relative to the folder. A broken link with the name of an image is among
    /// them: it becomes a bad sample.
    pub(crate) images: Vec<PathBuf>,
    /// The paths of `.txt` files, which may be captions.
    texts: Vec<PathBuf>,
    /// The number of other files by extension in lower case, or by type.
    others: BTreeMap<String, usize>,
    hidden: Counted,
    loops: Counted,
    dangling: Counted,
}

impl Walk {
    /// Walks `root` and all folders below it, including links to folders.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        Self::accepting(root, is_image)
    }

    /// As [`of`](Self::of), with the files that `is_image` accepts by their full path.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(crate) fn accepting(root: &Path, is_image: fn(&Path) -> bool) -> Result<Self> {
        let mut walk = Self::default();
        walk.folder(root, Path::new(""), is_image, &mut Vec::new())?;
        walk.images.sort();
        walk.count_texts();
        Ok(walk)
    }

    /// `ancestors` are the device and inode of each parent folder of `below`.
    fn folder(
        &mut self,
        root: &Path,
        below: &Path,
        is_image: fn(&Path) -> bool,
        ancestors: &mut Vec<(u64, u64)>,
    ) -> Result<()> {
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
                    Err(_) if is_image(&root.join(&path)) => self.images.push(path.clone()),
                    Err(_) => self.dangling.add(&path),
                }
            }
            if kind.is_symlink() {
                continue; // broken: counted above
            } else if kind.is_dir() {
                self.folder(root, &path, is_image, ancestors)?;
            } else if !kind.is_file() {
                *self.others.entry("pipes, sockets or devices".into()).or_default() += 1;
            } else if is_image(&root.join(&path)) {
                self.images.push(path);
            } else if path.extension().is_some_and(|extension| extension == "txt") {
                self.texts.push(path);
            } else {
                *self.others.entry(kind_of(&path)).or_default() += 1;
            }
        }
        ancestors.pop();
        Ok(())
    }

    /// Counts the text files that are not beside an image of their name.
    fn count_texts(&mut self) {
        let mut stems: Vec<PathBuf> = self.images.iter().map(|image| image.with_extension("")).collect();
        stems.sort();
        let alone =
            self.texts.iter().filter(|text| stems.binary_search(&text.with_extension("")).is_err()).count();
        if alone > 0 {
            self.others.insert(".txt without an image".into(), alone);
        }
    }

    /// Logs the entries of `root` that are left out, one line for each reason.
    pub(crate) fn report(&self, root: &Path) {
        self.hidden.report_hidden(root);
        self.loops.report(root, "links to one of their parent folders are not followed");
        self.dangling.report(root, "links are broken: mount or copy their targets");
        if let Some(skipped) = self.skipped() {
            tracing::warn!("{}: {skipped}", root.display());
        }
    }

    /// The number and kinds of skipped files in one line; `None` where there are none.
    fn skipped(&self) -> Option<String> {
        let mut kinds: Vec<(&str, usize)> =
            self.others.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let total: usize = kinds.iter().map(|(_, count)| count).sum();
        let is_unsupported =
            |kind: &&str| kind.strip_prefix('.').is_some_and(|kind| UNSUPPORTED_IMAGES.contains(&kind));
        let unsupported: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).filter(is_unsupported).collect();
        let more = kinds.len().saturating_sub(NAMED_KINDS);
        let mut named: Vec<String> =
            kinds.iter().take(NAMED_KINDS).map(|(kind, count)| format!("{count} {kind}")).collect();
        named.extend((more > 0).then(|| format!("{more} other kinds")));
        let advice = if unsupported.is_empty() {
            String::new()
        } else {
            format!("; convert {} to JPEG, PNG or WebP", unsupported.join(", "))
        };
        (total > 0).then(|| format!("skipped {total} files: {}{advice}", named.join(", ")))
    }

    /// The reason why the folder has no image: the supported extensions, and the files that it has.
    pub(crate) fn why_empty(&self) -> String {
        let read: Vec<String> = IMAGE_EXTENSIONS.iter().map(|extension| format!(".{extension}")).collect();
        let nothing = format!("the folder has no image ({}, .dcm)", read.join(", "));
        let hidden =
            (self.hidden.count > 0).then(|| format!("{} hidden entries left out", self.hidden.count));
        [Some(nothing), self.skipped(), hidden].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

fn is_image(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(is_image_extension) || has_dicom_extension(path)
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
        assert_eq!(walk.skipped(), None);
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
        let expected = "skipped 7 files: 2 .avif, 1 .json, 1 .mp4, 1 .txt without an image, \
                        1 pipes, sockets or devices, 1 without an extension; \
                        convert .avif to JPEG, PNG or WebP";
        assert_eq!(walk.skipped().unwrap(), expected);
    }
}
