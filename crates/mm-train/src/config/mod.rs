//! The tables of a configuration that every task has, and the reading and checking of a whole file.

mod data;
mod eval;
mod pipeline;
mod run;
mod train;

pub use data::DataConfig;
pub use eval::EvalConfig;
pub use pipeline::Pipeline;
pub use run::RunConfig;
pub use train::{OptimizerKind, TrainConfig};

use crate::Task;
use mm_core::config::{ConfigError, ConfigFile};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The tables that every task has.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// `[run]`.
    pub run: &'a RunConfig,
    /// `[data]`.
    pub data: &'a DataConfig,
    /// `[train]`.
    pub train: &'a TrainConfig,
    /// `[eval]`.
    pub eval: &'a EvalConfig,
}

/// The whole configuration of a task: a struct with `deny_unknown_fields` that holds the shared tables beside
/// its own.
pub trait TaskConfig: Serialize + DeserializeOwned {
    /// Keys that have another name now, as `(former, current)`: a file with the former one stays valid.
    const RENAMED: &'static [(&'static str, &'static str)] = &[];

    /// The shared tables.
    fn shared(&self) -> Shared<'_>;

    /// `[train]`, to write the steps and the precision of the run into.
    fn train_mut(&mut self) -> &mut TrainConfig;

    /// Checks the task's own tables; the shared ones are checked already.
    ///
    /// # Errors
    /// A value is out of its range or does not go with another; [`ConfigFile::error`] adds file and line.
    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let _ = file;
        Ok(())
    }
}

/// The optional keys of the shared tables that a task honours. For another task such a key is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supports {
    /// `train.layer_decay`, through [`Task::depth`].
    pub layer_decay: bool,
    /// `train.gradient_checkpointing`.
    pub gradient_checkpointing: bool,
}

/// Reads and checks the configuration of the task `T`.
///
/// # Errors
/// A key is unknown, missing, ill-typed, out of range, or not honoured by the task; the error names file,
/// line and key.
pub fn read_config<T: Task>(file: &mut ConfigFile) -> Result<T::Config, ConfigError> {
    Pipeline::take(file)?;
    for (former, current) in T::Config::RENAMED {
        file.rename(former, current)?;
    }
    let config: T::Config = file.parse()?;
    let Shared { run, train, eval, .. } = config.shared();
    if run.task != T::NAME {
        let problem = format!("`run.task`: is {:?} where {:?} is expected", run.task, T::NAME);
        return Err(file.error("run.task", problem));
    }
    run.validate(file)?;
    train.validate(file)?;
    eval.validate(file)?;
    let optional = [
        ("layer_decay", train.layer_decay != 1.0, T::SUPPORTS.layer_decay),
        ("gradient_checkpointing", train.gradient_checkpointing, T::SUPPORTS.gradient_checkpointing),
    ];
    for (key, is_set, is_supported) in optional {
        if is_set && !is_supported {
            let problem = format!("`train.{key}`: the task `{}` does not support it", T::NAME);
            return Err(file.error(&format!("train.{key}"), problem));
        }
    }
    config.validate(file)?;
    Ok(config)
}
