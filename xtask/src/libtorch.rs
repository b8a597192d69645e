//! Finds the libtorch that the workspace builds on and checks its version.
//!
//! The order is torch-sys's own: a Python's torch (`LIBTORCH_USE_PYTORCH`), a folder (`LIBTORCH`), else
//! `.libtorch/torch`, which `cargo xtask setup` makes and `.cargo/config.toml` names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

/// The version that tch and torch-sys are made for; the three change together.
pub const VERSION: &str = "2.13.0";

/// A usable libtorch.
#[derive(Debug, PartialEq)]
pub struct Libtorch {
    /// The folder that holds `lib` and `include`.
    pub folder: PathBuf,
    /// True for the one in `.libtorch`, false for one that the user supplies.
    pub ours: bool,
}

impl Libtorch {
    /// The folder of the shared libraries.
    pub fn lib(&self) -> PathBuf {
        self.folder.join("lib")
    }

    /// Whether it computes on NVIDIA GPUs.
    pub fn has_cuda(&self) -> bool {
        self.lib().join("libtorch_cuda.so").exists()
    }
}

/// The environment variables that select another libtorch.
#[derive(Default)]
pub struct Choice {
    libtorch: Option<OsString>,
    use_pytorch: bool,
    any_version: bool,
    python: OsString,
}

impl Choice {
    /// Reads the environment.
    pub fn from_env() -> Self {
        let is_set = |name| env::var_os(name).is_some();
        Self {
            libtorch: env::var_os("LIBTORCH"),
            use_pytorch: is_set("LIBTORCH_USE_PYTORCH"),
            any_version: is_set("LIBTORCH_BYPASS_VERSION_CHECK"),
            python: if is_set("VIRTUAL_ENV") { "python".into() } else { "python3".into() },
        }
    }
}

/// The libtorch that a build would use, or `None` where it is not installed yet. `own` is
/// `.libtorch/torch`.
///
/// # Errors
/// The user selects one that is incomplete or of another version.
pub fn locate(own: &Path, choice: &Choice) -> Result<Option<Libtorch>> {
    if choice.use_pytorch {
        return from_python(choice).map(Some);
    }
    match &choice.libtorch {
        // Under `cargo xtask` LIBTORCH is always set: .cargo/config.toml sets it to `own`.
        Some(given) if Path::new(given) != own => from_folder(Path::new(given), choice).map(Some),
        _ => Ok(is_complete(own).then(|| Libtorch { folder: own.to_owned(), ours: true })),
    }
}

/// True for a folder with the libraries and headers of the right version.
pub fn is_complete(folder: &Path) -> bool {
    let parts = ["lib/libtorch_cpu.so", "lib/libc10.so", "include"];
    parts.iter().all(|part| folder.join(part).exists()) && version_of(folder).as_deref() == Some(VERSION)
}

fn from_folder(folder: &Path, choice: &Choice) -> Result<Libtorch> {
    let shown = folder.display();
    let remedy = format!("point it at a libtorch {VERSION}, or unset it and run `cargo xtask setup`");
    if !folder.join("lib/libtorch_cpu.so").exists() {
        bail!("LIBTORCH is {shown:?}, which has no lib/libtorch_cpu.so: {remedy}");
    }
    match version_of(folder) {
        Some(version) if version != VERSION && !choice.any_version => {
            bail!("LIBTORCH is {shown:?}, a libtorch {version}, but mm needs {VERSION}: {remedy}")
        }
        _ => Ok(Libtorch { folder: folder.to_path_buf(), ours: false }),
    }
}

fn from_python(choice: &Choice) -> Result<Libtorch> {
    let python = choice.python.display();
    let remedy = format!("install torch=={VERSION} there, or unset it and run `cargo xtask setup`");
    let script = "import os, torch; print(torch.__version__); print(os.path.dirname(torch.__file__))";
    let output = Command::new(&choice.python).args(["-c", script]).output();
    let answer = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => bail!("LIBTORCH_USE_PYTORCH is set, but {python} cannot import torch: {remedy}"),
    };
    let mut lines = answer.lines();
    let (version, folder) = (plain(lines.next().unwrap_or_default()), lines.next().unwrap_or_default());
    if version != VERSION && !choice.any_version {
        bail!(
            "LIBTORCH_USE_PYTORCH is set, but {python} has torch {version} and mm needs {VERSION}: {remedy}"
        );
    }
    Ok(Libtorch { folder: folder.into(), ours: false })
}

/// The version of a libtorch folder: from `build-version` of a plain libtorch, or `version.py` of a wheel.
fn version_of(folder: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(folder.join("build-version")) {
        return Some(plain(&text));
    }
    let text = fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(plain(line.trim_matches(['\'', '"'])))
}

/// `2.13.0` of `2.13.0+cu130`.
fn plain(version: &str) -> String {
    version.trim().split('+').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(version_file: &str, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("lib")).unwrap();
        fs::create_dir_all(folder.path().join("include")).unwrap();
        fs::write(folder.path().join("lib/libtorch_cpu.so"), "").unwrap();
        fs::write(folder.path().join("lib/libc10.so"), "").unwrap();
        fs::write(folder.path().join(version_file), text).unwrap();
        folder
    }

    #[test]
    fn a_wheel_and_a_plain_libtorch_are_both_recognised() {
        let wheel = folder_with("version.py", "from typing import Optional\n__version__ = '2.13.0+cu130'\n");
        let plain = folder_with("build-version", "2.13.0+cpu\n");
        assert!(is_complete(wheel.path()) && is_complete(plain.path()));
    }

    #[test]
    fn a_folder_without_its_libraries_is_not_complete() {
        let folder = folder_with("build-version", VERSION);
        fs::remove_file(folder.path().join("lib/libtorch_cpu.so")).unwrap();
        assert!(!is_complete(folder.path()));
    }

    #[test]
    fn another_version_is_refused_unless_the_check_is_bypassed() {
        let old = folder_with("build-version", "2.7.1");
        let mut choice = Choice::default();
        let error = from_folder(old.path(), &choice).unwrap_err().to_string();
        assert!(error.contains("2.7.1") && error.contains(VERSION) && !error.contains('\n'), "{error}");
        choice.any_version = true;
        assert!(from_folder(old.path(), &choice).is_ok());
    }
}
