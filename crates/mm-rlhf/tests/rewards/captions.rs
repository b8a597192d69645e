//! A captioner's caption as a reward.

use super::cpu;
use mm_data::shapes::{Scene, ShapesConfig, ShapesScenes};
use mm_image::RgbImage;
use mm_rlhf::{Reward, RewardConfig};
use std::path::Path;

fn open(more: &str) -> mm_rlhf::Result<Box<dyn Reward>> {
    let captioner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption/vit-gpt2");
    let toml = format!("kind = 'caption_factuality'\nmodel = {captioner:?}\n{more}");
    toml::from_str::<RewardConfig>(&toml).unwrap().open(&cpu())
}

#[test]
fn a_captioner_scores_images_of_scenes_and_refuses_other_prompts() {
    let config = ShapesConfig { scenes: ShapesScenes::Prompts, objects: [1, 3], ..ShapesConfig::default() };
    let scenes: Vec<Scene> = (0..4).map(|index| config.scene(index)).collect();
    let images: Vec<RgbImage> = scenes.iter().map(|scene| scene.render(40)).collect();
    let prompts: Vec<String> = scenes.iter().map(Scene::prompt).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let reward = open("max_new_tokens = 6").unwrap();
    // The captioner has random weights: its texts are outside of the grammar of scenes.
    assert_eq!(reward.score(&images, &prompts).unwrap(), [0.0; 4]);
    assert!(reward.differentiable().is_none());

    let message = reward.score(&images[..1], &["a dog on a sofa"]).unwrap_err().to_string();
    assert!(message.contains("\"a dog on a sofa\" describes no scene: write"), "{message}");
    let message = reward.score(&images, &prompts[..1]).unwrap_err().to_string();
    assert_eq!(message, "4 images with 1 prompts: each image has one");
    assert!(open("max_new_tokens = 0").unwrap().score(&images, &prompts).is_err());
}
