//! A model with its preprocessing, tokenizer and answers: opened from a folder, used for answers, saved.

use crate::folder::{BASELINES_FILE, Description, VqaFolder};
use crate::metrics::baselines::Baselines;
use crate::{Answers, LossKind, QuestionBatch, Result, VqaModel};
use mm_core::checkpoint::StoredType;
use mm_core::{OpenOptions, upload};
use mm_image::RgbImage;
use mm_text::{Padding, Tokenizer};
use mm_vision::ImageProcessor;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A model with its preprocessing, tokenizer and answers.
#[derive(Debug)]
pub struct VqaPipeline {
    /// From images and questions to scores of answers.
    pub model: VqaModel,
    /// What its config holds.
    pub description: Description,
    /// From texts to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// From images to `pixel_values`.
    pub processor: ImageProcessor,
    /// The answers that are right without looking at the image, of the set that it was trained on; none for
    /// checkpoints of others.
    pub baselines: Option<Baselines>,
    /// The device of the model.
    pub device: Device,
}

/// An answer with its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The answer.
    pub answer: String,
    /// Its probability: that of the answer by itself where the classifier is trained with `loss.kind =
    /// "bce"`, otherwise the share among all answers.
    pub probability: f32,
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
        Ok(Self {
            model: folder.build(vs)?,
            description: folder.description.clone(),
            tokenizer: Arc::new(folder.tokenizer()?),
            processor: folder.processor()?,
            baselines: folder.baselines()?,
            device: vs.device(),
        })
    }

    /// The answers that can be given.
    pub fn answers(&self) -> &Answers {
        &self.description.answers
    }

    /// What the model reads of images of any size: see [`VqaModel::encode_images`].
    ///
    /// # Errors
    /// An image has no pixels.
    pub fn encode(&self, images: &[RgbImage]) -> Result<Tensor> {
        Ok(self.encode_pixels(&self.processor.process_batch(images)?))
    }

    /// As [`VqaPipeline::encode`], of images already resized by the processor.
    ///
    /// # Errors
    /// The images differ in size.
    pub fn encode_resized(&self, images: &[RgbImage]) -> Result<Tensor> {
        Ok(self.encode_pixels(&self.processor.normalize_batch(images)?))
    }

    /// What the model reads of one image of the mean color, in the place of an image that it must not see.
    ///
    /// # Errors
    /// Never in practice: the image has the processor's size.
    pub fn encode_blank(&self) -> Result<Tensor> {
        let (width, height) = self.processor.output_size();
        let blank = Tensor::zeros([1, 3, i64::from(height), i64::from(width)], (Kind::Float, Device::Cpu));
        Ok(self.encode_pixels(&blank))
    }

    fn encode_pixels(&self, pixel_values: &Tensor) -> Tensor {
        let pixel_values = upload(pixel_values, self.device);
        mm_sys::inference_mode(|| self.model.encode_images(&pixel_values, false))
    }

    /// The questions as tokens; `image_index` has the image of each.
    ///
    /// # Errors
    /// The tokenizer does not cover a question.
    pub fn questions(&self, questions: &[&str], image_index: &[i64]) -> Result<QuestionBatch> {
        let rows = self.tokenizer.encode_all(questions)?;
        Ok(self.collate(&rows, image_index))
    }

    /// A batch of encoded questions, on the model's device.
    pub(crate) fn collate(&self, rows: &[Vec<u32>], image_index: &[i64]) -> QuestionBatch {
        let tokens = self.tokenizer.collate(rows, Padding::Longest);
        QuestionBatch { tokens, image_index: Tensor::from_slice(image_index) }.to_device(self.device)
    }

    /// The up to `top` most probable answers of each question, the best first, for the images `states` of
    /// [`VqaPipeline::encode`].
    ///
    /// # Errors
    /// libtorch refuses an operation.
    pub fn answer(&self, states: &Tensor, questions: &QuestionBatch, top: usize) -> Result<Vec<Vec<Answer>>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let top = top.min(self.answers().len()) as i64;
        let (values, indices) = mm_sys::inference_mode(|| {
            self.probabilities(&self.model.logits(states, questions)).topk(top, -1, true, true)
        });
        let values = Vec::<f32>::try_from(values.contiguous().view(-1))?;
        let indices = Vec::<i64>::try_from(indices.contiguous().view(-1))?;
        let all = self.answers().all();
        let answers = indices.iter().zip(values);
        let answers =
            answers.map(|(&index, probability)| Answer { answer: all[index as usize].clone(), probability });
        let answers: Vec<Answer> = answers.collect();
        Ok(answers.chunks(top as usize).map(<[Answer]>::to_vec).collect())
    }

    /// The probabilities of all answers `[Q, classes]`, f32, from their logits.
    pub fn probabilities(&self, logits: &Tensor) -> Tensor {
        let logits = logits.to_kind(Kind::Float);
        match self.description.scores {
            LossKind::Bce => logits.sigmoid(),
            LossKind::Softmax => logits.softmax(-1, Kind::Float),
        }
    }

    /// Writes the model, with its `variables` by name, to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path, dtype: StoredType) -> Result<()> {
        self.description.save(variables, &self.tokenizer, &self.processor, folder, dtype)?;
        self.save_baselines(folder)
    }

    /// Writes what a checkpoint needs beside its weights to open as a model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_description(&self, folder: &Path) -> Result<()> {
        self.description.save_config(&self.tokenizer, &self.processor, folder, StoredType::F32)?;
        self.save_baselines(folder)
    }

    fn save_baselines(&self, folder: &Path) -> Result<()> {
        if let Some(baselines) = &self.baselines {
            mm_core::write_json(&folder.join(BASELINES_FILE), &serde_json::json!(baselines))?;
        }
        Ok(())
    }
}
