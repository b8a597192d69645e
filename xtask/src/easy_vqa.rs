//! easy-VQA, a set of questions about simple shapes, from the wheel that ships it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::pip::Pip;
use crate::wheel::{Installed, Wheel, sha256};

const WHEEL: Wheel = Wheel {
    package: "easy-vqa",
    version: "1.0",
    file: "easy_vqa-1.0-py3-none-any.whl",
    sha256: "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    again: "cargo xtask data easy-vqa",
    space: 60,
};

/// The folder of the wheel with the splits.
const DATA: &str = "easy_vqa/data";

/// The licence in the wheel.
const LICENSE: &str = "easy_vqa-1.0.dist-info/LICENSE";

/// A split of the set.
struct Split {
    name: &'static str,
    /// The number of images.
    images: usize,
    /// The digest of `questions.json`.
    questions: &'static str,
}

const SPLITS: [Split; 2] = [
    Split {
        name: "train",
        images: 4000,
        questions: "bb67697636aed0e65631d4266824aebeae5c833b0f37ed781e20752e85617ec5",
    },
    Split {
        name: "test",
        images: 1000,
        questions: "0d4630a51bafec65343e2f6af9cdd20cf8eae214344ef57636202eec409553f7",
    },
];

const README: &str = "\
# easy-VQA

Made by `cargo xtask data easy-vqa` from the wheel easy-vqa 1.0 of PyPI, verified by SHA-256. Not to be
committed.

| file | holds |
|---|---|
| `train` | 4,000 images of 64 x 64 pixels and 38,575 questions, 28,407 of them yes/no |
| `test` | 1,000 images and 9,673 questions, 7,136 of them yes/no |
| `answers.txt` | the 13 answers |

`questions.json` is a list of `[question, answer, image id]`; the image is `images/ID.png`. By Victor Zhou
(2019), MIT licence (`LICENSE`). Each of the 107 distinct questions of the test set occurs in the training
set too, so report the accuracy of a model that sees no image beside every number.
";

/// Makes `target` the folder of easy-VQA, unless it is that already.
///
/// # Errors
/// `target` holds something else, pip or disk space is missing, or the download fails or differs from the
/// pinned one.
pub fn install(target: &Path, python: &Path) -> Result<Installed> {
    WHEEL.install(target, python, is_in, take)
}

/// Whether both splits are in `target`; false where there is no such folder.
fn is_in(target: &Path) -> Result<bool> {
    if !target.exists() {
        return Ok(false);
    }
    for split in &SPLITS {
        let questions = target.join(split.name).join("questions.json");
        let same = questions.exists() && sha256(&questions)? == split.questions;
        if !same || count_images(target, split) != split.images {
            bail!(
                "{} exists and its {} is not that of {} {}: remove it, or name another folder with --out",
                target.display(),
                split.name,
                WHEEL.package,
                WHEEL.version
            );
        }
    }
    Ok(true)
}

/// The number of PNG files of a split; 0 where its folder cannot be read.
fn count_images(folder: &Path, split: &Split) -> usize {
    let files = fs::read_dir(folder.join(split.name).join("images")).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "png")).count()
}

/// Takes the splits out of the unpacked wheel into a folder beside it.
fn take(_: &Pip, unpacked: &Path) -> Result<PathBuf> {
    let folder = unpacked.with_file_name("easy-vqa");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = [
        (format!("{DATA}/train"), "train"),
        (format!("{DATA}/test"), "test"),
        (format!("{DATA}/answers.txt"), "answers.txt"),
        (LICENSE.to_owned(), "LICENSE"),
    ];
    for (path, name) in files {
        fs::rename(unpacked.join(&path), folder.join(name))
            .with_context(|| format!("{} {} has no {path}", WHEEL.package, WHEEL.version))?;
    }
    for split in &SPLITS {
        let name = format!("{}/questions.json", split.name);
        WHEEL.check(&folder.join(&name), &name, split.questions)?;
    }
    fs::write(folder.join("README.md"), README)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_files_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("train")).unwrap();
        fs::write(folder.path().join("train/questions.json"), "[]").unwrap();
        let error = install(folder.path(), Path::new("python3")).unwrap_err().to_string();
        assert!(error.contains("its train is not that of easy-vqa 1.0"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("train/questions.json")).unwrap(), "[]");
        assert!(!is_in(&folder.path().join("none")).unwrap());
    }

    #[test]
    fn images_are_counted_by_their_extension() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("train/images")).unwrap();
        for name in ["0.png", "1.png", ".DS_Store", "2.txt"] {
            fs::write(folder.path().join("train/images").join(name), "").unwrap();
        }
        assert_eq!(SPLITS.each_ref().map(|split| count_images(folder.path(), split)), [2, 0]);
    }
}
