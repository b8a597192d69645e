//! The training set of a run, with its position.

use crate::{Result, Shared, Task};
use mm_core::seed;
use mm_data::{BatchGroups, Dataset, Item, Loader, LoaderConfig, Map, Position, Rank};
use mm_dist::ProcessGroup;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The training set of a run as one process reads it: the data set, the order of its samples, the position in
/// it, the samples that could not be read, and the time spent waiting for data. The trainer owns it, saves
/// the position in every checkpoint and goes on from there.
pub struct TrainingData<I> {
    dataset: Arc<dyn Dataset>,
    config: LoaderConfig,
    rank: Rank,
    map: Map<I>,
    /// The groups that batches are made of: see [`crate::Task::batch_groups`].
    groups: Option<BatchGroups>,
    /// The file that bad samples are written to, once the run has a folder.
    bad_samples: Option<PathBuf>,
    /// Where reading starts.
    start: Position,
    /// The worker threads, from the first batch on.
    loader: Option<Loader<I>>,
}

impl<I: Item> TrainingData<I> {
    /// The samples of `dataset` as `config` orders and loads them, each mapped by `map`, for this process of
    /// `group`. Reads nothing yet.
    pub fn new(dataset: Arc<dyn Dataset>, config: Shared, group: &ProcessGroup, map: Map<I>) -> Self {
        let Shared { run, data, train, .. } = config;
        let config = LoaderConfig {
            batch_size: train.micro_batch_size(),
            workers: data.workers,
            prefetch: data.prefetch,
            prefetch_bytes: data.prefetch_bytes,
            shuffle_window: data.shuffle_window,
            resample: data.resample,
            seed: seed::derive(run.seed, "data", 0),
            max_bad_samples: data.max_bad_samples,
            ..LoaderConfig::default()
        };
        let rank = Rank { index: group.rank(), world: group.world() };
        let (groups, bad_samples, start) = (None, None, Position::default());
        Self { dataset, config, rank, map, groups, bad_samples, start, loader: None }
    }

    /// Makes the batches that `task` reads: of its groups, and of as many items.
    pub(crate) fn fit_to<T: Task<Item = I>>(&mut self, task: &T) {
        self.groups = task.batch_groups();
        if let Some(items) = task.items_per_batch() {
            self.config.batch_size = items;
        }
        self.loader = None;
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// The items of the next micro-batch.
    ///
    /// # Errors
    /// The data cannot be read, or more samples are bad than the config allows.
    pub fn next_batch(&mut self) -> Result<Vec<I>> {
        Ok(self.loader()?.next_batch()?.items)
    }

    /// The position after the last batch, for the checkpoint.
    pub fn position(&self) -> &Position {
        self.loader.as_ref().map_or(&self.start, Loader::position)
    }

    /// Goes on from the positions of all ranks of the saved run, which may have had more or fewer of them.
    pub fn resume(&mut self, positions: Vec<Position>) {
        self.start = Position::resumed(positions, self.rank);
        self.loader = None;
    }

    /// Reads from the start again, where the run has not begun.
    pub(crate) fn restart(&mut self) {
        self.loader = None;
    }

    /// Writes the samples that cannot be read to `bad_samples.jsonl` in the run's `folder`. Each rank has a
    /// file of its own, because appending to one file from several machines loses lines.
    pub fn set_run_dir(&mut self, folder: &Path) {
        let name = match self.rank.index {
            0 => "bad_samples.jsonl".to_owned(),
            rank => format!("bad_samples.rank-{rank}.jsonl"),
        };
        self.bad_samples = Some(folder.join(name));
        self.loader = None;
    }

    /// Time spent waiting for data.
    pub fn data_wait(&self) -> Duration {
        self.loader.as_ref().map_or(Duration::ZERO, Loader::data_wait)
    }

    fn loader(&mut self) -> Result<&mut Loader<I>> {
        if self.loader.is_none() {
            let (dataset, map, start) = (self.dataset.clone(), self.map.clone(), self.start.clone());
            let (config, groups) = (self.config.clone(), self.groups.clone());
            let mut loader = Loader::with_groups(dataset, config, self.rank, map, start, groups)?;
            if let Some(path) = &self.bad_samples {
                loader.log_bad_samples(path)?;
            }
            self.loader = Some(loader);
        }
        Ok(self.loader.as_mut().expect("made above"))
    }
}
