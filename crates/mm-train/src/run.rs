use crate::{Error, Result, RunConfig};
use mm_core::checkpoint::write_atomically;
use mm_dist::Group;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where a run starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// From nothing, in a folder that does not exist yet.
    No,
    /// From the run's latest checkpoint.
    Latest,
    /// From this checkpoint's folder.
    Path(PathBuf),
}

/// A run's folder, and the checkpoint it starts from.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// `out/name`.
    pub path: PathBuf,
    /// `checkpoints/step-N` to resume from.
    pub checkpoint: Option<PathBuf>,
}

impl RunFolder {
    /// Makes the folder of a new run, or finds the checkpoint of one to resume, and writes `resolved`, the whole configuration
    /// as it will run, to `config.toml`. Of several processes rank 0 does so, and all go on from the checkpoint that it found.
    ///
    /// # Errors
    /// A new run's folder exists, a checkpoint to resume from does not, or the disk refuses; the processes do not share the folder, or one is lost.
    pub fn open(config: &RunConfig, resume: &Resume, resolved: &str, group: &Group) -> Result<Self> {
        let mut found = Vec::new();
        let own = match group.is_main() {
            true => Some(Self::open_alone(config, resume, resolved)?),
            false => None,
        };
        if let Some(checkpoint) = own.as_ref().and_then(|run| run.checkpoint.as_ref()) {
            // `latest` may point elsewhere by the time that another process looks.
            let real = checkpoint.canonicalize().map_err(|source| mm_core::Error::io("read", checkpoint, source))?;
            found = real.into_os_string().into_encoded_bytes();
        }
        let found = group.gather_bytes(&found)?.swap_remove(0);
        let checkpoint = (!found.is_empty()).then(|| PathBuf::from(OsString::from_vec(found)));
        match &checkpoint {
            Some(path) if !path.join("state.json").is_file() => {
                Err(Error::NotShared { rank: group.rank(), path: path.clone() })
            }
            _ => Ok(Self { path: config.out.join(&config.name), checkpoint }),
        }
    }

    fn open_alone(config: &RunConfig, resume: &Resume, resolved: &str) -> Result<Self> {
        let path = config.out.join(&config.name);
        let checkpoint = match resume {
            Resume::No if path.exists() => return Err(Error::RunExists(path)),
            Resume::No => None,
            Resume::Latest => Some(path.join("checkpoints/latest")),
            Resume::Path(checkpoint) => Some(checkpoint.clone()),
        };
        if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| !checkpoint.join("state.json").is_file()) {
            return Err(Error::NothingToResume(checkpoint.clone()));
        }
        let checkpoints = path.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(|source| mm_core::Error::io("create", &checkpoints, source))?;
        let run = Self { path, checkpoint };
        run.write_config(resolved)?;
        Ok(run)
    }

    fn write_config(&self, resolved: &str) -> Result<()> {
        let file = self.path.join("config.toml");
        match std::fs::read_to_string(&file) {
            Ok(before) if before == resolved => return Ok(()),
            Ok(before) => {
                let changed = changed_keys(&before, resolved).join(", ");
                tracing::warn!("the run is resumed with another configuration than it began with: {changed}");
            }
            Err(_) => {}
        }
        let write = |partial: &Path| {
            std::fs::write(partial, resolved).map_err(|source| mm_core::Error::io("write", &file, source))
        };
        Ok(write_atomically(&file, write)?)
    }
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
        RunConfig { name: "a".into(), seed: 0, out: out.to_owned(), device: Default::default(), timeout_seconds: 60.0 }
    }

    #[test]
    fn a_run_never_takes_the_folder_of_another() {
        let folder = tempfile::tempdir().unwrap();
        RunFolder::open(&config(folder.path()), &Resume::No, "x = 1\n", &Group::alone()).unwrap();
        let again = RunFolder::open(&config(folder.path()), &Resume::No, "x = 1\n", &Group::alone());
        assert!(matches!(again, Err(Error::RunExists(_))));
    }

    #[test]
    fn there_must_be_a_checkpoint_to_resume_from() {
        let folder = tempfile::tempdir().unwrap();
        let resumed = RunFolder::open(&config(folder.path()), &Resume::Latest, "", &Group::alone());
        assert!(matches!(resumed, Err(Error::NothingToResume(_))));
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn changed_keys_are_named_by_their_path() {
        assert_eq!(changed_keys("[t]\na = 1\nb = 2\n", "[t]\na = 1\nb = 3\nc = 1\n"), ["t.b", "t.c"]);
    }
}
