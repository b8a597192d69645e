use crate::Result;
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

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

    /// How fast the variable `name` learns, as a share of the learning rate.
    fn lr_scale(&self, name: &str) -> f64 {
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

    /// Tells in which folder the run is, before the first batch, for what the task has to write beside metrics: the samples that cannot be
    /// read.
    ///
    /// # Errors
    /// A file cannot be written.
    fn report_in(&mut self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }

    /// The place in the data after the last batch, for the checkpoint.
    fn position(&self) -> serde_json::Value;

    /// Goes to a place that [`Task::position`] gave.
    ///
    /// # Errors
    /// The value is not such a place.
    fn restore(&mut self, position: serde_json::Value) -> Result<()>;

    /// Seconds spent waiting for data since the start.
    fn seconds_waiting(&self) -> f64;

    /// Writes the model as a Hugging Face style folder to the existing folder `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save_model(&self, folder: &Path) -> Result<()>;
}
