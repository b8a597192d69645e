//! The truth of a drawn scene, as a judge sees it.

use crate::reward::check_count;
use crate::{Error, Result, Reward};
use mm_core::DeviceConfig;
use mm_data::shapes::Scene;
use mm_diffusion::{SceneReader, SceneVerdict, judge};
use mm_image::RgbImage;

/// Whether an image shows what the prompt of a scene of the shapes data set says, as a [`SceneReader`] sees
/// it: 1 where all is right (number, color and shape of each object, the relation of two), else 0.
///
/// With partial credit the score is the share of what is right: number, colors, shapes, objects and, where
/// the prompt has one, the relation. A group of samples of a weak model then rarely has equal scores, from
/// which nothing is learned.
#[derive(Debug)]
pub struct SceneReward {
    reader: SceneReader,
    has_partial_credit: bool,
}

impl SceneReward {
    /// The reward of the judge `reader`.
    pub fn new(reader: SceneReader, has_partial_credit: bool) -> Self {
        Self { reader, has_partial_credit }
    }

    /// The same of the judge in the folder `model`, which `run.task = "scene-reader"` trains.
    ///
    /// # Errors
    /// As [`SceneReader::open`].
    pub fn open(model: &str, has_partial_credit: bool, device: &DeviceConfig) -> Result<Self> {
        let options = mm_core::OpenOptions { device: device.clone(), ..Default::default() };
        Ok(Self::new(SceneReader::open(model, &options)?, has_partial_credit))
    }
}

impl Reward for SceneReward {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let scenes: Vec<Scene> = prompts.iter().map(|prompt| scene_of(prompt)).collect::<Result<_>>()?;
        let seen = self.reader.read(images)?;
        let verdicts = scenes.iter().zip(&seen).map(|(scene, seen)| judge(scene, seen));
        Ok(verdicts.map(|verdict| credit(verdict, self.has_partial_credit)).collect())
    }
}

/// The scene that `prompt` describes.
///
/// # Errors
/// The prompt is not one of the shapes data set.
pub(super) fn scene_of(prompt: &str) -> Result<Scene> {
    Scene::of_prompt(prompt).ok_or_else(|| {
        Error::Request(format!(
            "the prompt {prompt:?} describes no scene: write \"two red circles\", \"a red circle above a \
             blue square\" or another text of the shapes data set with scenes = \"prompts\""
        ))
    })
}

/// The score of a verdict, from 0 to 1.
fn credit(verdict: SceneVerdict, is_partial: bool) -> f32 {
    let SceneVerdict { count, colours, shapes, kinds, relation } = verdict;
    if !is_partial {
        return f32::from(verdict.all_right());
    }
    let parts: Vec<bool> = [count, colours, shapes, kinds].into_iter().chain(relation).collect();
    parts.iter().filter(|&&is_right| is_right).count() as f32 / parts.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::shapes::{Colour, ShapesConfig, ShapesScenes};
    use mm_diffusion::SeenObject;

    fn seen(scene: &Scene) -> Vec<SeenObject> {
        scene.objects().iter().map(SeenObject::from).collect()
    }

    #[test]
    fn the_scene_of_a_prompt_is_right_for_the_picture_that_the_prompt_describes() {
        let config =
            ShapesConfig { scenes: ShapesScenes::Prompts, objects: [1, 3], ..ShapesConfig::default() };
        for index in 0..200 {
            let scene = config.scene(index);
            let prompt = scene.prompt();
            let asked = Scene::of_prompt(&prompt).unwrap();
            let right = judge(&asked, &seen(&scene));
            assert_eq!([credit(right, false), credit(right, true)], [1.0, 1.0], "{prompt}");
            let mut wrong = seen(&scene);
            wrong[0].colour = if wrong[0].colour == Colour::Red { Colour::Blue } else { Colour::Red };
            let wrong = judge(&asked, &wrong);
            let partial = credit(wrong, true);
            assert!(credit(wrong, false) == 0.0 && 0.0 < partial && partial < 1.0, "{prompt}: {partial}");
        }
    }
}
