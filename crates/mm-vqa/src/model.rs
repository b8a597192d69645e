//! The models, behind one type.

use crate::co_attention::{CoAttention, CoAttentionConfig};
use crate::{QuestionBatch, Result};
use mm_core::Precision;
use mm_core::nn::TowerSpec;
use serde::Serialize;
use tch::Tensor;
use tch::nn::Path;

/// The config of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VqaModelConfig {
    /// An image tower, a question encoder and a fusion of both, with a classifier of answers.
    CoAttention(CoAttentionConfig),
}

/// A model that answers questions about images.
#[derive(Debug)]
pub enum VqaModel {
    /// A co-attention classifier.
    CoAttention(CoAttention),
}

impl VqaModelConfig {
    /// The path of the image tower's parameters.
    pub fn image_root(&self) -> &'static str {
        match self {
            Self::CoAttention(config) => config.image.root(),
        }
    }

    /// The number of layer groups between a parameter and the output of its tower; 0 for those that are in no
    /// tower.
    pub fn depth(&self, name: &str) -> usize {
        self.tower(name).map_or(0, |(tower, name)| (tower.blocks() + 1).saturating_sub(tower.depth(name)))
    }

    /// Whether weight decay applies to a parameter of two dimensions or more.
    pub fn has_weight_decay(&self, name: &str) -> bool {
        self.tower(name).is_none_or(|(tower, name)| tower.has_weight_decay(name))
    }

    /// The tower that has the parameter `name`, and its name in the tower.
    fn tower<'a>(&'a self, name: &'a str) -> Option<(&'a dyn TowerSpec, &'a str)> {
        let below = |root: &str| name.strip_prefix(root)?.strip_prefix('.');
        match self {
            Self::CoAttention(config) => {
                let image = below(config.image.root()).map(|name| (&*config.image as &dyn TowerSpec, name));
                image.or_else(|| below("question").map(|name| (&*config.question as &dyn TowerSpec, name)))
            }
        }
    }

    /// Whether training recomputes the activations of blocks in the backward pass.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        match self {
            Self::CoAttention(config) => config.set_gradient_checkpointing(on),
        }
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::CoAttention(config) => config.describe(),
        }
    }
}

impl VqaModel {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// The config is out of range.
    pub fn new(path: &Path, config: &VqaModelConfig) -> Result<Self> {
        Ok(match config {
            VqaModelConfig::CoAttention(config) => Self::CoAttention(CoAttention::new(path, config)?),
        })
    }

    /// What the model reads of `pixel_values` `[G, 3, H, W]`, computed once an image for all its questions.
    /// `train` is the training mode of the image tower.
    pub fn encode_images(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.connect(&self.tower_outputs(pixel_values, train))
    }

    /// The outputs of the image tower that [`VqaModel::connect`] takes.
    pub fn tower_outputs(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        match self {
            Self::CoAttention(model) => model.tower_tokens(pixel_values, train),
        }
    }

    /// Maps outputs of the image tower to what questions are asked about.
    pub fn connect(&self, outputs: &Tensor) -> Tensor {
        match self {
            Self::CoAttention(model) => model.head().project(outputs),
        }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        match self {
            Self::CoAttention(model) => model.set_training(on),
        }
    }

    /// The scores of all answers `[Q, classes]`, before the sigmoid or softmax, to `questions` about the
    /// images `states` of [`VqaModel::encode_images`].
    pub fn logits(&self, states: &Tensor, questions: &QuestionBatch) -> Tensor {
        match self {
            Self::CoAttention(model) => model.forward(
                states,
                &questions.image_index,
                &questions.tokens.input_ids,
                &questions.lengths(),
            ),
        }
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::CoAttention(model) => model.pack(precision),
        }
    }
}
