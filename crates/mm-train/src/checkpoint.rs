use crate::{Ema, Error, Result};
use mm_core::checkpoint as weights;
use mm_core::optim::AdamW;
use mm_dist::Group;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tch::Tensor;
use tch::nn::VarStore;

/// What a checkpoint holds beside tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: u64,
    /// The run's seed; with the step it gives every generator's state.
    pub(crate) seed: u64,
    /// Each process's place in the data.
    pub(crate) positions: Vec<serde_json::Value>,
    /// Seconds trained so far, over all processes.
    pub(crate) seconds: f64,
}

/// What is saved and loaded together.
pub(crate) struct Trained<'a> {
    pub(crate) vs: &'a VarStore,
    pub(crate) optimizer: &'a mut AdamW,
    pub(crate) ema: Option<&'a mut Ema>,
    pub(crate) group: &'a Group,
}

impl Trained<'_> {
    /// The moments of all processes, in rank 0's hands; the others give theirs away one by one.
    fn moments(&self) -> Result<Vec<(String, Tensor)>> {
        let mut whole = Vec::new();
        for moment in self.optimizer.moments() {
            let mut value = moment.value.unwrap_or_else(|| moment.variable.detach().empty_like());
            if self.optimizer.shard().world > 1 {
                self.group.broadcast_from(moment.owner, &mut value)?;
            }
            if self.group.is_main() {
                whole.push((moment.name, value));
            }
        }
        Ok(whole)
    }
}

/// Variables stand in run checkpoints under the names they have in memory.
fn as_is(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

/// Writes `checkpoints/step-N` of the run in `folder`, points `latest` to it and removes all but the last `keep`. All processes take part, and rank 0
/// writes; `position` is each one's own.
pub(crate) fn save(
    folder: &Path,
    state: &mut State,
    position: serde_json::Value,
    trained: &Trained,
    keep: usize,
) -> Result<PathBuf> {
    let checkpoints = folder.join("checkpoints");
    let name = format!("step-{}", state.step);
    let (done, partial) = (checkpoints.join(&name), checkpoints.join(format!(".{name}.partial")));
    let positions = trained.group.gather_bytes(position.to_string().as_bytes())?;
    let parsed =
        positions.iter().map(|text| serde_json::from_slice(text).expect("a position was JSON before it was sent"));
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
        let _ = fs::remove_file(&link); // left by a killed process, if at all
        std::os::unix::fs::symlink(&name, &link).map_err(io("link", &link))?;
        fs::rename(&link, checkpoints.join("latest")).map_err(io("link", &checkpoints))?;
        sync(&checkpoints)
    });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial); // the first error is the one to report
        return Err(error);
    }
    prune(&checkpoints, keep);
    Ok(done)
}

fn write(partial: &Path, state: &State, trained: &Trained, moments: &[(String, Tensor)]) -> Result<()> {
    let _ = fs::remove_dir_all(partial); // left by a killed process, if at all
    fs::create_dir_all(partial).map_err(|source| mm_core::Error::io("create", partial, source))?;
    weights::save(trained.vs, &partial.join("model.safetensors"), as_is)?;
    weights::write(&partial.join("optimizer.safetensors"), moments)?;
    if let Some(ema) = &trained.ema {
        ema.save(&partial.join("ema.safetensors"))?;
    }
    let file = partial.join("state.json");
    weights::write_atomically(&file, |to| {
        let text = serde_json::to_string_pretty(state).expect("a state of plain values is JSON");
        fs::write(to, text).map_err(|source| mm_core::Error::io("write", &file, source))
    })?;
    sync(partial)
}

/// Makes the folder's entries outlive a power cut.
fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    Ok(synced.map_err(|source| mm_core::Error::io("sync", folder, source))?)
}

/// Removes all checkpoints but the last `keep`. One that cannot be removed costs space, not work.
fn prune(checkpoints: &Path, keep: usize) {
    let mut steps: Vec<(u64, PathBuf)> = fs::read_dir(checkpoints)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?, entry.path())))
        .collect();
    steps.sort();
    for (_, path) in steps.iter().rev().skip(keep) {
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!("cannot remove the old checkpoint {}: {error}", path.display());
        }
    }
}

/// Reads a checkpoint's folder into what is trained and gives its state.
pub(crate) fn load(checkpoint: &Path, trained: &mut Trained) -> Result<State> {
    let file = checkpoint.join("state.json");
    let text = fs::read_to_string(&file).map_err(|source| mm_core::Error::io("read", &file, source))?;
    let state: State =
        serde_json::from_str(&text).map_err(|error| Error::State { path: file.clone(), problem: error.to_string() })?;
    weights::load(trained.vs, &checkpoint.join("model.safetensors"), as_is)?;
    trained.optimizer.load(&checkpoint.join("optimizer.safetensors"), state.step)?;
    if let Some(ema) = &mut trained.ema {
        ema.load(&checkpoint.join("ema.safetensors"))?;
    }
    Ok(state)
}
