//! The checkpoints of a run: written, checked, loaded, removed.

use crate::compute::Compute;
use crate::{Ema, Error, Result};
use mm_core::checkpoint::{self as weights, TensorLayout, Weights};
use mm_core::optim::Optimizer;
use mm_data::Position;
use mm_dist::ProcessGroup;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tch::Tensor;
use tch::nn::VarStore;

/// The part of a checkpoint that is not tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: u64,
    /// The run's seed; with the step it gives every generator's state.
    pub(crate) seed: u64,
    /// Each rank's position in the data.
    pub(crate) positions: Vec<serde_json::Value>,
    /// Seconds trained so far, over all starts of the run.
    pub(crate) seconds: f64,
    /// The threads and instructions of each rank; empty in older checkpoints.
    #[serde(default)]
    pub(crate) compute: Vec<Compute>,
    /// The other files of the checkpoint and their sizes in bytes; empty in older checkpoints.
    #[serde(default)]
    files: BTreeMap<String, u64>,
}

impl State {
    /// The state of a new run.
    pub(crate) fn new(seed: u64, compute: Vec<Compute>) -> Self {
        Self { step: 0, seed, positions: Vec::new(), seconds: 0.0, compute, files: BTreeMap::new() }
    }

    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STATE);
        let text = fs::read_to_string(&path).map_err(|source| mm_core::Error::io("read", &path, source))?;
        serde_json::from_str(&text).map_err(|error| Error::State { path, problem: error.to_string() })
    }
}

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";
/// The variables that do not train: one file a run, with a link in each checkpoint.
const FROZEN: &str = "frozen.safetensors";

/// Writes config, tokenizer and preprocessing into a checkpoint's folder.
pub(crate) type Describe<'a> = Box<dyn Fn(&Path) -> Result<()> + 'a>;

/// The tensors of a checkpoint.
pub(crate) struct Trained<'a> {
    pub(crate) vs: &'a VarStore,
    pub(crate) frozen: Option<&'a VarStore>,
    pub(crate) optimizer: &'a mut Optimizer,
    pub(crate) ema: Option<&'a mut Ema>,
    pub(crate) group: &'a ProcessGroup,
    pub(crate) describe: Describe<'a>,
}

impl Trained<'_> {
    /// The moments of all ranks, on rank 0; the other ranks send theirs one by one.
    fn moments(&self) -> Result<Vec<(String, Tensor)>> {
        let mut moments = Vec::new();
        for moment in self.optimizer.moments() {
            let mut value = moment.value.unwrap_or_else(|| moment.variable.detach().empty_like());
            if self.optimizer.shard().count > 1 {
                self.group.broadcast_from(moment.owner, &mut value)?;
            }
            if self.group.is_main() {
                moments.push((moment.name, value));
            }
        }
        Ok(moments)
    }
}

/// Checkpoints of a run keep the names that variables have in memory.
fn as_is(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

/// Writes `checkpoints/step-N` of the run in `folder`, points `latest` to it and removes all but the last
/// `keep`. All processes take part, and rank 0 writes; `position` is each one's own.
pub(crate) fn save(
    folder: &Path,
    state: &mut State,
    position: &Position,
    trained: &Trained,
    keep: usize,
) -> Result<PathBuf> {
    let checkpoints = folder.join("checkpoints");
    let name = format!("step-{}", state.step);
    let (done, partial) = (checkpoints.join(&name), checkpoints.join(format!(".{name}.partial")));
    let position = serde_json::to_vec(position).expect("a position of plain values is JSON");
    let positions = trained.group.gather_bytes(&position)?;
    let parsed =
        positions.iter().map(|text| serde_json::from_slice(text).expect("positions are sent as JSON"));
    state.positions = parsed.collect();
    let moments = trained.moments()?;
    if !trained.group.is_main() {
        return Ok(done);
    }
    let written = write(&partial, state, trained, &moments).and_then(|()| {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::from(mm_core::Error::io(action, &path, source))
        };
        if done.exists() {
            fs::remove_dir_all(&done).map_err(io("replace", &done))?;
        }
        fs::rename(&partial, &done).map_err(io("write", &done))?;
        let link = checkpoints.join(".latest.partial");
        let _ = fs::remove_file(&link); // left by a killed process
        std::os::unix::fs::symlink(&name, &link).map_err(io("link", &link))?;
        fs::rename(&link, checkpoints.join("latest")).map_err(io("link", &checkpoints))?;
        sync(&checkpoints)
    });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial); // the first error is the one to report
        return Err(error);
    }
    prune(&checkpoints, state.step, keep);
    Ok(done)
}

fn write(partial: &Path, state: &mut State, trained: &Trained, moments: &[(String, Tensor)]) -> Result<()> {
    let _ = fs::remove_dir_all(partial); // left by a killed process
    fs::create_dir_all(partial).map_err(|source| mm_core::Error::io("create", partial, source))?;
    weights::save(trained.vs, &partial.join(MODEL), as_is)?;
    weights::write(&partial.join(OPTIMIZER), moments)?;
    if let Some(ema) = &trained.ema {
        ema.save(&partial.join(EMA))?;
    }
    if trained.frozen.is_some() {
        link_frozen(partial)?;
    }
    (trained.describe)(partial)?;
    state.files = sizes(partial)?;
    let file = partial.join(STATE);
    weights::write_atomically(&file, |to| {
        let text = serde_json::to_string_pretty(state).expect("a state of plain values is JSON");
        fs::write(to, text).map_err(|source| mm_core::Error::io("write", &file, source))
    })?;
    sync(partial)
}

/// Writes the variables that do not train into the `folder` of a run, unless the file has them already.
pub(crate) fn write_frozen(folder: &Path, frozen: &VarStore) -> Result<()> {
    let file = folder.join(FROZEN);
    if has_values(&file, frozen) { Ok(()) } else { Ok(weights::save(frozen, &file, as_is)?) }
}

/// Whether `file` has the variables of `vs`, with their values.
fn has_values(file: &Path, vs: &VarStore) -> bool {
    let Ok(stored) = Weights::open(file) else { return false };
    let variables = vs.variables();
    stored.list().len() == variables.len()
        && variables.iter().all(|(name, variable)| {
            let same = |stored: Tensor| {
                stored.size() == variable.size() && stored.to_device(variable.device()).equal(variable)
            };
            stored.tensor(name).is_ok_and(same)
        })
}

/// Links the run's frozen variables into a checkpoint of it; a copy where the disk has no links.
fn link_frozen(checkpoint: &Path) -> Result<()> {
    let run = checkpoint.parent().and_then(Path::parent).expect("a checkpoint is in checkpoints/ of a run");
    let (from, to) = (run.join(FROZEN), checkpoint.join(FROZEN));
    let linked = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop));
    Ok(linked.map_err(|source| mm_core::Error::io("link", &to, source))?)
}

/// Syncs the folder's entries to the disk.
fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    Ok(synced.map_err(|source| mm_core::Error::io("sync", folder, source))?)
}

/// The files of a checkpoint and their sizes in bytes.
fn sizes(partial: &Path) -> Result<BTreeMap<String, u64>> {
    let size =
        |entry: fs::DirEntry| Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
    let sizes = fs::read_dir(partial).and_then(|entries| entries.map(|entry| size(entry?)).collect());
    Ok(sizes.map_err(|source| mm_core::Error::io("read", partial, source))?)
}

/// The step of a checkpoint's folder `step-N`.
pub(crate) fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// The checkpoints in `checkpoints`, from the first step to the last.
pub(crate) fn steps(checkpoints: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(checkpoints).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut steps: Vec<_> = entries.filter_map(|path| Some((step_of(&path)?, path))).collect();
    steps.sort();
    steps
}

/// Removes all checkpoints but the last `keep` up to `step`, the one just written: those of later steps are
/// from before the run was resumed at an earlier one, and what a killed process left half written is of no
/// use. One that cannot be removed costs space, not work.
fn prune(checkpoints: &Path, step: u64, keep: usize) {
    let (before, after): (Vec<_>, Vec<_>) =
        steps(checkpoints).into_iter().partition(|(other, _)| *other <= step);
    let old = before.into_iter().rev().skip(keep).chain(after).map(|(_, path)| path);
    let is_partial = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(".step-") && name.ends_with(".partial")
    };
    let entries = fs::read_dir(checkpoints).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in old.chain(entries.filter(is_partial)) {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!("cannot remove the old checkpoint {}: {error}", path.display());
        }
    }
}

/// Checks that the checkpoint in a folder is complete, without reading its tensors: its state, and each
/// file's header and length.
///
/// # Errors
/// The first problem found.
pub(crate) fn check(checkpoint: &Path) -> std::result::Result<(), String> {
    if !checkpoint.is_dir() {
        return Err("is missing".to_owned());
    }
    let state = State::read(checkpoint).map_err(|error| error.to_string())?;
    let mut names: BTreeSet<&str> =
        state.files.keys().map(String::as_str).chain([MODEL, OPTIMIZER]).collect();
    if checkpoint.join(EMA).exists() {
        names.insert(EMA);
    }
    for name in names {
        let file = checkpoint.join(name);
        match (file.metadata().map(|file| file.len()), state.files.get(name)) {
            (Err(error), _) => return Err(format!("{name}: {error}")),
            (Ok(bytes), Some(expected)) if bytes != *expected => {
                return Err(format!("{name} has {bytes} bytes of {expected}"));
            }
            (Ok(_), _) if name.ends_with(".safetensors") => {
                Weights::open(&file).map(drop).map_err(|error| match error {
                    mm_core::Error::Checkpoint { problem, .. } => format!("{name}: {problem}"),
                    error => error.to_string(),
                })?
            }
            _ => {}
        }
    }
    Ok(())
}

/// Loads the tensors of a checkpoint and returns its state.
pub(crate) fn load(checkpoint: &Path, trained: &mut Trained) -> Result<State> {
    let state = State::read(checkpoint)?;
    // Older checkpoints hold the frozen variables beside the trained ones.
    let frozen = trained.frozen.map(VarStore::variables).unwrap_or_default();
    let open = |name: &str| -> Result<Weights> {
        let mut tensors = Weights::open(&checkpoint.join(name))?;
        tensors.retain(|name| !frozen.contains_key(name));
        Ok(tensors)
    };
    open(MODEL)?.fill(trained.vs.variables().into_iter().collect(), &TensorLayout::AS_IS)?;
    trained.optimizer.load(&checkpoint.join(OPTIMIZER), state.step)?;
    if let Some(ema) = &mut trained.ema {
        ema.load(&open(EMA)?)?;
    }
    Ok(state)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// A complete checkpoint of one small tensor.
    pub(crate) fn write_small(folder: &Path, step: u64) {
        fs::create_dir_all(folder).unwrap();
        let tensor = || ("weight".to_owned(), Tensor::arange(8, (Kind::Float, Device::Cpu)));
        for name in [MODEL, OPTIMIZER, EMA] {
            weights::write(&folder.join(name), &[tensor()]).unwrap();
        }
        let mut state = State::new(0, Vec::new());
        state.step = step;
        state.files = sizes(folder).unwrap();
        fs::write(folder.join(STATE), serde_json::to_string(&state).unwrap()).unwrap();
    }

    #[test]
    fn a_checkpoint_without_a_list_of_its_files_is_complete_too() {
        let folder = tempfile::tempdir().unwrap();
        write_small(folder.path(), 5);
        let state = r#"{"step": 5, "seed": 1, "positions": [{"epoch": 0}], "seconds": 1.5}"#;
        fs::write(folder.path().join(STATE), state).unwrap();
        check(folder.path()).unwrap();
        assert_eq!(State::read(folder.path()).unwrap().compute, []);
        fs::write(folder.path().join(EMA), "half").unwrap();
        assert!(check(folder.path()).unwrap_err().contains("ema.safetensors"));
    }

    #[test]
    fn the_new_checkpoint_is_kept_and_abandoned_ones_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["step-5", "step-10", "step-12", "step-20", "step-30", ".step-15.partial"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        prune(folder.path(), 12, 2);
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["step-10", "step-12"]);
    }
}
