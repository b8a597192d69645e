//! The pages of a PDF as images, drawn by pdftoppm.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program, and the package that has it.
const PROGRAM: &str = "pdftoppm";
const PACKAGE: &str = "poppler-utils";

/// The drawn pages of a PDF, in a folder that is removed with this value.
#[derive(Debug)]
pub struct DrawnPages {
    folder: Folder,
    files: Vec<PathBuf>,
}

impl DrawnPages {
    /// Draws the pages of `pdf` at `dpi` dots an inch.
    ///
    /// # Errors
    /// pdftoppm is not installed, or refuses the file; the file is missing or has no page.
    pub fn of(pdf: &Path, dpi: u32) -> Result<Self> {
        let shown = pdf.display();
        // Its own message would not say which file is missing.
        ensure!(pdf.is_file(), "cannot read {shown}: there is no such file");
        let folder = Folder::new().context("cannot make a folder for the pages of a PDF")?;
        let drawn = Command::new(PROGRAM)
            .args(["-q", "-png", "-r", &dpi.to_string()])
            .arg(fs::canonicalize(pdf).with_context(|| format!("cannot read {shown}"))?)
            .arg(folder.0.join("page"))
            .stdin(Stdio::null())
            .output();
        let output = match drawn {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "cannot read {shown}: pages of a PDF are drawn by {PROGRAM}, which is not installed: install \
                 it (Debian and Ubuntu: {PACKAGE}), or give images of the pages"
            ),
            drawn => drawn.with_context(|| format!("cannot run {PROGRAM}"))?,
        };
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder.0)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        // Numbers are padded with zeros to one length.
        files.sort();
        if !output.status.success() || files.is_empty() {
            let message = String::from_utf8_lossy(&output.stderr);
            let reason = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("it has no page");
            bail!("cannot read {shown}: {PROGRAM}: {}", reason.trim());
        }
        Ok(Self { folder, files })
    }

    /// The images of the pages, in order.
    pub fn files(&self) -> &[PathBuf] {
        debug_assert!(self.folder.0.exists());
        &self.files
    }
}

/// Whether `path` is named as a PDF.
pub fn is_pdf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pdf")) && !path.is_dir()
}

/// A folder for this process alone, removed with this value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let process = std::process::id();
        for number in 0u32.. {
            let path = std::env::temp_dir().join(format!("mm-read-{process}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created.map(|()| Self(path)),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the system clears its folder in any case
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_until_it_is_dropped() {
        let (one, other) = (Folder::new().unwrap(), Folder::new().unwrap());
        let path = one.0.clone();
        assert!(path.is_dir() && other.0 != path);
        drop(one);
        assert!(!path.exists() && other.0.is_dir());
    }

    #[test]
    fn a_pdf_is_known_by_its_name() {
        assert!(is_pdf(Path::new("a.pdf")) && is_pdf(Path::new("b/A.PDF")));
        assert!(!is_pdf(Path::new("pdf")) && !is_pdf(Path::new("a.pdf.png")));
    }
}
