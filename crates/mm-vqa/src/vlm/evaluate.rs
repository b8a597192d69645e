//! Evaluation: the probability of a set's answers, and the model's own, measured against the given ones.

use super::batch::{Batching, VlmItem, blank_tile};
use super::conversation::{Choice, Reference};
use super::packing::ChatRows;
use super::run_config::VlmRunConfig;
use super::turns::ChatTokens;
use super::{VlmAnswer, VlmPipeline, report, sections};
use crate::Result;
use mm_core::loss::IGNORED_LABEL;
use mm_core::upload;
use mm_data::{Fault, Item, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_text::decoder::TextDecoder;
use mm_text::generate::{GenerationConfig, Prompt};
use mm_train::{EvalContext, EvalSet, Evaluation, gather};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Kind, Reduction, Tensor};

/// A conversation with what its last answer is compared with.
struct EvalItem {
    item: VlmItem,
    key: String,
    prompt: String,
    answer: String,
    reference: Reference,
}

impl Item for EvalItem {
    fn bytes(&self) -> usize {
        self.item.bytes() + self.prompt.len() + self.answer.len()
    }
}

/// The model's answer to the last message of a conversation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EvalAnswer {
    /// The number of its sample in the set.
    pub index: usize,
    /// The key of its sample.
    pub key: String,
    /// What the user says last.
    pub prompt: String,
    /// The answer in the set.
    pub right: String,
    /// What the answer is compared with.
    pub reference: Reference,
    /// The negative logarithm of the probability of all answers of the conversation.
    pub loss: f64,
    /// The number of their tokens.
    pub tokens: usize,
    /// The model's answer.
    pub answer: String,
    /// Whether it ended by itself.
    pub finished: bool,
    /// The answer about a blank image.
    pub blind_answer: Option<String>,
}

/// Measures `pipeline` on `set`. Of a sample with several questions one is asked, which its key alone
/// decides. The loss is that of the first answer, or of the canonical caption.
///
/// # Errors
/// The set cannot be read, answers cannot be generated, or another process is lost.
pub(crate) fn evaluate(
    pipeline: &VlmPipeline,
    config: &VlmRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let generation = config.generate.as_ref().unwrap_or(&pipeline.generation);
    let batching = Batching::new(config, pipeline)?;
    let answerer = Answerer { pipeline, generation, blank: blank_features(pipeline, config)? };
    let mut own = Vec::new();
    let map = preprocess(&batching, pipeline, generation, set);
    let read = set.for_each_batch(context, map, |items, indices| {
        own.extend(answerer.answer(items, &indices)?);
        Ok(())
    })?;
    let mut answers = gather(context.group, &own)?;
    answers.sort_by_key(|answer| answer.index);
    let mut evaluation = report::measure(&set.name, &answers, config.metrics.protocol)?;
    if context.wants_sections {
        evaluation.sections = sections::draw(set, &answers)?;
    }
    Ok(Evaluation { bad_samples: read.bad.len(), credit: set.credit().to_owned(), ..evaluation })
}

fn preprocess(
    batching: &Batching,
    pipeline: &VlmPipeline,
    generation: &GenerationConfig,
    set: &EvalSet,
) -> Map<EvalItem> {
    let (batching, background) = (batching.clone(), set.background);
    let (limit, new) = (pipeline.model.decoder().sizes().max_length as usize, generation.max_new_tokens);
    Arc::new(move |sample: &Sample, _: &mut SampleRng| {
        let conversation = batching.conversations.of(sample, |choice, count| match choice {
            Choice::Question => (number_of(&sample.key) % count as u64) as usize,
            Choice::Answer | Choice::Caption => 0,
        })?;
        let images = batching.tiles(conversation.images(sample)?, background)?;
        let tokens = batching.tokens(&conversation.messages, &images)?;
        // The last new token needs no position.
        if tokens.prompt_length + new > limit + 1 {
            let length = tokens.prompt_length;
            let problem = format!(
                "a prompt of {length} tokens and max_new_tokens of {new} exceed the {limit} positions of the \
                 decoder"
            );
            return Err(mm_data::Error::bad(Fault::Other, problem));
        }
        Ok(EvalItem {
            item: VlmItem { tokens, tiles: images.into_iter().flat_map(|image| image.tiles).collect() },
            key: sample.key.clone(),
            prompt: conversation.prompt(),
            answer: conversation.answer(),
            reference: conversation.reference,
        })
    })
}

/// A number of a sample that depends on its key alone (FNV-1a).
fn number_of(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The vectors of a blank tile, `[1, tokens, D]`, where questions are also asked about it.
fn blank_features(pipeline: &VlmPipeline, config: &VlmRunConfig) -> Result<Option<Tensor>> {
    if !config.metrics.blind {
        return Ok(None);
    }
    let pixels = pipeline.processor.normalize_batch(&[blank_tile(&pipeline.processor)])?;
    Ok(Some(pipeline.model.encode_images(&upload(&pixels, pipeline.device))))
}

/// What conversations are answered with.
struct Answerer<'a> {
    pipeline: &'a VlmPipeline,
    generation: &'a GenerationConfig,
    /// `[1, tokens, D]`.
    blank: Option<Tensor>,
}

impl Answerer<'_> {
    fn answer(&self, items: Vec<EvalItem>, indices: &[usize]) -> Result<Vec<EvalAnswer>> {
        let (mut texts, mut tiles, mut tile_counts, mut asked) = (vec![], vec![], vec![], vec![]);
        for EvalItem { item, key, prompt, answer, reference } in items {
            tile_counts.push(item.tiles.len());
            tiles.extend(item.tiles);
            texts.push(item.tokens);
            asked.push((key, prompt, answer, reference));
        }
        let features = self.features(&tiles)?;
        let losses = self.losses(&texts, features.as_ref())?;
        let answers = self.generate(&texts.iter().collect::<Vec<_>>(), features)?;
        let is_question = |place: &usize| matches!(asked[*place].3, Reference::Question(_));
        let questions: Vec<usize> = (0..asked.len()).filter(is_question).collect();
        let mut blind: Vec<Option<String>> = vec![None; asked.len()];
        if let (Some(blank), false) = (&self.blank, questions.is_empty()) {
            let tiles: usize = questions.iter().map(|&place| tile_counts[place]).sum();
            let features = (tiles > 0).then(|| blank.expand([tiles as i64, -1, -1], false).contiguous());
            let prompts: Vec<&ChatTokens> = questions.iter().map(|&place| &texts[place]).collect();
            for (place, answer) in questions.into_iter().zip(self.generate(&prompts, features)?) {
                blind[place] = Some(answer.text);
            }
        }
        let rows = asked.into_iter().zip(indices).zip(losses).zip(answers).zip(blind);
        let rows = rows.map(|(((((key, prompt, right, reference), &index), loss), answer), blind_answer)| {
            let (loss, tokens) = loss;
            let VlmAnswer { text: answer, finished, .. } = answer;
            EvalAnswer { index, key, prompt, right, reference, loss, tokens, answer, finished, blind_answer }
        });
        Ok(rows.collect())
    }

    /// The vectors of all tiles; none without any.
    fn features(&self, tiles: &[RgbImage]) -> Result<Option<Tensor>> {
        if tiles.is_empty() {
            return Ok(None);
        }
        let pixels = upload(&self.pipeline.processor.normalize_batch(tiles)?, self.pipeline.device);
        Ok(Some(self.pipeline.model.encode_images(&pixels)))
    }

    /// The sum of the cross-entropy of each text's labels, and their number.
    fn losses(&self, texts: &[ChatTokens], features: Option<&Tensor>) -> Result<Vec<(f64, usize)>> {
        let rows: Vec<Vec<usize>> = (0..texts.len()).map(|text| vec![text]).collect();
        let rows = ChatRows::new(texts, &rows, self.pipeline.device);
        let losses = mm_sys::inference_mode(|| -> Result<Vec<f32>> {
            let logits = rows.logits(&self.pipeline.model, features)?.to_kind(Kind::Float);
            let none = None::<Tensor>;
            let losses =
                logits.cross_entropy_loss(&rows.next.labels, none, Reduction::None, IGNORED_LABEL, 0.0);
            Ok(Vec::try_from(losses)?)
        })?;
        let mut losses = losses.into_iter();
        let of_text = |&count: &usize| (losses.by_ref().take(count).map(f64::from).sum(), count);
        Ok(rows.next.lengths.iter().map(of_text).collect())
    }

    /// The best answer to the prompt of each text.
    fn generate(&self, texts: &[&ChatTokens], features: Option<Tensor>) -> Result<Vec<VlmAnswer>> {
        let prompts = texts.iter().zip(0..);
        let prompts: Vec<Prompt> = prompts
            .map(|(text, seed)| Prompt { tokens: text.token_ids[..text.prompt_length].to_vec(), seed })
            .collect();
        // Answers before the last one have no image, so that all images are in the prompts.
        let found = self.pipeline.model.generate(features, &prompts, self.generation, &self.pipeline.eos)?;
        let best = |texts: Vec<_>| match texts.into_iter().next() {
            Some(hypothesis) => self.pipeline.answer(hypothesis),
            None => Ok(VlmAnswer::default()),
        };
        found.into_iter().map(best).collect()
    }
}
