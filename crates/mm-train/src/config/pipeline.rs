//! The keys of a pipeline, which `cargo xtask run` reads: training itself has no use for them.

use mm_core::config::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};

/// The keys of a configuration that `cargo xtask run` carries out around training.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// What `cargo xtask data` prepares first.
    pub prepare: Vec<String>,
    /// How the run is launched.
    pub launch: Launch,
}

/// `[launch]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Launch {
    /// Processes on this machine.
    pub nproc: usize,
}

impl Default for Launch {
    fn default() -> Self {
        Self { nproc: 1 }
    }
}

impl Pipeline {
    /// Takes `prepare` and `[launch]` out of `file`, so that a task's own configuration need not have them.
    ///
    /// # Errors
    /// A key is unknown or ill-typed.
    pub fn take(file: &mut ConfigFile) -> Result<Self, ConfigError> {
        let mut pipeline = Self::default();
        if let Some(prepare) = file.take("prepare") {
            let names = prepare.try_into::<Vec<String>>();
            pipeline.prepare = names.map_err(|_| {
                file.error("prepare", "`prepare`: must be a list of names, as in prepare = [\"minilm\"]")
            })?;
        }
        if let Some(launch) = file.take("launch") {
            pipeline.launch = launch.try_into::<Launch>().map_err(|error| {
                let problem = error.message().to_owned();
                file.error("launch", format!("`launch`: {problem}; the only key is `nproc`"))
            })?;
            if pipeline.launch.nproc == 0 {
                return Err(file.error("launch.nproc", "`launch.nproc`: must be at least 1"));
            }
        }
        Ok(pipeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_taken_out_of_the_file_or_refused_with_its_line() {
        let take = |text: &str| {
            let mut file = ConfigFile::from_text("c.toml", text, &[]).unwrap();
            Pipeline::take(&mut file)
                .map(|pipeline| (pipeline.prepare, pipeline.launch.nproc, file.get("run").is_some()))
                .map_err(|error| error.to_string())
        };
        let text = "prepare = [\"minilm\"]\n[run]\nname = \"a\"\n[launch]\nnproc = 2\n";
        assert_eq!(take(text), Ok((vec!["minilm".to_owned()], 2, true)));
        assert_eq!(take(""), Ok((vec![], 1, false)));
        for (text, expected) in [
            ("prepare = 3\n", "c.toml:1: `prepare`"),
            ("\n[launch]\nnproc = 0\n", "c.toml:3: `launch.nproc`"),
            ("\n[launch]\nprocesses = 2\n", "c.toml:2: `launch`"),
            ("\n[launch]\nnproc = -1\n", "c.toml:2: `launch`"),
        ] {
            let error = take(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
