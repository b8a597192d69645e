//! The checkpoint that a run starts from.

use crate::checkpoint::{self, step_of, steps};
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The checkpoint that a run starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// From step 0, in a folder that does not exist yet.
    No,
    /// From the run's latest checkpoint, or from step 0 where it has none yet: one command for the first
    /// start and every restart.
    Latest,
    /// As [`Resume::Latest`], but where the latest checkpoint is damaged or missing, from the last complete
    /// one before it.
    LastGood,
    /// From this checkpoint's folder.
    Path(PathBuf),
}

impl Resume {
    /// The checkpoint that the run in `folder` starts from, checked by its headers and the sizes of its
    /// files; none: step 0.
    ///
    /// # Errors
    /// A new run's folder exists; the checkpoint is damaged or missing (the error names the complete one
    /// before it); the run has ended and has no checkpoint any more.
    pub fn checkpoint(&self, folder: &Path) -> Result<Option<PathBuf>> {
        let checkpoints = folder.join("checkpoints");
        let wanted = match self {
            Self::No if folder.exists() => return Err(Error::RunExists(folder.to_owned())),
            Self::No => return Ok(None),
            Self::Path(path) => path.clone(),
            Self::Latest | Self::LastGood => match latest(&checkpoints) {
                Some(latest) => latest,
                None if folder.join("model").exists() => {
                    return Err(Error::NothingToResume(folder.to_owned()));
                }
                None => return Ok(None),
            },
        };
        let Err(problem) = checkpoint::check(&wanted) else { return Ok(Some(wanted)) };
        let good = last_good(wanted.parent().unwrap_or(&checkpoints), &wanted);
        match (self, good) {
            (Self::LastGood, Some(good)) => {
                tracing::warn!(
                    "checkpoint {}: {problem}; the run continues from {}",
                    wanted.display(),
                    good.display()
                );
                Ok(Some(good))
            }
            (_, good) => {
                let hint = match (self, good) {
                    (_, None) => "no other is complete: choose another run.name to start again".to_owned(),
                    (Self::Path(_), Some(good)) => {
                        format!("{0} is complete: --resume {0} continues from it", good.display())
                    }
                    (_, Some(good)) => {
                        format!("{} is complete: --resume last-good continues from it", good.display())
                    }
                };
                Err(Error::BrokenCheckpoint { path: wanted, problem, hint })
            }
        }
    }
}

/// The checkpoint that `latest` points to, whether or not it is there; without that link, as where a run was
/// killed before it made its first, the newest.
fn latest(checkpoints: &Path) -> Option<PathBuf> {
    let link = checkpoints.join("latest");
    match fs::read_link(&link) {
        Ok(target) => Some(checkpoints.join(target)),
        Err(_) if link.exists() => Some(link), // a folder, where a copy of the run followed the link
        Err(_) => steps(checkpoints).pop().map(|(_, path)| path),
    }
}

/// The newest complete checkpoint other than the one at `broken`, and not of a later step.
fn last_good(checkpoints: &Path, broken: &Path) -> Option<PathBuf> {
    let limit = step_of(broken).unwrap_or(u64::MAX);
    let before = steps(checkpoints).into_iter().rev().filter(|(step, path)| *step <= limit && path != broken);
    before.map(|(_, path)| path).find(|path| checkpoint::check(path).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A run's folder with complete checkpoints of these steps, the last of them the latest.
    fn run_with(steps: &[u64]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for step in steps {
            checkpoint::tests::write_small(&folder.path().join(format!("checkpoints/step-{step}")), *step);
        }
        if let Some(last) = steps.last() {
            symlink(format!("step-{last}"), folder.path().join("checkpoints/latest")).unwrap();
        }
        folder
    }

    fn found(resume: &Resume, folder: &tempfile::TempDir) -> Option<String> {
        let checkpoint = resume.checkpoint(folder.path()).unwrap()?;
        Some(checkpoint.file_name().unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_run_without_a_checkpoint_starts_at_step_0() {
        let folder = run_with(&[]);
        let missing = folder.path().join("none");
        for resume in [Resume::Latest, Resume::LastGood] {
            assert_eq!(found(&resume, &folder), None);
            assert_eq!(resume.checkpoint(&missing).unwrap(), None);
        }
        fs::create_dir_all(folder.path().join("checkpoints/.step-10.partial")).unwrap();
        assert_eq!(found(&Resume::Latest, &folder), None, "a partial checkpoint does not count");
        assert!(matches!(Resume::No.checkpoint(folder.path()), Err(Error::RunExists(_))));
        assert_eq!(Resume::No.checkpoint(&missing).unwrap(), None);
    }

    #[test]
    fn a_finished_model_is_never_trained_over() {
        let folder = run_with(&[]);
        fs::create_dir(folder.path().join("model")).unwrap();
        assert!(matches!(Resume::Latest.checkpoint(folder.path()), Err(Error::NothingToResume(_))));
    }

    #[test]
    fn a_run_that_was_killed_before_its_first_link_goes_on_from_the_newest() {
        let folder = run_with(&[5, 10]);
        assert_eq!(found(&Resume::Latest, &folder), Some("step-10".into()));
        fs::remove_file(folder.path().join("checkpoints/latest")).unwrap();
        assert_eq!(found(&Resume::Latest, &folder), Some("step-10".into()));
    }

    #[test]
    fn a_copy_of_a_run_whose_link_became_a_folder_is_resumed() {
        let folder = run_with(&[5, 10]);
        let latest = folder.path().join("checkpoints/latest");
        fs::remove_file(&latest).unwrap();
        checkpoint::tests::write_small(&latest, 10);
        assert_eq!(found(&Resume::Latest, &folder), Some("latest".into()));
        fs::remove_file(latest.join("state.json")).unwrap();
        assert_eq!(found(&Resume::LastGood, &folder), Some("step-10".into()));
    }

    /// What a breakage does to a checkpoint's folder, and what is said of it.
    type Breakage = (fn(&Path), &'static str);

    const BREAKAGES: [Breakage; 7] = [
        (|step| fs::remove_dir_all(step).unwrap(), "is missing"),
        (|step| fs::remove_file(step.join("state.json")).unwrap(), "state.json"),
        (|step| fs::write(step.join("state.json"), "{\"step\": 1").unwrap(), "state.json"),
        (|step| truncate(&step.join("model.safetensors")), "model.safetensors"),
        (|step| truncate(&step.join("optimizer.safetensors")), "optimizer.safetensors"),
        (|step| fs::write(step.join("optimizer.safetensors"), [255; 64]).unwrap(), "optimizer.safetensors"),
        (|step| fs::remove_file(step.join("ema.safetensors")).unwrap(), "ema.safetensors"),
    ];

    fn truncate(file: &Path) {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() - 4]).unwrap();
    }

    #[test]
    fn a_damaged_checkpoint_is_reported_with_the_complete_one_before_it_which_last_good_takes() {
        for (breakage, expected) in BREAKAGES {
            let folder = run_with(&[5, 10, 15, 20]);
            let step = |step: u64| folder.path().join(format!("checkpoints/step-{step}"));
            breakage(&step(20));
            let message = Resume::Latest.checkpoint(folder.path()).unwrap_err().to_string();
            assert!(message.contains("step-20") && message.contains(expected), "{message}");
            assert!(
                message.contains("step-15 is complete: --resume last-good continues from it"),
                "{message}"
            );
            assert_eq!(found(&Resume::LastGood, &folder), Some("step-15".into()));
            let message = Resume::Path(step(20)).checkpoint(folder.path()).unwrap_err().to_string();
            assert!(message.contains(&format!("--resume {} continues", step(15).display())), "{message}");

            truncate(&step(15).join("model.safetensors"));
            assert_eq!(found(&Resume::LastGood, &folder), Some("step-10".into()));
            assert_eq!(found(&Resume::Path(step(5)), &folder), Some("step-5".into()));
            for step_number in [5, 10] {
                truncate(&step(step_number).join("model.safetensors"));
            }
            let message = Resume::LastGood.checkpoint(folder.path()).unwrap_err().to_string();
            assert!(message.contains("no other is complete: choose another run.name"), "{message}");
        }
    }

    #[test]
    fn a_checkpoint_after_the_latest_is_of_another_past_and_is_not_taken() {
        let folder = run_with(&[5, 30, 10]);
        fs::remove_file(folder.path().join("checkpoints/step-10/state.json")).unwrap();
        assert_eq!(found(&Resume::LastGood, &folder), Some("step-5".into()));
    }
}
