//! A model with its preprocessing, tokenizer and answers: opened from a folder, used for answers, saved.

use crate::folder::{VqaConfig, VqaFolder, VqaParts};
use crate::questions::{QuestionTokenizer, QuestionTokens};
use crate::{Error, ImageBatch, ImageStates, LossKind, QuestionBatch, Result, VqaModel};
use mm_core::OpenOptions;
use mm_core::checkpoint::StoredType;
use mm_image::RgbImage;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A model with its preprocessing, tokenizer and answers.
#[derive(Debug)]
pub struct VqaPipeline {
    /// From images and questions to answers.
    pub model: VqaModel,
    /// The config of the model.
    pub config: VqaConfig,
    /// Tokenizer, preprocessing, answers, defaults of generation.
    pub parts: VqaParts,
    /// The device of the model.
    pub device: Device,
}

impl VqaPipeline {
    /// Opens the model in a folder or of a hub name for inference.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not supported, or config, weights and tokenizer do
    /// not match.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let mut pipeline = Self::load(&VqaFolder::open(model)?, &vs)?;
        options.warn_if_slow(&vs);
        // Otherwise all weights would be in memory twice: packing a layer frees its own.
        drop(vs);
        pipeline.model.pack(options.precision);
        Ok(pipeline)
    }

    /// Builds the model of `folder` on `vs` and fills it.
    ///
    /// # Errors
    /// As [`VqaPipeline::open`].
    pub fn load(folder: &VqaFolder, vs: &VarStore) -> Result<Self> {
        let model = folder.build(vs, |path| VqaModel::new(path, &folder.config))?;
        Self::with_model(model, folder, vs)
    }

    /// As [`VqaPipeline::load`], with new weights for the answers of a ViLT.
    ///
    /// # Errors
    /// As [`VqaPipeline::open`].
    pub(crate) fn load_with_new_classifier(folder: &mut VqaFolder, vs: &VarStore) -> Result<Self> {
        let config = folder.config.clone();
        let model = folder.build_with_new_classifier(vs, |path| VqaModel::new(path, &config))?;
        Self::with_model(model, folder, vs)
    }

    fn with_model(model: VqaModel, folder: &VqaFolder, vs: &VarStore) -> Result<Self> {
        Ok(Self { model, config: folder.config.clone(), parts: folder.parts()?, device: vs.device() })
    }

    /// What questions are asked about, of images of any size.
    ///
    /// # Errors
    /// An image has no pixels.
    pub fn encode(&self, images: &[RgbImage]) -> Result<ImageStates> {
        let resized = images.iter().map(|image| self.parts.processor.resize(image));
        self.encode_resized(&resized.collect::<Result<Vec<_>>>()?)
    }

    /// As [`VqaPipeline::encode`], of images already resized by the processor.
    ///
    /// # Errors
    /// The images differ in size where they must not.
    pub fn encode_resized(&self, images: &[RgbImage]) -> Result<ImageStates> {
        self.encode_batch(&self.parts.processor.normalize_batch(images)?)
    }

    /// As [`VqaPipeline::encode`], of one image of the mean color, in the place of an image that the model
    /// must not see.
    ///
    /// # Errors
    /// Never in practice: the image is made for the model.
    pub fn encode_blank(&self) -> Result<ImageStates> {
        self.encode_batch(&self.parts.processor.blank())
    }

    fn encode_batch(&self, images: &ImageBatch) -> Result<ImageStates> {
        let images = images.to_device(self.device);
        mm_sys::inference_mode(|| self.model.encode_images(&images, false))
    }

    /// The questions as tokens; `image_index` has the image of each, ascending.
    ///
    /// # Errors
    /// The tokenizer does not cover a question.
    pub fn questions(&self, questions: &[&str], image_index: Vec<i64>) -> Result<QuestionBatch> {
        let tokenizer = self.question_tokenizer();
        let rows = questions.iter().map(|question| Ok(tokenizer.encode(question)?));
        let rows: Vec<QuestionTokens> = rows.collect::<Result<_>>()?;
        let rows: Vec<Vec<u32>> = rows.into_iter().map(|tokens| tokens.ids).collect();
        Ok(tokenizer.collate(&rows, image_index, self.device))
    }

    pub(crate) fn question_tokenizer(&self) -> QuestionTokenizer {
        QuestionTokenizer::new(&self.parts.tokenizer, &self.config)
    }

    /// The probabilities of all answers `[Q, classes]`, f32, from a classifier's logits: the sigmoid, where
    /// each answer is trained by itself, or the softmax.
    ///
    /// # Errors
    /// The model is no classifier.
    pub fn probabilities(&self, logits: &Tensor) -> Result<Tensor> {
        let logits = logits.to_kind(Kind::Float);
        match &self.config {
            VqaConfig::CoAttention(config) => Ok(match config.scores {
                LossKind::Bce => logits.sigmoid(),
                LossKind::Softmax => logits.softmax(-1, Kind::Float),
            }),
            VqaConfig::Vilt(_) => Ok(logits.sigmoid()),
            VqaConfig::Blip(_) => Err(Error::Model("a BLIP is no classifier of answers".to_owned())),
        }
    }

    /// Writes the model, with its `variables` by name, to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path, dtype: StoredType) -> Result<()> {
        self.config.save(variables, &self.parts, folder, dtype)
    }

    /// Writes what a checkpoint needs beside its weights to open as a model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_description(&self, folder: &Path) -> Result<()> {
        self.config.save_config(&self.parts, folder, StoredType::F32)
    }
}
