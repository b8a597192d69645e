//! The folder of a run.

use crate::{Error, Result, Resume, RunConfig};
use mm_core::checkpoint::write_atomically;
use mm_dist::ProcessGroup;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run's folder, and the checkpoint it starts from.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// `out/name`.
    pub path: PathBuf,
    /// `checkpoints/step-N` to resume from.
    pub checkpoint: Option<PathBuf>,
    /// Rank 0's lock, which ends with its process.
    _lock: Option<Arc<File>>,
}

impl RunFolder {
    /// Creates the folder of a new run, or finds the checkpoint of one to resume, and writes `resolved`, the
    /// resolved configuration, to `config.toml`. Rank 0 does so, and all ranks take the checkpoint that it
    /// found.
    ///
    /// # Errors
    /// As [`Resume::checkpoint`]; another run uses the folder; a file cannot be written; the processes do
    /// not share the folder, or one of them fails.
    pub fn open(config: &RunConfig, resume: &Resume, resolved: &str, group: &ProcessGroup) -> Result<Self> {
        let mut found = Vec::new();
        let own = if group.is_main() { Some(Self::open_on_main(config, resume, resolved)?) } else { None };
        if let Some(checkpoint) = own.as_ref().and_then(|run| run.checkpoint.as_ref()) {
            // `latest` may point elsewhere by the time that another process looks.
            let real =
                checkpoint.canonicalize().map_err(|source| mm_core::Error::io("read", checkpoint, source))?;
            found = real.into_os_string().into_encoded_bytes();
        }
        let found = group.broadcast_bytes(&found)?;
        let checkpoint = (!found.is_empty()).then(|| PathBuf::from(OsString::from_vec(found)));
        match &checkpoint {
            Some(path) if !path.join("state.json").is_file() => {
                Err(Error::NotShared { rank: group.rank(), path: path.clone() })
            }
            _ => Ok(Self { path: config.folder(), checkpoint, _lock: own.and_then(|run| run._lock) }),
        }
    }

    fn open_on_main(config: &RunConfig, resume: &Resume, resolved: &str) -> Result<Self> {
        let path = config.folder();
        let checkpoint = resume.checkpoint(&path)?;
        let checkpoints = path.join("checkpoints");
        std::fs::create_dir_all(&checkpoints)
            .map_err(|source| mm_core::Error::io("create", &checkpoints, source))?;
        let lock = lock(&path)?;
        let run = Self { path, checkpoint, _lock: Some(lock) };
        run.write_config(resolved)?;
        Ok(run)
    }

    fn write_config(&self, resolved: &str) -> Result<()> {
        let file = self.path.join("config.toml");
        match std::fs::read_to_string(&file) {
            Ok(before) if before == resolved => return Ok(()),
            Ok(before) => {
                let changed = changed_keys(&before, resolved);
                if !changed.is_empty() {
                    let changed = changed.join(", ");
                    tracing::warn!(
                        "the run resumes with another configuration than it started with: {changed}"
                    );
                }
            }
            Err(_) => {}
        }
        let write = |partial: &Path| {
            std::fs::write(partial, resolved).map_err(|source| mm_core::Error::io("write", &file, source))
        };
        Ok(write_atomically(&file, write)?)
    }
}

/// Locks the run's folder against a second start, which `--resume latest` would allow.
fn lock(folder: &Path) -> Result<Arc<File>> {
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(|source| mm_core::Error::io("create", &path, source))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::RunBusy(folder.to_owned())),
        Err(TryLockError::Error(error)) => {
            tracing::warn!("{}: {error}: do not start the run twice at once", path.display());
        }
        Ok(()) => {}
    }
    Ok(Arc::new(file))
}

/// The keys whose values differ between two configurations, as `table.key`.
pub fn changed_keys(before: &str, after: &str) -> Vec<String> {
    fn walk(prefix: &str, table: &toml::Table, into: &mut std::collections::BTreeMap<String, String>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => walk(&key, inner, into),
                value => {
                    into.insert(key, value.to_string());
                }
            }
        }
    }
    let flat = |text: &str| {
        let mut keys = std::collections::BTreeMap::new();
        walk("", &text.parse().unwrap_or_default(), &mut keys);
        keys
    };
    let (before, after) = (flat(before), flat(after));
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    all.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(out: &Path) -> RunConfig {
        RunConfig {
            task: "t".into(),
            name: "a".into(),
            seed: 0,
            out: out.to_owned(),
            device: Default::default(),
            timeout_seconds: 60.0,
        }
    }

    #[test]
    fn a_run_never_takes_the_folder_of_another() {
        let folder = tempfile::tempdir().unwrap();
        RunFolder::open(&config(folder.path()), &Resume::No, "x = 1\n", &ProcessGroup::alone()).unwrap();
        let again = RunFolder::open(&config(folder.path()), &Resume::No, "x = 1\n", &ProcessGroup::alone());
        assert!(matches!(again, Err(Error::RunExists(_))));
    }

    #[test]
    fn one_command_starts_a_run_and_starts_it_again_but_never_twice_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            || RunFolder::open(&config(folder.path()), &Resume::Latest, "x = 1\n", &ProcessGroup::alone());
        let first = open().unwrap();
        assert_eq!(first.checkpoint, None);
        assert!(matches!(open(), Err(Error::RunBusy(_))));
        drop(first);
        assert_eq!(open().unwrap().checkpoint, None);
    }

    #[test]
    fn changed_keys_are_named_by_their_path() {
        assert_eq!(changed_keys("[t]\na = 1\nb = 2\n", "[t]\na = 1\nb = 3\nc = 1\n"), ["t.b", "t.c"]);
    }
}
