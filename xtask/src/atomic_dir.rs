//! Folders that appear complete or not at all, and locks on making them.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// An exclusive lock on making a folder, held until it is dropped.
pub struct Lock {
    /// Whether another process held the lock first: the folder may exist by now.
    pub waited: bool,
    _file: File,
}

impl Lock {
    /// Takes the lock of `target`, a file beside it, and waits while another process holds it.
    pub fn take(target: &Path) -> Result<Self> {
        let path = target.with_added_extension("lock");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let waited = file.try_lock().is_err();
        if waited {
            eprintln!("waiting for another process that is making {}", target.display());
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Self { waited, _file: file })
    }
}

/// Renames the finished folder `partial` to `target`. An old `target` is removed last.
pub fn replace(target: &Path, partial: &Path) -> Result<()> {
    let old = target.with_added_extension("old");
    remove(&old)?;
    if target.exists() {
        fs::rename(target, &old).with_context(|| format!("cannot move {} away", target.display()))?;
    }
    fs::rename(partial, target).with_context(|| format!("cannot make {}", target.display()))?;
    remove(&old)
}

/// Removes a file or folder, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let done =
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
            .with_context(|| format!("cannot remove {}: remove it by hand and run again", path.display())),
        _ => Ok(()),
    }
}

/// Fails where the disk of the existing `folder` has less than `needed` MB free for `what`.
pub fn require_space(folder: &Path, what: &str, needed: u64) -> Result<()> {
    // Without df the check is skipped, and pip reports a full disk.
    let Ok(output) = Command::new("df").arg("-Pk").arg(folder).output() else { return Ok(()) };
    match free_megabytes(&String::from_utf8_lossy(&output.stdout)) {
        Some(free) if free < needed => bail!(
            "{} has {free} MB free and {what} needs {needed} MB while it is unpacked: \
             free some space and run again",
            folder.display()
        ),
        _ => Ok(()),
    }
}

fn free_megabytes(df: &str) -> Option<u64> {
    let available: u64 = df.lines().last()?.split_whitespace().nth(3)?.parse().ok()?;
    Some(available / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_read_from_df() {
        let df =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100000 40000 51200 44% /\n";
        assert_eq!(free_megabytes(df), Some(50));
        assert_eq!(free_megabytes(""), None);
    }
}
