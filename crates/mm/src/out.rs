//! Output files, opened before the work so that a wrong name does not cost an hour of it.

use anyhow::{Context, Result, ensure};
use mm_core::checkpoint::{partial_file, write_atomically};
use mm_image::RgbImage;
use mm_image::image::ImageFormat;
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A file that a command writes at its end, completely or not at all.
#[derive(Debug)]
pub struct OutFile {
    path: PathBuf,
    extension: String,
}

impl OutFile {
    /// Creates the folders of `path` and a temporary file beside it, which is removed where the command
    /// fails.
    ///
    /// # Errors
    /// `path` is a folder or something else that no file should replace, its extension is none of
    /// `extensions`, or the disk refuses.
    pub fn open(path: &Path, extensions: &[&str]) -> Result<Self> {
        let shown = path.display();
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
        ensure!(!path.is_dir(), "cannot write {shown}: it is a folder; name a file in it");
        let is_known = extensions.contains(&extension.as_str());
        ensure!(
            is_known,
            "cannot write {shown}: the extension says the format; name a file in {}",
            listed(extensions)
        );
        // A link stays: the file that it points to is replaced.
        let path = if path.is_symlink() {
            fs::canonicalize(path).with_context(|| format!("cannot write {shown}, a link"))?
        } else {
            path.to_owned()
        };
        ensure!(path.is_file() || !path.exists(), "cannot write {shown}: it is a device, not a file");
        let made =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(partial_file(&path)));
        made.with_context(|| format!("cannot write {shown}"))?;
        Ok(Self { path, extension })
    }

    /// The file. [`write_atomically`] writes to it through the temporary file that is open already.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its extension in lower case.
    pub fn extension(&self) -> &str {
        &self.extension
    }

    /// Writes the file.
    pub fn write(&self, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
        let io = |source| mm_core::Error::io("write", &self.path, source);
        Ok(write_atomically(&self.path, |partial| write(partial).map_err(io))?)
    }

    /// Writes `picture` in `format`.
    pub fn write_image(&self, picture: &RgbImage, format: ImageFormat) -> Result<()> {
        self.write(|to| picture.save_with_format(to, format).map_err(std::io::Error::other))
    }

    /// Writes rows, a JSON object a line.
    pub fn write_json_lines<T: Serialize>(&self, rows: &[T]) -> Result<()> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(b'\n');
        }
        self.write(|to| fs::write(to, lines))
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(partial_file(&self.path)); // renamed already, if the file was written
    }
}

/// Checks that files can be created in `folder`, which need not exist yet.
pub fn try_folder(folder: &Path) -> Result<()> {
    let shown = folder.display();
    ensure!(folder.is_dir() || !folder.exists(), "cannot write to {shown}: it is a file; name a folder");
    let tried = if folder.exists() {
        let file = folder.join(".tried.partial");
        File::create(&file).and_then(|_| fs::remove_file(&file))
    } else {
        fs::create_dir_all(folder).and_then(|()| fs::remove_dir(folder))
    };
    tried.with_context(|| format!("cannot write to {shown}"))
}

/// ".png, .jpg or .webp".
fn listed(extensions: &[&str]) -> String {
    let names: Vec<String> = extensions.iter().map(|extension| format!(".{extension}")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        format!("{:#}", OutFile::open(path, &["png", "jpg", "webp"]).unwrap_err())
    }

    fn names(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_cannot_be_written_is_reported_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("a.png")).unwrap();
        fs::write(path("file"), "").unwrap();
        assert!(refusal(&path("a.png")).contains("it is a folder"));
        assert!(refusal(&path("a.pdf")).contains("name a file in .png, .jpg or .webp"));
        assert!(refusal(&path("png")).contains("name a file in"));
        assert!(refusal(&path("file/a.png")).contains("File exists"));
        std::os::unix::fs::symlink(path("none.png"), path("link.png")).unwrap();
        assert!(refusal(&path("link.png")).contains("a link: No such file"));
        std::os::unix::fs::symlink("/dev/null", path("null.png")).unwrap();
        assert!(refusal(&path("null.png")).contains("it is a device"));
        assert!(format!("{:#}", try_folder(&path("file")).unwrap_err()).contains("it is a file"));
        assert!(try_folder(&path("file/in")).is_err());
        assert_eq!(names(folder.path()), ["a.png", "file", "link.png", "null.png"]);
    }

    #[test]
    fn folders_are_made_and_an_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/A.PNG");
        let out = OutFile::open(&path, &["png"]).unwrap();
        assert_eq!(out.extension(), "png");
        out.write(|to| fs::write(to, "first")).unwrap();
        drop(OutFile::open(&path, &["png"]).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        let out = OutFile::open(&path, &["png"]).unwrap();
        let failed = out.write(|to| fs::write(to, "half").and(Err(std::io::Error::other("no room"))));
        assert!(failed.unwrap_err().to_string().contains("no room"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        drop(out);
        assert_eq!(names(path.parent().unwrap()), ["A.PNG"]);
        std::os::unix::fs::symlink(&path, folder.path().join("link.png")).unwrap();
        let out = OutFile::open(&folder.path().join("link.png"), &["png"]).unwrap();
        out.write(|to| fs::write(to, "second")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        try_folder(&folder.path().join("other/one")).unwrap();
        try_folder(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["link.png", "new", "other"]);
    }
}
