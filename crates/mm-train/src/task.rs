//! The interface between the training loop and a model with its data and loss.

use crate::{EvalContext, EvalSet, Evaluation, MicroBatch, Result, Supports, TaskConfig, TrainingData};
use mm_core::checkpoint::hf_names;
use mm_core::{OpenOptions, Precision};
use mm_data::{BatchGroups, Dataset, Item, Map};
use mm_dist::ProcessGroup;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A loss and its parts.
#[derive(Debug)]
pub struct Loss {
    /// The scalar to minimize.
    pub total: Tensor,
    /// Scalars to log beside it, by name. The names and their order are the same in every step and on all
    /// ranks, because the values are averaged over the ranks by position; the trainer checks the names of the
    /// first step.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// Words in the names of tables and output layers, in all families of Hugging Face's models and ours.
const TABLES_AND_OUTPUTS: [&str; 8] =
    ["embed", "position", "classifier", "head.", "predictions", "wte", "wpe", "bias_table"];

/// Context for building a task.
#[derive(Clone, Copy)]
pub struct TaskContext<'a> {
    /// The device of the model.
    pub device: Device,
    /// The process group of the run.
    pub group: &'a ProcessGroup,
    /// The training set, e.g. to train a tokenizer on its captions.
    pub dataset: &'a Arc<dyn Dataset>,
    /// The checkpoint that the run resumes from. Weights and optimizer state are restored by the trainer; the
    /// task takes from it what it would otherwise make or read anew, such as a trained tokenizer.
    pub checkpoint: Option<&'a Path>,
    /// Reports progress of long preparations.
    pub progress: &'a dyn Progress,
}

impl<'a> TaskContext<'a> {
    /// The context of a new run, without a progress display.
    pub fn new(device: Device, group: &'a ProcessGroup, dataset: &'a Arc<dyn Dataset>) -> Self {
        Self { device, group, dataset, checkpoint: None, progress: &NoProgress }
    }

    /// Opens `base`, the checkpoint that the model starts from, by `open`. If it is missing, the run's own
    /// checkpoint takes its place: it is opened by `open_last_step`, without averaged weights.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_base<T, E>(
        &self,
        base: &str,
        open: impl FnOnce(&str) -> std::result::Result<T, E>,
        open_last_step: impl FnOnce(&Path) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let error = match open(base) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let Some(checkpoint) = self.checkpoint.filter(|_| mm_core::hub::resolve(base).is_err()) else {
            return Err(error);
        };
        let own = open_last_step(checkpoint).map_err(|_| error)?;
        tracing::warn!("{base} is missing: the run continues with the weights in {}", checkpoint.display());
        Ok(own)
    }

    /// The captions of each sample of the training set, in its order; `work` names the reading in the
    /// progress display. A sample that cannot be read has none here: it is counted when training reads it.
    pub fn captions_by_sample(&self, work: &str) -> impl Iterator<Item = Vec<String>> {
        let (dataset, total) = (self.dataset, self.dataset.len());
        (0..total).map(move |index| {
            self.progress.report(work, index as u64 + 1, total as u64);
            dataset.sample(index).map(|sample| sample.captions).unwrap_or_default()
        })
    }
}

/// Shows progress of work that takes long: a bar in the command line, nothing in tests.
pub trait Progress {
    /// `done` of `total` pieces of `work` are done; the last call has `done == total`.
    fn report(&self, work: &str, done: u64, total: u64);
}

/// Progress that is not shown.
#[derive(Clone, Copy, Debug)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _: &str, _: u64, _: u64) {}
}

/// A model with its data, its loss and its metrics. [`crate::Trainer`] does everything else, the same way for
/// every task.
pub trait Task: Sized {
    /// The value of `run.task` that selects the task.
    const NAME: &'static str;
    /// Which optional keys of the shared tables the task honours.
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: false };
    /// The whole configuration.
    type Config: TaskConfig;
    /// One preprocessed sample.
    type Item: Item;
    /// A micro-batch on the model's device.
    type Batch;
    /// The model with its tokenizer and processor, as inference uses it.
    type Model;

    /// Builds the model and what goes with it, in training mode. Initial weights depend on `run.seed` only.
    ///
    /// # Errors
    /// A checkpoint or tokenizer cannot be opened, or the model cannot be built.
    fn new(config: &Self::Config, context: &TaskContext) -> Result<Self>;

    /// The variables that train, with their buffers. Frozen modules belong into a [`VarStore`] of their own:
    /// optimizer, EMA, checkpoints and broadcasts then leave them alone.
    fn variables(&self) -> &VarStore;

    /// The variables that do not train, if there are any. They are written once a run and linked into every
    /// checkpoint, so that a checkpoint can be opened as a model.
    fn frozen(&self) -> Option<&VarStore> {
        None
    }

    /// Maps a sample to an item, on a loader thread: decoding, augmentation, tokenization.
    fn preprocess(&self) -> Map<Self::Item>;

    /// The group of each sample of the training set, where a micro-batch must have samples of one group, such
    /// as images of one size: [`mm_data::Loader::with_groups`].
    fn batch_groups(&self) -> Option<BatchGroups> {
        None
    }

    /// The items that all ranks together read at once, where that is not a micro-batch: the prompts of a
    /// roll-out.
    fn items_per_batch(&self) -> Option<usize> {
        None
    }

    /// Makes a micro-batch on the model's device.
    ///
    /// # Errors
    /// The items do not fit together.
    fn collate(&self, items: Vec<Self::Item>) -> Result<Self::Batch>;

    /// The loss of a micro-batch.
    ///
    /// # Errors
    /// libtorch refuses the batch.
    fn loss(&self, batch: &Self::Batch) -> Result<Loss>;

    /// The model, with the weights as they are now.
    fn model(&self) -> &Self::Model;

    /// Writes the model into the existing folder `folder`, in Hugging Face layout.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save_model(&self, folder: &Path) -> Result<()>;

    /// Opens a model that [`Task::save_model`] wrote, a run's checkpoint, or a model of the hub.
    ///
    /// # Errors
    /// There is no such model, or it is not one of this task.
    fn open_model(name: &str, options: &OpenOptions) -> Result<Self::Model>;

    /// Measures `model` on one evaluation set. Training and `mm eval` both call it, on all ranks, which share
    /// the samples and all return the same metrics.
    ///
    /// # Errors
    /// The set cannot be read, or another process is lost.
    fn evaluate(
        model: &Self::Model,
        config: &Self::Config,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation>;

    /// The next micro-batch. A task that generates its own samples (roll-outs of a policy) overrides it, and
    /// generates them in the run's `precision`.
    ///
    /// # Errors
    /// The data cannot be read, or more samples are bad than the config allows.
    fn next_batch(
        &mut self,
        data: &mut TrainingData<Self::Item>,
        precision: Precision,
    ) -> Result<Self::Batch> {
        let _ = precision;
        self.collate(data.next_batch()?)
    }

    /// Runs a micro-batch forward and backward, which adds to the gradients.
    ///
    /// # Errors
    /// libtorch refuses an operation, or another process is lost.
    fn backward(&self, batch: &Self::Batch, micro_batch: &MicroBatch) -> Result<Loss> {
        micro_batch.forward_backward(|| self.loss(batch))
    }

    /// Called after each optimizer step, e.g. to clamp `logit_scale`.
    fn after_step(&mut self) {}

    /// The number of layer groups between the variable `name` and the output of its tower, for
    /// `train.layer_decay`: the learning rate of the variable is `layer_decay^depth` of the run's.
    fn depth(&self, name: &str) -> usize {
        let _ = name;
        0
    }

    /// Whether weight decay applies to the variable `name`, given that it has two dimensions or more: not to
    /// class and position embeddings.
    fn has_weight_decay(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// The matrices of hidden layers that the variable `name` stacks, given that it has two dimensions or
    /// more: three where queries, keys and values are one, and 0 for a table of embeddings or positions or an
    /// output layer, whose rows are one item each. By `train.optimizer = "muon"`, Muon updates hidden layers
    /// alone, each matrix by itself.
    fn hidden_matrices(&self, name: &str) -> usize {
        match TABLES_AND_OUTPUTS.iter().any(|word| name.contains(word)) {
            true => 0,
            false => hf_names(name).len(),
        }
    }

    /// Whether a checkpoint written now could be resumed exactly. A task answers `false` in the middle of
    /// something that a checkpoint does not hold, such as a roll-out, on all ranks alike; the trainer then
    /// writes the checkpoint after the next step that answers `true`.
    fn is_resumable(&self) -> bool {
        true
    }

    /// Forgets the batches that it was given and what follows from them: those of a trial, after which the
    /// run starts.
    fn restart(&mut self) {}

    /// The reason to end the run after these evaluations, which are the same on all ranks; none: it goes on.
    fn stops_after(&mut self, evaluations: &[Evaluation]) -> Option<String> {
        let _ = evaluations;
        None
    }

    /// Writes into the existing folder `folder` of a checkpoint what it needs beside the weights to be opened
    /// as a model: config, tokenizer, preprocessing.
    ///
    /// # Errors
    /// A file cannot be written.
    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }

    /// The shapes of a micro-batch, for `mm train --check`.
    fn describe_batch(&self, batch: &Self::Batch) -> String {
        let _ = batch;
        String::new()
    }
}
