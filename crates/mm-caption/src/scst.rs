//! Self-critical sequence training (Rennie et al. 2017): the gradient of the expected reward of captions that
//! the model draws itself.

use crate::batch::RewardTarget;
use crate::metrics::chair::CocoObjects;
use crate::metrics::scenes::faithfulness;
use crate::metrics::{Cider, CiderForm, DocumentFrequencies, ptb};
use crate::run_config::{Baseline, References, ScstConfig};
use crate::task::references;
use crate::{CaptionPipeline, Error, Result};
use mm_data::Sample;
use mm_dist::ProcessGroup;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_train::{Loss, TaskContext};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Self-critical training with its rewards.
pub(crate) struct Scst {
    config: ScstConfig,
    cider: Arc<Cider>,
}

/// The rewards of a caption.
#[derive(Clone, Copy, Default)]
struct Reward {
    cider_d: f64,
    scene: f64,
    chair: f64,
}

impl Scst {
    /// Counts the n-grams of the training set's references for CIDEr-D.
    ///
    /// # Errors
    /// The training set is a stream.
    pub fn new(config: &ScstConfig, which: References, context: &TaskContext) -> Result<Self> {
        if context.dataset.stream().is_some() {
            let name = context.dataset.name();
            return Err(Error::Model(format!(
                "`{name}` is a stream, which is read once: [scst] reads all of its captions first for CIDEr-D"
            )));
        }
        let captions = context.captions_by_sample("captions read for CIDEr-D");
        let tokens: Vec<Vec<String>> = captions.map(|captions| tokenized(&captions, which)).collect();
        let frequencies = DocumentFrequencies::from_references(&tokens);
        if let Some(warning) = frequencies.warning().filter(|_| config.cider_d != 0.0) {
            tracing::warn!("{warning}");
        }
        Ok(Self {
            config: config.clone(),
            cider: Arc::new(Cider::new(Arc::new(frequencies), CiderForm::Robust)),
        })
    }

    /// What the rewards of an image's captions compare with, for loader threads.
    pub fn targets(&self, which: References) -> impl Fn(&Sample) -> RewardTarget + Send + Sync + use<> {
        let (cider, has_chair) = (Arc::clone(&self.cider), self.config.chair != 0.0);
        move |sample| {
            let references = references(&sample.captions, which);
            let named = references.iter().filter(|_| has_chair);
            let mentions = named.flat_map(|reference| CocoObjects::get().mentions(reference));
            RewardTarget {
                references: cider.prepare(&tokenized(&sample.captions, which)),
                scene: sample.scene.clone(),
                classes: mentions.map(|mention| mention.class).collect(),
            }
        }
    }

    /// Whether a reward needs the scene graph of each image.
    pub fn needs_scene(&self) -> bool {
        self.config.scene != 0.0
    }

    /// The loss whose gradient is that of the negative expected reward: minus the log-probability of each
    /// drawn token times its caption's advantage, averaged over the tokens of all processes. Captions begin
    /// with `prompt`; `states` and `targets` have a row for each image.
    ///
    /// # Errors
    /// The captions cannot be generated or decoded, or another process is lost.
    pub fn loss(
        &self,
        pipeline: &CaptionPipeline,
        prompt: &[u32],
        states: &Tensor,
        targets: &[RewardTarget],
        group: &ProcessGroup,
    ) -> Result<Loss> {
        let with_seed = |seed: usize| Prompt { tokens: prompt.to_vec(), seed: seed as u64 };
        let prompts: Vec<Prompt> = (0..targets.len()).map(with_seed).collect();
        let drawn = self.draw(pipeline, states, &prompts)?;
        let rewards = self.rewards(pipeline, &drawn, targets)?;
        let totals: Vec<Vec<f64>> =
            rewards.iter().map(|image| image.iter().map(|&reward| self.total(reward)).collect()).collect();
        let baselines = match self.config.baseline {
            Baseline::Others => totals.iter().map(|image| others(image)).collect(),
            Baseline::Greedy => self.greedy(pipeline, states, &prompts, targets)?,
        };

        let rows: Vec<CaptionTokens> = prompts
            .iter()
            .zip(&drawn)
            .flat_map(|(prompt, texts)| texts.iter().map(|text| with_prompt(prompt, text)))
            .collect();
        let next = NextTokens::new(&rows, pipeline.description.model.prefix_length());
        let advantages = totals.iter().zip(&baselines).flat_map(|(totals, baselines)| {
            totals.iter().zip(baselines).map(|(total, baseline)| (total - baseline) as f32)
        });
        let weights: Vec<f32> = advantages
            .zip(&next.lengths)
            .flat_map(|(advantage, &length)| std::iter::repeat_n(advantage, length))
            .collect();
        let next = next.to_device(pipeline.device);
        let logits = pipeline.captioner.next_token_logits(states, &next).to_kind(Kind::Float);
        let log_probs = (logits / self.config.temperature).log_softmax(-1, None);
        let log_probs = log_probs.gather(1, &next.labels.unsqueeze(-1), false).squeeze_dim(-1); // [N]
        let weights = Tensor::from_slice(&weights).to_device(pipeline.device);
        let total = -(log_probs * weights).sum(Kind::Float) * group.mean_scale(next.count())?;

        let all: Vec<Reward> = rewards.into_iter().flatten().collect();
        let mean = |value: &dyn Fn(&Reward) -> f64| {
            Tensor::from(all.iter().map(value).sum::<f64>() / all.len().max(1) as f64)
        };
        let parts = vec![
            ("reward", mean(&|reward| self.total(*reward))),
            ("cider_d", mean(&|reward| reward.cider_d)),
            ("scene", mean(&|reward| reward.scene)),
            ("chair", mean(&|reward| reward.chair)),
            ("length", Tensor::from(next.count() as f64 / rows.len().max(1) as f64)),
        ];
        Ok(Loss { total, parts })
    }

    /// Draws the captions of each image. Their seed comes from libtorch's generator, which the trainer seeds
    /// for each step and process.
    fn draw(
        &self,
        pipeline: &CaptionPipeline,
        states: &Tensor,
        prompts: &[Prompt],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let seed = Tensor::randint(i64::MAX, [1], (Kind::Int64, tch::Device::Cpu)).int64_value(&[0]);
        let config = GenerationConfig {
            do_sample: true,
            num_return_sequences: self.config.samples,
            temperature: self.config.temperature,
            top_k: 0,
            seed: seed as u64,
            ..self.limits()
        };
        pipeline.generate(&states.detach(), prompts, &config)
    }

    /// The reward of each image's greedy caption, for each of its drawn captions.
    fn greedy(
        &self,
        pipeline: &CaptionPipeline,
        states: &Tensor,
        prompts: &[Prompt],
        targets: &[RewardTarget],
    ) -> Result<Vec<Vec<f64>>> {
        let texts = pipeline.generate(&states.detach(), prompts, &self.limits())?;
        let rewards = self.rewards(pipeline, &texts, targets)?;
        Ok(rewards.iter().map(|image| vec![self.total(image[0]); self.config.samples]).collect())
    }

    fn limits(&self) -> GenerationConfig {
        GenerationConfig { max_new_tokens: self.config.max_new_tokens, ..GenerationConfig::default() }
    }

    fn total(&self, reward: Reward) -> f64 {
        let ScstConfig { cider_d, scene, chair, .. } = self.config;
        cider_d * reward.cider_d / 10.0 + scene * reward.scene + chair * reward.chair
    }

    /// The rewards of the captions of each image.
    fn rewards(
        &self,
        pipeline: &CaptionPipeline,
        texts: &[Vec<Hypothesis>],
        targets: &[RewardTarget],
    ) -> Result<Vec<Vec<Reward>>> {
        let tokenizer = &pipeline.tokenizer;
        let of_image = |(texts, target): (&Vec<Hypothesis>, &RewardTarget)| {
            let of_text = |text: &Hypothesis| {
                let caption = tokenizer.decode(&text.tokens)?;
                let scene = match &target.scene {
                    Some(scene) if self.needs_scene() && text.finished => faithfulness(&caption, scene),
                    _ => 0.0,
                };
                let cider_d = self.cider.score(&ptb::tokenize(&caption), &target.references);
                let chair =
                    if self.config.chair == 0.0 { 0.0 } else { named_share(&caption, &target.classes) };
                Ok(Reward { cider_d, scene, chair })
            };
            texts.iter().map(of_text).collect()
        };
        texts.par_iter().zip(targets).map(of_image).collect()
    }
}

fn with_prompt(prompt: &Prompt, text: &Hypothesis) -> CaptionTokens {
    let token_ids = prompt.tokens.iter().chain(&text.tokens).copied().collect();
    CaptionTokens { token_ids, prompt_length: prompt.tokens.len() }
}

/// For each number, the mean of the others.
fn others(rewards: &[f64]) -> Vec<f64> {
    let (sum, count) = (rewards.iter().sum::<f64>(), rewards.len().max(2) as f64);
    rewards.iter().map(|reward| (sum - reward) / (count - 1.0)).collect()
}

/// The share of the objects that `caption` names which are of `classes`; 1 where it names none.
fn named_share(caption: &str, classes: &BTreeSet<&'static str>) -> f64 {
    let mentions = CocoObjects::get().mentions(caption);
    let right = mentions.iter().filter(|mention| classes.contains(mention.class)).count();
    if mentions.is_empty() { 1.0 } else { right as f64 / mentions.len() as f64 }
}

/// The tokens of the references among `captions`.
fn tokenized(captions: &[String], which: References) -> Vec<String> {
    references(captions, which).iter().map(|caption| ptb::tokenize(caption)).collect()
}

#[cfg(test)]
mod tests {
    use super::{named_share, others};

    #[test]
    fn the_baseline_of_a_caption_is_the_mean_reward_of_the_others() {
        assert_eq!(others(&[1.0, 2.0, 6.0]), [4.0, 3.5, 1.5]);
    }

    #[test]
    fn an_object_that_no_reference_names_lowers_the_share() {
        let classes = ["dog", "bench"].into();
        let share = |caption| named_share(caption, &classes);
        assert_eq!(share("a puppy next to two cats on a bench"), 2.0 / 3.0);
        assert_eq!((share("a dog"), share("a cat"), share("something red")), (1.0, 0.0, 1.0));
    }
}
