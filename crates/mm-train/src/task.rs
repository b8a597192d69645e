use crate::Result;
use mm_core::Precision;
use mm_core::nn::{Processes, over_processes};
use mm_dist::{GradientAverage, ProcessGroup};
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A loss and what it is made of.
#[derive(Debug)]
pub struct Loss {
    /// The scalar to minimise.
    pub total: Tensor,
    /// Scalars to log beside it, by name.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// A number that an evaluation gives, by name: `held_out/text_to_image_r@1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The evaluation set and the metric.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// The way of one micro-batch through the model and back.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatch<'a> {
    /// What the forward pass computes in.
    pub precision: Precision,
    /// Where.
    pub device: Device,
    /// The micro-batch's share of the step's loss.
    pub loss_scale: f64,
    /// The processes that share it.
    pub group: &'a ProcessGroup,
    /// What averages gradients over them, in the last micro-batch of a step.
    pub average: Option<&'a GradientAverage>,
}

impl MicroBatch<'_> {
    /// Runs a forward pass in the run's precision, with batch norms over the batch of all processes.
    pub fn forward<T>(&self, body: impl FnOnce() -> T) -> T {
        let body = || self.precision.autocast(self.device, body);
        if self.group.is_alone() {
            return body();
        }
        let group = self.group.clone();
        let sum = Arc::new(move |x: &Tensor| group.sum_with_gradient(x));
        over_processes(Processes { count: self.group.world(), sum }, body)
    }

    /// Computes the micro-batch's loss and back-propagates its share of the step's, in one piece.
    ///
    /// # Errors
    /// `loss` fails, libtorch refuses, or another process is lost.
    pub fn forward_backward(&self, loss: impl FnOnce() -> Result<Loss>) -> Result<Loss> {
        let loss = self.forward(loss)?;
        self.sync_gradients_on_next_backward();
        self.backward(&if self.loss_scale == 1.0 {
            loss.total.shallow_clone()
        } else {
            &loss.total * self.loss_scale
        })?;
        Ok(loss)
    }

    /// Back-propagates `part` of the micro-batch's share of the step's loss.
    ///
    /// # Errors
    /// libtorch refuses, or another process is lost.
    pub fn backward(&self, part: &Tensor) -> Result<()> {
        Ok(part.f_backward().map_err(mm_dist::Error::from)?)
    }

    /// Averages gradients over the processes during the next backward pass, where it is the last of a step:
    /// what comes in several parts calls it before its last.
    pub fn sync_gradients_on_next_backward(&self) {
        self.average.iter().for_each(|average| average.arm());
    }
}

/// What is trained: the model, its data and its loss. The loop ([`crate::train`]) knows nothing else.
pub trait Task {
    /// A micro-batch, on the model's device.
    type Batch;

    /// All variables of the model.
    fn variables(&self) -> &VarStore;

    /// The next micro-batch. The order depends on the run's seed and on [`Task::restore`] alone.
    ///
    /// # Errors
    /// The data cannot be read, or more samples are bad than the config allows.
    fn next_batch(&mut self) -> Result<Self::Batch>;

    /// The loss of a micro-batch.
    ///
    /// # Errors
    /// libtorch refuses the batch.
    fn loss(&self, batch: &Self::Batch) -> Result<Loss>;

    /// Runs a micro-batch forward and back, which adds to the gradients.
    ///
    /// # Errors
    /// libtorch refuses, or another process is lost.
    fn backward(&self, batch: &Self::Batch, micro_batch: &MicroBatch) -> Result<Loss> {
        micro_batch.forward_backward(|| self.loss(batch))
    }

    /// How fast the variable `name` learns, as a share of the learning rate.
    fn lr_multiplier(&self, name: &str) -> f64 {
        let _ = name;
        1.0
    }

    /// Mends the variables after each optimiser step, where a model asks for it.
    fn after_step(&mut self) {}

    /// The task's metrics on its evaluation sets.
    ///
    /// # Errors
    /// The data cannot be read.
    fn evaluate(&mut self) -> Result<Vec<Metric>>;

    /// Tells in which folder the run is, before the first batch, for what the task has to write beside
    /// metrics: the samples that cannot be read.
    ///
    /// # Errors
    /// A file cannot be written.
    fn set_run_dir(&mut self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }

    /// This process's place in the data after the last batch, for the checkpoint.
    fn position(&self) -> serde_json::Value;

    /// Goes to the place that [`Task::position`] gave each process, in the order of their ranks. There may
    /// have been more or fewer than now.
    ///
    /// # Errors
    /// A value is not such a place.
    fn restore(&mut self, positions: Vec<serde_json::Value>) -> Result<()>;

    /// Seconds spent waiting for data since the start.
    fn data_wait(&self) -> f64;

    /// Writes the model as a Hugging Face style folder to the existing folder `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save_model(&self, folder: &Path) -> Result<()>;

    /// Writes into the existing folder `folder` of a checkpoint what it needs beside the loop's weights to be
    /// opened as a model: config, tokenizer, preprocessing.
    ///
    /// # Errors
    /// A file cannot be written.
    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }
}
