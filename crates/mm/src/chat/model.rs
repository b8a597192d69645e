//! The models that `mm chat` talks with, behind one interface.

use crate::model::ModelArgs;
use anyhow::{Context, Result, bail, ensure};
use mm_core::hf::HfFolder;
use mm_image::RgbImage;
use mm_text::generate::{self, GenerationConfig, Hypothesis, TextPieces};
use mm_text::{ChatMessage, ChatPart, ChatTemplate, LanguageModel, Tokenizer};
use mm_vqa::vlm::{ImageSplitting, VlmFolder, VlmInputs, VlmPipeline};
use serde::Serialize;
use std::ops::ControlFlow;

/// A model with its chat template, if it has one.
pub enum ChatModel {
    /// Reads images and texts.
    Vlm(Box<VlmPipeline>),
    /// Reads texts.
    Text(Box<LanguageModel>, Option<Box<ChatTemplate>>),
}

/// A prompt as the model reads it.
pub type Prompt = VlmInputs;

/// An answer.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The text, without special tokens.
    pub answer: String,
    /// The sum of the tokens' log-probabilities over their number to the power of `--length-penalty`.
    pub score: f32,
    /// Whether it ended by itself.
    pub finished: bool,
    /// Its tokens, the end token included.
    pub tokens: Vec<AnswerToken>,
}

/// A token of an answer.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerToken {
    /// As the vocabulary has it.
    pub token: String,
    /// Its probability, before rules and temperature.
    pub probability: f32,
}

/// The messages before the first prompt.
pub fn system(text: Option<&str>) -> Vec<ChatMessage> {
    text.map(|text| ChatMessage::text("system", text)).into_iter().collect()
}

impl ChatModel {
    /// Opens the model that `args` name.
    pub fn open(args: &ModelArgs, split_images: bool) -> Result<Self> {
        let name = args.name();
        if LanguageModel::is_language_model(&name) {
            ensure!(!split_images, "--split-images is for models that read images, and {name} reads texts");
            let model = args.open_language_model()?;
            let folder = HfFolder::open(&name)?.tokenizer_folder();
            let template = ChatTemplate::from_folder(&folder)?;
            if template.is_none() {
                tracing::warn!("the model has no chat template: it continues the prompt as it is");
            }
            return Ok(Self::Text(Box::new(model), template.map(Box::new)));
        }
        let is_vlm = VlmFolder::is_vlm(&name);
        let opened = args.open_vlm();
        let mut pipeline = if is_vlm {
            opened?
        } else {
            opened.context("mm chat takes vision-language models and text models of Llama's form")?
        };
        if split_images {
            pipeline.set_splitting(ImageSplitting::On);
        }
        if pipeline.template.is_none() {
            tracing::warn!(
                "the model has no chat template: its prompt is {} for each image, a line end and the prompt",
                pipeline.processor.image_token()
            );
        }
        Ok(Self::Vlm(Box::new(pipeline)))
    }

    /// The defaults of generation.
    pub fn defaults(&self) -> &GenerationConfig {
        match self {
            Self::Vlm(pipeline) => &pipeline.generation,
            Self::Text(model, _) => &model.generation,
        }
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        match self {
            Self::Vlm(pipeline) => pipeline.template.is_some(),
            Self::Text(_, template) => template.is_some(),
        }
    }

    /// The prompt of a conversation. Without a template, the text of its one message with the image tokens
    /// before it.
    pub fn prompt(&self, messages: &[ChatMessage], images: &[RgbImage]) -> Result<Prompt> {
        self.check_images(images)?;
        if !self.has_template() {
            let [message] = messages else {
                bail!("a system message needs a chat template, and the model has none: leave it out");
            };
            return self.untemplated(message, images);
        }
        match self {
            Self::Vlm(pipeline) => self.checked(pipeline.prompt(messages, images)?),
            Self::Text(model, template) => {
                let template = template.as_ref().context("the model has no chat template")?;
                let rendered = template.render(messages, true)?;
                self.checked(text_prompt(model.chat_prompt(&rendered, 0)?))
            }
        }
    }

    /// The prompt `text` as it is, with the model's image token for each image.
    pub fn plain_prompt(&self, text: &str, images: &[RgbImage]) -> Result<Prompt> {
        self.check_images(images)?;
        match self {
            Self::Vlm(pipeline) => self.checked(pipeline.prompt_text(text, images)?),
            Self::Text(model, _) => self.checked(text_prompt(model.prompt(text, 0)?)),
        }
    }

    /// `prompt`, if it leaves room for an answer.
    fn checked(&self, prompt: Prompt) -> Result<Prompt> {
        let (length, positions) = (prompt.input_ids.len(), self.positions());
        ensure!(
            length <= positions,
            "the prompt has {length} tokens, and the model {positions} positions: shorten it, or use fewer \
             images"
        );
        Ok(prompt)
    }

    /// The tokens that the model can read and write.
    fn positions(&self) -> usize {
        let positions = match self {
            Self::Vlm(pipeline) => pipeline.config.text.max_position_embeddings,
            Self::Text(model, _) => model.config.max_position_embeddings,
        };
        usize::try_from(positions).unwrap_or(0)
    }

    fn untemplated(&self, message: &ChatMessage, images: &[RgbImage]) -> Result<Prompt> {
        let mut text = String::new();
        for part in &message.content {
            match (part, self) {
                (ChatPart::Image, Self::Vlm(pipeline)) => text += pipeline.processor.image_token(),
                (ChatPart::Image, Self::Text(..)) => {}
                (ChatPart::Text(words), _) => {
                    text += if text.is_empty() { "" } else { "\n" };
                    text += words;
                }
            }
        }
        self.plain_prompt(&text, images)
    }

    fn check_images(&self, images: &[RgbImage]) -> Result<()> {
        let reads_images = matches!(self, Self::Vlm(_));
        let count = images.len();
        ensure!(reads_images || count == 0, "the model reads texts alone, and the prompt has {count} images");
        Ok(())
    }

    /// The one answer to a prompt; `on_piece` gets its text in pieces and says whether to go on.
    pub fn answer_stream(
        &self,
        prompt: &Prompt,
        config: &GenerationConfig,
        on_piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let config = self.within_context(prompt, config);
        let mut flow = |piece: &str| match on_piece(piece) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let hypothesis = match self {
            Self::Vlm(pipeline) => {
                let answer = pipeline.generate_stream(prompt, &config, &mut flow)?;
                let (score, finished) = (answer.score, answer.finished);
                Hypothesis { tokens: answer.tokens, log_probs: answer.log_probs, score, finished }
            }
            Self::Text(model, _) => stream_text(model, prompt, &config, &mut flow)?,
        };
        self.answer(&hypothesis)
    }

    /// The answers to each prompt, the best first. A prompt draws by its seed.
    pub fn answers(&self, prompts: &[(Prompt, u64)], config: &GenerationConfig) -> Result<Vec<Vec<Answer>>> {
        // A prompt near the end of the model's positions does not shorten the answers to others.
        let is_whole = |&at: &usize| self.within_context(&prompts[at].0, config) == *config;
        let (together, alone): (Vec<usize>, Vec<usize>) = (0..prompts.len()).partition(is_whole);
        let mut answers = vec![Vec::new(); prompts.len()];
        let batches = std::iter::once(together).chain(alone.into_iter().map(|at| vec![at]));
        for batch in batches.filter(|batch| !batch.is_empty()) {
            let config = self.within_context(&prompts[batch[0]].0, config);
            let texts = self.generate(batch.iter().map(|&at| &prompts[at]), &config)?;
            for (at, texts) in batch.into_iter().zip(texts) {
                answers[at] = texts.iter().map(|text| self.answer(text)).collect::<Result<_>>()?;
            }
        }
        Ok(answers)
    }

    fn generate<'a>(
        &self,
        prompts: impl Iterator<Item = &'a (Prompt, u64)>,
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let (inputs, seeded): (Vec<Prompt>, Vec<generate::Prompt>) = prompts
            .map(|(prompt, seed)| {
                (prompt.clone(), generate::Prompt { tokens: prompt.input_ids.clone(), seed: *seed })
            })
            .unzip();
        Ok(match self {
            Self::Vlm(pipeline) => {
                pipeline.model.generate(pipeline.features(&inputs)?, &seeded, config, &pipeline.eos)?
            }
            Self::Text(model, _) => model.generate(&seeded, config)?,
        })
    }

    /// `config` with answers that end, at the latest, where the positions of the model end.
    fn within_context(&self, prompt: &Prompt, config: &GenerationConfig) -> GenerationConfig {
        // The last new token needs no position.
        let most = (self.positions() + 1).saturating_sub(prompt.input_ids.len()).max(1);
        GenerationConfig { max_new_tokens: config.max_new_tokens.min(most), ..config.clone() }
    }

    fn answer(&self, hypothesis: &Hypothesis) -> Result<Answer> {
        let tokenizer = self.tokenizer();
        let tokens = hypothesis.tokens.iter().zip(&hypothesis.log_probs);
        let token = |(&id, log_prob): (&u32, &f32)| AnswerToken {
            token: tokenizer.token(id).unwrap_or_default(),
            probability: log_prob.exp(),
        };
        Ok(Answer {
            answer: tokenizer.decode(&hypothesis.tokens)?,
            score: hypothesis.score,
            finished: hypothesis.finished,
            tokens: tokens.map(token).collect(),
        })
    }

    fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Vlm(pipeline) => &pipeline.tokenizer,
            Self::Text(model, _) => &model.tokenizer,
        }
    }
}

fn text_prompt(prompt: generate::Prompt) -> Prompt {
    Prompt { input_ids: prompt.tokens, tiles: Vec::new() }
}

/// Generates the text of one prompt, in pieces.
fn stream_text(
    model: &LanguageModel,
    prompt: &Prompt,
    config: &GenerationConfig,
    on_piece: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Hypothesis> {
    let prompt = generate::Prompt { tokens: prompt.input_ids.clone(), seed: 0 };
    let mut pieces = TextPieces::new(&model.tokenizer, Vec::new());
    let (mut failed, mut is_stopped) = (None, false);
    let mut on_token = |token| {
        let flow = match pieces.push(token) {
            Ok(piece) => on_piece(&piece),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        is_stopped = flow.is_break();
        flow
    };
    let hypothesis = model.generate_stream(&prompt, config, &mut on_token)?;
    failed.map_or(Ok(()), Err)?;
    let text = model.decode(&hypothesis)?;
    if !is_stopped {
        let _ = on_piece(pieces.rest(&text)); // the last one
    }
    Ok(hypothesis)
}
