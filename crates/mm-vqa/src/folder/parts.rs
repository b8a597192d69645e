//! What stands beside the config and the weights of a model that answers questions.

use super::{ClassifierConfig, VqaConfig};
use crate::metrics::baselines::Baselines;
use crate::{Answers, Error, Result, VqaProcessor};
use mm_core::hf::{CONFIG_FILE, HfFolder, PROCESSOR_CONFIG_FILE};
use mm_core::{read_json, write_json};
use mm_text::Tokenizer;
use mm_text::decoder::TextDecoderConfig;
use mm_text::generate::GenerationConfig;
use mm_vision::{ImageProcessor, ImageTowerSpec, ViltProcessor};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A file of this project beside a BLIP: the list of answers that it ranks, an array of texts.
const ANSWERS_FILE: &str = "answers.json";

/// A file of this project: the answers that are right without looking.
const BASELINES_FILE: &str = "answer_baselines.json";

/// The tensors that transformers' tokenizer makes.
const INPUTS: [&str; 2] = ["input_ids", "attention_mask"];

/// What a model needs beside its config and its weights.
#[derive(Clone, Debug)]
pub struct VqaParts {
    /// From questions to tokens, and from tokens to answers. Questions longer than the model's positions are
    /// cut and counted: [`Tokenizer::over_long`].
    pub tokenizer: Arc<Tokenizer>,
    /// From images to pixels.
    pub processor: VqaProcessor,
    /// The answers: the classes of a classifier, or the list that a decoder ranks; none where a decoder has
    /// no list.
    pub answers: Option<Arc<Answers>>,
    /// The defaults of generation, which a classifier does not use.
    pub generation: GenerationConfig,
    /// The answers that are right without looking at the image, of the set that the model was trained on;
    /// none for checkpoints of others.
    pub baselines: Option<Arc<Baselines>>,
}

impl VqaParts {
    /// Reads the parts of the model in `folder`, whose `config.json` is `json`.
    pub(super) fn open(folder: &HfFolder, config: &VqaConfig, json: &Value) -> Result<Self> {
        let baselines = if folder.has(BASELINES_FILE) {
            Some(Arc::new(read_json(&folder.file(BASELINES_FILE))?))
        } else {
            None
        };
        match config {
            VqaConfig::CoAttention(ClassifierConfig { model, answers, .. }) => {
                let path = folder.tokenizer_folder();
                let tokenizer = Tokenizer::from_dir(&path)?;
                model.question.check_tokenizer(&tokenizer)?;
                let class = model.image.processor_class();
                let (_, processor) = ImageProcessor::from_folder(&folder.processor_folder(), class)?;
                Ok(Self {
                    tokenizer: Arc::new(tokenizer),
                    processor: VqaProcessor::Fixed(processor),
                    answers: Some(Arc::new(Answers::new(answers.clone())?)),
                    generation: GenerationConfig::default(),
                    baselines,
                })
            }
            VqaConfig::Blip(blip) => {
                let decoder = TextDecoderConfig::Bert(blip.text.clone());
                let tokenizer = blip.tokens.open_tokenizer(folder, &decoder)?;
                let (file, processor) =
                    ImageProcessor::from_folder(&folder.processor_folder(), blip.image.processor_class())?;
                let (size, (width, height)) = (blip.image.image_size as u32, processor.output_size());
                if (width, height) != (size, size) {
                    let problem = format!(
                        "images become {width} x {height} pixels, but the tower takes {size} x {size}"
                    );
                    return Err(Error::Folder { path: file, problem });
                }
                let answers = if folder.has(ANSWERS_FILE) {
                    Some(Arc::new(Answers::new(read_json(&folder.file(ANSWERS_FILE))?)?))
                } else {
                    None
                };
                Ok(Self {
                    tokenizer: Arc::new(tokenizer.within(blip.max_question_length())?),
                    processor: VqaProcessor::Fixed(processor),
                    answers,
                    generation: GenerationConfig::from_folder(folder, json, 1)?,
                    baselines,
                })
            }
            VqaConfig::Vilt(vilt) => {
                let path = folder.tokenizer_folder();
                let tokenizer = Tokenizer::from_dir(&path)?.within(vilt.max_question_length())?;
                let (ids, rows) = (tokenizer.vocab_size(), vilt.vocab_size);
                if ids as i64 > rows {
                    let problem =
                        format!("the vocabulary has {ids} tokens, the model's embedding {rows} rows");
                    return Err(Error::Folder { path, problem });
                }
                let (file, processor) = ViltProcessor::from_folder(&folder.processor_folder())?;
                let divisor = processor.size_divisor();
                if i64::from(divisor) % vilt.patch_size != 0 {
                    let problem = format!(
                        "size_divisor is {divisor}: it must be a multiple of patch_size, {} in {CONFIG_FILE}",
                        vilt.patch_size
                    );
                    return Err(Error::Folder { path: file, problem });
                }
                Ok(Self {
                    tokenizer: Arc::new(tokenizer),
                    processor: VqaProcessor::Padded(processor),
                    answers: Some(Arc::new(Answers::new(vilt.answers.clone())?)),
                    generation: GenerationConfig::default(),
                    baselines,
                })
            }
        }
    }

    /// Writes the parts of a model of `config` to the existing `folder`.
    pub(super) fn save(&self, config: &VqaConfig, folder: &Path) -> Result<()> {
        write_json(&folder.join(PROCESSOR_CONFIG_FILE), &self.processor.to_json()?)?;
        self.tokenizer.save(folder, &INPUTS)?;
        if let Some(baselines) = &self.baselines {
            write_json(&folder.join(BASELINES_FILE), &json!(**baselines))?;
        }
        if let VqaConfig::Blip(blip) = config {
            blip.tokens.write_generation(&self.generation, folder)?;
            if let Some(answers) = &self.answers {
                write_json(&folder.join(ANSWERS_FILE), &json!(answers.all()))?;
            }
        }
        Ok(())
    }
}
