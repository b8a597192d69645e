//! Where images go.

use crate::one_line;
use crate::out::{OutFile, try_folder};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const EXTENSION: &str = "png";

/// The files of a command's images, and those that are saved.
pub struct ImageFiles {
    /// The folder, and the name before the number where there is one.
    folder: PathBuf,
    stem: Option<String>,
    count: usize,
    retry: Option<PathBuf>,
    saved: Vec<PathBuf>,
}

impl ImageFiles {
    /// The files of `count` images in `out`: a file in .png, or a folder. Tries whether they can be written.
    ///
    /// # Errors
    /// `out` is of another extension, or neither it nor `retry` can be written.
    pub fn open(out: &Path, count: usize, retry: Option<&Path>) -> Result<Self> {
        let is_folder = out.is_dir() || out.extension().is_none();
        let (folder, stem) = match is_folder {
            true => (out.to_owned(), None),
            false => {
                let stem = out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                (out.parent().map(Path::to_owned).unwrap_or_default(), Some(stem))
            }
        };
        let has_extension =
            is_folder || out.extension().is_some_and(|found| found.eq_ignore_ascii_case(EXTENSION));
        if !has_extension {
            bail!(
                "cannot write {}: images are written with their settings: name a file in .png",
                out.display()
            );
        }
        let retry = retry.map(Path::to_owned);
        let files = Self { folder, stem, count, retry, saved: Vec::new() };
        let tried = match is_folder {
            true => try_folder(out),
            false => OutFile::open(&files.image(0), &[EXTENSION]).map(drop),
        };
        match (tried, &files.retry) {
            (tried, Some(retry)) => {
                try_folder(retry).context("--retry-dir")?;
                if let Err(error) = tried {
                    tracing::warn!("{}: images go to {}", one_line(&error), retry.display());
                }
            }
            (tried, None) => tried?,
        }
        Ok(files)
    }

    /// The file of the image `index`.
    pub fn image(&self, index: usize) -> PathBuf {
        match &self.stem {
            Some(stem) if self.count == 1 => self.folder.join(format!("{stem}.{EXTENSION}")),
            _ => self.named(&format!("{index:04}"), "-"),
        }
    }

    /// The file of the contact sheet.
    pub fn sheet(&self) -> PathBuf {
        self.named("sheet", "-")
    }

    /// The file of the preview.
    pub fn preview(&self) -> PathBuf {
        self.named("preview", ".")
    }

    fn named(&self, name: &str, separator: &str) -> PathBuf {
        let before = self.stem.as_ref().map(|stem| format!("{stem}{separator}")).unwrap_or_default();
        self.folder.join(format!("{before}{name}.{EXTENSION}"))
    }

    /// Writes `bytes` to `file`, completely or not at all, or to the folder for a retry; gives the file that
    /// was written.
    pub fn save(&mut self, file: &Path, bytes: &[u8]) -> Result<PathBuf> {
        let written = write(file, bytes).map(|()| file.to_owned());
        let written = match (written, &self.retry) {
            (Err(error), Some(retry)) => {
                let other = retry.join(file.file_name().unwrap_or_default());
                tracing::warn!("{}: the image goes to {}", one_line(&error), other.display());
                write(&other, bytes).map(|()| other)
            }
            (Err(error), None) => {
                bail!("{}; --retry-dir takes images whose own place cannot be written", one_line(&error))
            }
            (written, _) => written,
        }?;
        self.saved.push(written.clone());
        Ok(written)
    }

    /// "3 images are saved, F-0000.png to F-0002.png".
    pub fn saved(&self) -> String {
        match &self.saved[..] {
            [] => "no image is saved".to_owned(),
            [one] => format!("1 image is saved, {}", one.display()),
            [first, .., last] => {
                format!("{} images are saved, {} to {}", self.saved.len(), first.display(), last.display())
            }
        }
    }
}

/// Writes `bytes` to `file` under a temporary name that is synced and renamed.
pub fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    OutFile::open(file, &[EXTENSION])?.write(|to| std::fs::write(to, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_has_the_name_and_several_have_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let one = ImageFiles::open(&path("a.png"), 1, None).unwrap();
        assert_eq!((one.image(0), one.preview()), (path("a.png"), path("a.preview.png")));
        let two = ImageFiles::open(&path("a.b.PNG"), 2, None).unwrap();
        assert_eq!((two.image(1), two.sheet()), (path("a.b-0001.png"), path("a.b-sheet.png")));
        let inside = ImageFiles::open(&path("new"), 1, None).unwrap();
        assert_eq!((inside.image(0), inside.preview()), (path("new/0000.png"), path("new/preview.png")));
        let error = ImageFiles::open(&path("a.jpg"), 1, None).map(drop).unwrap_err();
        assert!(error.to_string().contains("name a file in .png"));
    }

    #[test]
    fn an_image_that_has_no_place_goes_to_the_folder_for_a_retry() {
        let folder = tempfile::tempdir().unwrap();
        let (out, retry) = (folder.path().join("a.png"), folder.path().join("retry"));
        std::fs::create_dir(folder.path().join("a-0001.png")).unwrap();
        let mut files = ImageFiles::open(&out, 3, None).unwrap();
        files.save(&files.image(0), b"0").unwrap();
        let error = format!("{:#}", files.save(&files.image(1), b"1").unwrap_err());
        assert!(error.contains("it is a folder") && error.contains("--retry-dir"), "{error}");
        assert!(files.saved().starts_with("1 image is saved"));
        let mut files = ImageFiles::open(&out, 3, Some(&retry)).unwrap();
        assert_eq!(files.save(&files.image(1), b"1").unwrap(), retry.join("a-0001.png"));
        assert_eq!(std::fs::read(retry.join("a-0001.png")).unwrap(), b"1");
    }
}
