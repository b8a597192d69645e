//! `[run]`: the task, its name and where it computes.

use mm_core::DeviceConfig;
use mm_core::config::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[run]`: which task runs, under which name, and on which device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The task: `"clip"`, or the name of a task in a crate of its own.
    pub task: String,
    /// The run's name; its folder is `out/name`.
    pub name: String,
    /// Fixes initial weights, data order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// The folder of all runs.
    #[serde(default = "default_out")]
    pub out: PathBuf,
    /// `"auto"`, `"cpu"` or `"cuda:N"`. With several processes on a machine each takes a GPU of its own,
    /// counted from this one.
    #[serde(default)]
    pub device: DeviceConfig,
    /// Bounds the rendezvous and every collective, in seconds. Must be longer than rank 0 takes to write a
    /// checkpoint.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: f64,
}

/// A year: a longer duration overflows the clocks of some libraries.
const LONGEST_TIMEOUT: f64 = 31_536_000.0;

fn default_out() -> PathBuf {
    "runs".into()
}
fn default_timeout() -> f64 {
    600.0
}

impl RunConfig {
    /// The run's folder, `out/name`.
    pub fn folder(&self) -> PathBuf {
        self.out.join(&self.name)
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// A number is out of its range; the error names its key and line in `file`.
    pub fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let seconds = self.timeout_seconds;
        file.check(
            seconds > 0.0 && seconds <= LONGEST_TIMEOUT,
            "run.timeout_seconds",
            format!("must be above 0 and at most {LONGEST_TIMEOUT}, is {seconds}"),
        )
    }

    /// What the run's `config.toml` has for `key` of `table`, where there is one.
    pub(crate) fn written(&self, table: &str, key: &str) -> Option<toml::Value> {
        let text = std::fs::read_to_string(self.folder().join("config.toml")).ok()?;
        let config: toml::Table = text.parse().ok()?;
        Some(config.get(table)?.get(key)?.clone())
    }

    /// The bound on the rendezvous and on every collective.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds.clamp(0.0, LONGEST_TIMEOUT))
    }
}
