//! The rewards of drawn captions: CIDEr-D with the references, the agreement with the scene graph, and the
//! share of named objects that are in the image.

use crate::metrics::chair::CocoObjects;
use crate::metrics::scenes::faithfulness;
use crate::metrics::{Cider, CiderForm, DocumentFrequencies, PreparedReferences, ptb};
use crate::run_config::References;
use crate::task::references;
use crate::{CaptionPipeline, Error, Result};
use mm_data::Sample;
use mm_data::shapes::Scene;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_train::TaskContext;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The weights of the rewards in their sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RewardWeights {
    /// Of CIDEr-D over 10.
    pub cider_d: f64,
    /// Of the agreement with the scene graph.
    pub scene: f64,
    /// Of the share of named objects.
    pub chair: f64,
}

impl RewardWeights {
    /// Whether a weight is not 0.
    pub fn has_any(self) -> bool {
        [self.cider_d, self.scene, self.chair].iter().any(|&weight| weight != 0.0)
    }
}

/// The rewards of a caption.
#[derive(Clone, Copy)]
pub(crate) struct Reward {
    cider_d: f64,
    scene: f64,
    chair: f64,
}

/// The references and the scene that an image's captions are compared with.
#[derive(Clone, Debug)]
pub(crate) struct RewardTarget {
    references: PreparedReferences,
    scene: Option<Arc<Scene>>,
    /// COCO's classes that the references name, where CHAIR is a reward.
    classes: BTreeSet<&'static str>,
}

/// Computes rewards.
pub(crate) struct Rewards {
    weights: RewardWeights,
    cider: Arc<Cider>,
}

impl Rewards {
    /// Counts the n-grams of the training set's references for CIDEr-D.
    ///
    /// # Errors
    /// The training set is a stream.
    pub fn new(weights: RewardWeights, which: References, context: &TaskContext) -> Result<Self> {
        if context.dataset.stream().is_some() {
            let name = context.dataset.name();
            return Err(Error::Model(format!(
                "`{name}` is a stream, which is read once: rewards read all of its captions first for CIDEr-D"
            )));
        }
        let captions = context.captions_by_sample("captions read for CIDEr-D");
        let tokens: Vec<Vec<String>> = captions.map(|captions| tokenized(&captions, which)).collect();
        let frequencies = DocumentFrequencies::from_references(&tokens);
        if let Some(warning) = frequencies.warning().filter(|_| weights.cider_d != 0.0) {
            tracing::warn!("{warning}");
        }
        Ok(Self { weights, cider: Arc::new(Cider::new(Arc::new(frequencies), CiderForm::Robust)) })
    }

    /// The target of each sample, for loader threads.
    pub fn targets(&self, which: References) -> impl Fn(&Sample) -> RewardTarget + Send + Sync + use<> {
        let (cider, has_chair) = (Arc::clone(&self.cider), self.weights.chair != 0.0);
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
        self.weights.scene != 0.0
    }

    /// The rewards of the captions `texts` of each image.
    ///
    /// # Errors
    /// The tokenizer cannot decode a caption.
    pub fn of(
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
                    if self.weights.chair == 0.0 { 0.0 } else { named_share(&caption, &target.classes) };
                Ok(Reward { cider_d, scene, chair })
            };
            texts.iter().map(of_text).collect()
        };
        texts.par_iter().zip(targets).map(of_image).collect()
    }

    /// The weighted sums of the rewards of each image's captions.
    pub fn totals(&self, rewards: &[Vec<Reward>]) -> Vec<Vec<f64>> {
        let of_image = |image: &Vec<Reward>| image.iter().map(|&reward| self.total(reward)).collect();
        rewards.iter().map(of_image).collect()
    }

    /// The mean of the weighted sums and of each reward, by the names that logs have.
    pub fn means(&self, rewards: &[Vec<Reward>]) -> [(&'static str, f64); 4] {
        let count = rewards.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let mean = |value: &dyn Fn(&Reward) -> f64| rewards.iter().flatten().map(value).sum::<f64>() / count;
        [
            ("reward", mean(&|reward| self.total(*reward))),
            ("cider_d", mean(&|reward| reward.cider_d)),
            ("scene", mean(&|reward| reward.scene)),
            ("chair", mean(&|reward| reward.chair)),
        ]
    }

    fn total(&self, reward: Reward) -> f64 {
        let RewardWeights { cider_d, scene, chair } = self.weights;
        cider_d * reward.cider_d / 10.0 + scene * reward.scene + chair * reward.chair
    }
}

/// The settings that draw `samples` captions an image from all tokens by their probabilities.
pub(crate) fn sampling(samples: usize, max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        do_sample: true,
        num_return_sequences: samples,
        top_k: 0,
        max_new_tokens,
        ..GenerationConfig::default()
    }
}

/// The captions `drawn` after the prompt of each image, with labels for the drawn tokens, on the device of
/// the model.
pub(crate) fn drawn_tokens(
    pipeline: &CaptionPipeline,
    prompts: &[Prompt],
    drawn: &[Vec<Hypothesis>],
) -> NextTokens {
    let with_prompt = |prompt: &Prompt, text: &Hypothesis| CaptionTokens {
        token_ids: prompt.tokens.iter().chain(&text.tokens).copied().collect(),
        prompt_length: prompt.tokens.len(),
    };
    let of_image = |(prompt, texts): (&Prompt, &Vec<Hypothesis>)| -> Vec<CaptionTokens> {
        texts.iter().map(|text| with_prompt(prompt, text)).collect()
    };
    let rows: Vec<CaptionTokens> = prompts.iter().zip(drawn).flat_map(of_image).collect();
    NextTokens::new(&rows, pipeline.description.model.prefix_length()).to_device(pipeline.device)
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
    use super::named_share;

    #[test]
    fn an_object_that_no_reference_names_lowers_the_share() {
        let classes = ["dog", "bench"].into();
        let share = |caption| named_share(caption, &classes);
        assert_eq!(share("a puppy next to two cats on a bench"), 2.0 / 3.0);
        assert_eq!((share("a dog"), share("a cat"), share("something red")), (1.0, 0.0, 1.0));
    }
}
