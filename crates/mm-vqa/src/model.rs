//! The models, behind one type.

use crate::blip::BlipVqa;
use crate::co_attention::CoAttention;
use crate::folder::VqaConfig;
use crate::vilt::Vilt;
use crate::{Error, ImageBatch, QuestionBatch, Result};
use mm_core::Precision;
use mm_core::nn::TowerSpec;
use mm_vision::PaddedImages;
use tch::Tensor;
use tch::nn::Path;

/// A model that answers questions about images.
#[derive(Debug)]
pub enum VqaModel {
    /// A co-attention classifier.
    CoAttention(Box<CoAttention>),
    /// transformers' `BlipForQuestionAnswering`, which generates answers or ranks a list of them.
    Blip(Box<BlipVqa>),
    /// transformers' `ViltForQuestionAnswering`, a classifier.
    Vilt(Box<Vilt>),
}

/// What questions are asked about: images as far as they are read without a question.
#[derive(Debug)]
pub enum ImageStates {
    /// The tokens of an image tower, `[G, N, D]`.
    Tokens(Tensor),
    /// The images themselves, for a model that reads them with the question.
    Images(PaddedImages),
}

impl ImageStates {
    /// The number of images.
    pub fn len(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.size()[0] as usize,
            Self::Images(images) => images.sizes.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl VqaModel {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// The config is out of range.
    pub fn new(path: &Path, config: &VqaConfig) -> Result<Self> {
        Ok(match config {
            VqaConfig::CoAttention(config) => {
                Self::CoAttention(Box::new(CoAttention::new(path, &config.model)?))
            }
            VqaConfig::Blip(config) => Self::Blip(Box::new(BlipVqa::new(path, config)?)),
            VqaConfig::Vilt(config) => Self::Vilt(Box::new(Vilt::new(path, config)?)),
        })
    }

    /// Reads images once for all their questions. `train` is the training mode of the image tower.
    ///
    /// # Errors
    /// The images are prepared for another model.
    pub fn encode_images(&self, images: &ImageBatch, train: bool) -> Result<ImageStates> {
        Ok(self.connect(self.tower_outputs(images, train)?))
    }

    /// The outputs of the image tower, which [`VqaModel::connect`] takes.
    ///
    /// # Errors
    /// The images are prepared for another model.
    pub fn tower_outputs(&self, images: &ImageBatch, train: bool) -> Result<ImageStates> {
        match (self, images) {
            (Self::CoAttention(model), ImageBatch::Fixed(pixels)) => {
                Ok(ImageStates::Tokens(model.tower_tokens(pixels, train)))
            }
            (Self::Blip(model), ImageBatch::Fixed(pixels)) => {
                Ok(ImageStates::Tokens(model.encode_images(pixels)))
            }
            (Self::Vilt(_), ImageBatch::Padded(images)) => Ok(ImageStates::Images(PaddedImages {
                pixel_values: images.pixel_values.shallow_clone(),
                sizes: images.sizes.clone(),
            })),
            _ => Err(Error::Model("the images are prepared for another family of models".to_owned())),
        }
    }

    /// Maps outputs of the image tower to what questions are asked about.
    pub fn connect(&self, outputs: ImageStates) -> ImageStates {
        match (self, outputs) {
            (Self::CoAttention(model), ImageStates::Tokens(tokens)) => {
                ImageStates::Tokens(model.head().project(&tokens))
            }
            (_, outputs) => outputs,
        }
    }

    /// The scores of all answers `[Q, classes]`, before the sigmoid or softmax, that a classifier gives to
    /// `questions` about the images of `states`.
    ///
    /// # Errors
    /// The model is no classifier, or the states or questions do not fit it.
    pub fn logits(&self, states: &ImageStates, questions: &QuestionBatch) -> Result<Tensor> {
        match (self, states) {
            (Self::CoAttention(model), ImageStates::Tokens(tokens)) => {
                let (index, ids) = (questions.image_index_on(tokens.device()), &questions.tokens.input_ids);
                Ok(model.forward(tokens, &index, ids, &questions.lengths()))
            }
            (Self::Vilt(model), ImageStates::Images(images)) => {
                model.forward(&by_question(images, questions), &questions.tokens)
            }
            _ => Err(Error::Model("the model is no classifier of answers".to_owned())),
        }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        if let Self::CoAttention(model) = self {
            model.set_training(on);
        }
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::CoAttention(model) => model.pack(precision),
            Self::Blip(model) => model.pack(precision),
            Self::Vilt(model) => model.pack(precision),
        }
    }
}

/// The image of each question.
pub(crate) fn by_question(images: &PaddedImages, questions: &QuestionBatch) -> PaddedImages {
    let index = questions.image_index_on(images.pixel_values.device());
    PaddedImages {
        pixel_values: images.pixel_values.index_select(0, &index),
        sizes: questions.image_index.iter().map(|&image| images.sizes[image as usize]).collect(),
    }
}

impl VqaConfig {
    /// The path of the image tower's parameters; none where image and question are read by one transformer.
    pub fn image_root(&self) -> Option<&'static str> {
        match self {
            Self::CoAttention(config) => Some(config.model.image.root()),
            Self::Blip(_) => Some("vision_model"),
            Self::Vilt(_) => None,
        }
    }

    /// The number of layer groups between a parameter and the output of its tower; 0 for those that are in no
    /// tower.
    pub fn depth(&self, name: &str) -> usize {
        let below = |root: &str| name.strip_prefix(root)?.strip_prefix('.');
        let behind =
            |tower: &dyn TowerSpec, name: &str| (tower.blocks() + 1).saturating_sub(tower.depth(name));
        match self {
            Self::CoAttention(config) => {
                let (image, question) = (&config.model.image, &config.model.question);
                match (below(image.root()), below("question")) {
                    (Some(name), _) => behind(&**image, name),
                    (_, Some(name)) => behind(&**question, name),
                    (None, None) => 0,
                }
            }
            Self::Blip(config) => match (below("vision_model"), below("text_encoder"), below("text_decoder"))
            {
                (Some(name), ..) => behind(&config.image, name),
                (_, Some(name), _) => behind(&config.text, &format!("bert.{name}")),
                (.., Some(name)) => behind(&config.text, name),
                _ => 0,
            },
            Self::Vilt(_) => 0,
        }
    }

    /// Whether weight decay applies to a parameter of two dimensions or more.
    pub fn has_weight_decay(&self, name: &str) -> bool {
        match self {
            Self::CoAttention(config) => {
                let (image, question) = (&config.model.image, &config.model.question);
                let below = |root: &str| name.strip_prefix(root)?.strip_prefix('.');
                match (below(image.root()), below("question")) {
                    (Some(name), _) => image.has_weight_decay(name),
                    (_, Some(name)) => question.has_weight_decay(name),
                    (None, None) => name != "image_positions.weight",
                }
            }
            Self::Blip(config) => config.has_weight_decay(name),
            Self::Vilt(config) => config.has_weight_decay(name),
        }
    }

    /// Whether training recomputes the activations of blocks in the backward pass.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        match self {
            Self::CoAttention(config) => config.model.set_gradient_checkpointing(on),
            Self::Blip(config) => config.set_gradient_checkpointing(on),
            Self::Vilt(config) => config.gradient_checkpointing = on,
        }
    }
}
