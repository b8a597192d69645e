//! The tasks that `mm train` and `mm eval` run, chosen by `run.task`.

use crate::{eval, train};
use anyhow::Result;
use mm_caption::CaptionTask;
use mm_clip::ClipTask;
use mm_core::config::{ConfigError, ConfigFile, nearest};
use mm_diffusion::{AutoencoderTask, DiffusionTask, SceneReaderTask};
use mm_rlhf::{DpoTask, RewardTask, RlTask};
use mm_train::Task;
use mm_vqa::VqaTask;
use mm_vqa::document::DocumentTask;
use mm_vqa::vlm::VlmTask;
use std::process::ExitCode;

/// A task with its commands.
pub struct TaskEntry {
    /// The value of `run.task`.
    pub name: &'static str,
    /// `mm train`.
    pub train: fn(&train::Args, ConfigFile) -> Result<ExitCode>,
    /// `mm eval`.
    pub eval: fn(&eval::Args, ConfigFile) -> Result<()>,
}

/// The list of tasks of this workspace.
pub const BUILT_IN: &[TaskEntry] = &[
    TaskEntry::of::<ClipTask>(),
    TaskEntry::of::<CaptionTask>(),
    TaskEntry::of::<VqaTask>(),
    TaskEntry::of::<DiffusionTask>(),
    TaskEntry::of::<SceneReaderTask>(),
    TaskEntry::of::<AutoencoderTask>(),
    TaskEntry::of::<RewardTask>(),
    TaskEntry::of::<RlTask>(),
    TaskEntry::of::<DpoTask>(),
    TaskEntry::of::<DocumentTask>(),
    TaskEntry::of::<VlmTask>(),
];

impl TaskEntry {
    /// The entry of the task `T`.
    pub const fn of<T: Task>() -> Self {
        Self { name: T::NAME, train: train::run::<T>, eval: eval::run::<T> }
    }
}

/// The task that `file` chooses by `run.task`, among the built-in ones and `outside`.
///
/// # Errors
/// The key is missing, no task has the name, or two have it; the error names file, line and key.
pub fn find<'a>(outside: &'a [TaskEntry], file: &mut ConfigFile) -> Result<&'a TaskEntry, ConfigError> {
    if file.get("run.task").is_none() {
        file.rename("model.kind", "run.task")?; // its former name
    }
    let names: Vec<&str> = BUILT_IN.iter().chain(outside).map(|task| task.name).collect();
    let known = names.join(", ");
    let error = |problem: String| Err(file.error("run.task", format!("`run.task`: {problem}")));
    let Some(name) = file.get("run.task") else { return error(format!("missing; tasks are {known}")) };
    let Some(name) = name.as_str() else { return error(format!("must be a name; tasks are {known}")) };
    let mut found = BUILT_IN.iter().chain(outside).filter(|task| task.name == name);
    match (found.next(), found.next()) {
        (Some(task), None) => Ok(task),
        (Some(_), Some(_)) => {
            error(format!("two tasks are named {name:?}, one of them built in: rename the other"))
        }
        (None, _) => {
            let hint = nearest(name, names.iter().copied());
            let hint = hint.map_or(String::new(), |name| format!("did you mean {name:?}? "));
            error(format!("unknown task {name:?}; {hint}tasks are {known}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(outside: &[TaskEntry], text: &str) -> Result<String, String> {
        let mut file = ConfigFile::from_text("c.toml", text, &[]).unwrap();
        find(outside, &mut file).map(|task| task.name.to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_task_is_found_by_its_name_or_refused_with_the_line_and_the_nearest_name() {
        assert_eq!(find_in(&[], "[run]\ntask = \"clip\"\n"), Ok("clip".into()));
        assert_eq!(find_in(&[], "[run]\nname = \"a\"\n[model]\nkind = \"clip\"\n"), Ok("clip".into()));
        for (text, expected) in [
            (
                "\n[run]\nname = \"a\"\n",
                "c.toml:2: `run.task`: missing; tasks are clip, caption, vqa, diffusion, scene-reader, \
                 autoencoder, reward, rl, dpo, document, vlm",
            ),
            ("[run]\ntask = 3\n", "c.toml:2: `run.task`: must be a name"),
            ("[run]\ntask = \"clp\"\n", "c.toml:2: `run.task`: unknown task \"clp\"; did you mean \"clip\"?"),
            (
                "[run]\n[model]\nkind = \"x\"\n",
                "c.toml:3: `run.task`: unknown task \"x\"; tasks are clip, caption, vqa, diffusion, \
                 scene-reader, autoencoder, reward, rl, dpo, document, vlm",
            ),
        ] {
            let error = find_in(&[], text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_outside_task_with_the_name_of_a_built_in_one_is_refused() {
        let outside = [TaskEntry::of::<ClipTask>()];
        let error = find_in(&outside, "[run]\ntask = \"clip\"\n").unwrap_err();
        assert!(error.starts_with("c.toml:2: `run.task`: two tasks are named \"clip\""), "{error}");
    }
}
