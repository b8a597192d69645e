//! The truth of a drawn scene, as a captioner describes it.

use super::scene::scene_of;
use crate::reward::check_count;
use crate::{Result, Reward};
use mm_caption::CaptionPipeline;
use mm_caption::metrics::scenes::{HallucinationKind, ParsedCaption, SceneScore};
use mm_core::{DeviceConfig, OpenOptions};
use mm_data::shapes::{Description, Relation, Scene};
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;

/// How much of what a caption of an image says is true of the scene that the prompt describes, and how much
/// of the prompt it says, from 0 to 1: a captioner describes the image, and its caption is compared with the
/// prompt, which is one of the shapes data set with `scenes = "prompts"`.
///
/// The score is the F1 of the tuples of [`SceneScore`] (object; object, attribute; object, relation, object):
/// precision over those of the caption, recall over those of the prompt. What a prompt leaves open is not
/// compared: sizes and patterns, and relations where the prompt has none. A caption outside of the grammar of
/// the data set scores 0.
#[derive(Debug)]
pub struct CaptionFactuality {
    pipeline: CaptionPipeline,
    generation: GenerationConfig,
}

impl CaptionFactuality {
    /// The reward of the captioner in the folder or of the hub name `model`, whose captions have at most
    /// `max_new_tokens` tokens and are the most probable ones, by its own number of beams.
    ///
    /// # Errors
    /// As [`CaptionPipeline::open`].
    pub fn open(model: &str, max_new_tokens: usize, device: &DeviceConfig) -> Result<Self> {
        let options = OpenOptions { device: device.clone(), ..OpenOptions::default() };
        let pipeline = CaptionPipeline::open(model, &options)?;
        // Draws would make the score of an image depend on its place in the batch.
        let defaults = pipeline.generation.clone();
        let generation =
            GenerationConfig { max_new_tokens, do_sample: false, num_return_sequences: 1, ..defaults };
        Ok(Self { pipeline, generation })
    }
}

impl Reward for CaptionFactuality {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let scenes: Vec<Scene> = prompts.iter().map(|prompt| scene_of(prompt)).collect::<Result<_>>()?;
        let captions = self.pipeline.caption(images, "", &self.generation)?;
        let best = captions.iter().map(|captions| captions.first().map_or("", |best| &best.caption));
        let scored = best.zip(prompts).zip(&scenes);
        Ok(scored.map(|((caption, prompt), scene)| factuality(caption, prompt, scene)).collect())
    }
}

/// The score of `caption` beside `prompt`, which describes `scene`.
fn factuality(caption: &str, prompt: &str, scene: &Scene) -> f32 {
    let parsed = ParsedCaption::parse(caption);
    if parsed.unparsed.is_some() {
        return 0.0;
    }
    let of_prompt = SceneScore::of(prompt, scene);
    let has_relation = of_prompt.kind(HallucinationKind::Relation).all > 0;
    let found = SceneScore::of(&comparable(&parsed, has_relation), scene);
    let precision = found.precision();
    let recall = found.stated_tuples as f64 / of_prompt.stated_tuples.max(1) as f64;
    if precision + recall > 0.0 { (2.0 * precision * recall / (precision + recall)) as f32 } else { 0.0 }
}

/// The caption with no more than a prompt says: numbers, colors and shapes, and by `has_relation` relations.
fn comparable(caption: &ParsedCaption, has_relation: bool) -> String {
    let mut text = String::new();
    for (place, phrase) in caption.phrases.iter().enumerate() {
        if place > 0 {
            let relation = caption.relations.get(place - 1).copied().flatten().filter(|_| has_relation);
            text += &relation.map_or(", ".to_owned(), |relation: Relation| format!(" {} ", relation.words()));
        }
        let description = Description { size: None, pattern: None, ..phrase.description };
        text +=
            &phrase.number.map_or_else(|| description.indefinite(), |number| description.numbered(number));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::shapes::{ShapesConfig, ShapesScenes};

    fn score(caption: &str, prompt: &str) -> f32 {
        factuality(caption, prompt, &Scene::of_prompt(prompt).unwrap())
    }

    #[test]
    fn a_caption_that_says_what_the_prompt_says_has_the_full_score() {
        let config =
            ShapesConfig { scenes: ShapesScenes::Prompts, objects: [1, 3], ..ShapesConfig::default() };
        for index in 0..200 {
            let scene = config.scene(index);
            let prompt = scene.prompt();
            assert_eq!(score(&prompt, &prompt), 1.0, "{prompt}");
            // All that the image shows: with sizes, patterns and places that the prompt leaves open.
            assert_eq!(score(&scene.captions()[0], &prompt), 1.0, "{prompt}: {}", scene.captions()[0]);
        }
    }

    #[test]
    fn a_false_a_missing_and_an_added_statement_cost_a_part_and_other_text_all() {
        let prompt = "a red circle above a blue square";
        for (caption, expected) in [
            ("a red circle below a blue square", 4.0 / 5.0),
            ("a green circle above a blue square", 4.0 / 5.0),
            ("a red circle, a blue square", 8.0 / 9.0),
            ("a red circle", 4.0 / 7.0),
            ("a red circle above a blue square, a pink star", 10.0 / 12.0),
            ("two green stars", 0.0),
            ("a dog on a sofa", 0.0),
            ("", 0.0),
        ] {
            let found = score(caption, prompt);
            assert!((found - expected).abs() < 1e-6, "{caption}: {found} is not {expected}");
        }
        assert!(score("three red circles", "two red circles") < 1.0);
        assert_eq!(score("a large red circle above a small red circle", "two red circles"), 1.0);
    }
}
