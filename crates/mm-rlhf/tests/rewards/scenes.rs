//! The judge of scenes as a reward, and sums from a config.

use super::{cpu, folder};
use mm_data::shapes::{Scene, ShapesConfig, ShapesScenes};
use mm_diffusion::{SceneReader, SceneReaderConfig, judge};
use mm_image::RgbImage;
use mm_rlhf::{Reward, RewardSum, RewardsConfig, SceneCounts, SceneReward};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A judge with random weights, the same each time.
fn reader() -> SceneReader {
    let config: SceneReaderConfig =
        toml::from_str("image = { depth = 18, width = 8, stages = 2, image_size = 32 }").unwrap();
    let vs = VarStore::new(Device::Cpu);
    let reader = SceneReader::new(&vs.root(), &config).unwrap();
    mm_testing::initialize(&vs, 3);
    reader
}

#[test]
fn the_score_is_what_the_judge_says_of_the_prompts_scene() {
    let config = ShapesConfig { scenes: ShapesScenes::Prompts, objects: [1, 3], ..ShapesConfig::default() };
    let scenes: Vec<Scene> = (0..12).map(|index| config.scene(index)).collect();
    let images: Vec<RgbImage> = scenes.iter().map(|scene| scene.render(40)).collect();
    let prompts: Vec<String> = scenes.iter().map(Scene::prompt).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let seen = reader().read(&images).unwrap();
    let verdicts: Vec<_> = scenes.iter().zip(&seen).map(|(scene, seen)| judge(scene, seen)).collect();
    let whole = SceneReward::new(reader(), false).score(&images, &prompts).unwrap();
    let partial = SceneReward::new(reader(), true).score(&images, &prompts).unwrap();
    for (verdict, (whole, partial)) in verdicts.iter().zip(whole.into_iter().zip(partial)) {
        assert_eq!(whole, f32::from(verdict.all_right()));
        let parts = [verdict.count, verdict.colours, verdict.shapes, verdict.kinds];
        let right = parts.into_iter().chain(verdict.relation).filter(|&is_right| is_right).count();
        let parts = parts.len() + usize::from(verdict.relation.is_some());
        assert!((partial - right as f32 / parts as f32).abs() < 1e-6, "{verdict:?}: {partial}");
    }
}

#[test]
fn a_prompt_without_a_scene_is_refused_with_what_to_write() {
    let reward = SceneReward::new(reader(), false);
    let message = reward.score(&[RgbImage::new(32, 32)], &["a photo of a dog"]).unwrap_err().to_string();
    assert!(message.contains("\"a photo of a dog\" describes no scene: write"), "{message}");
    assert!(reward.differentiable().is_none());
}

#[test]
fn counts_have_the_gradient_of_their_differences_and_images_score_as_their_pixels() {
    let reward = SceneCounts::new(reader());
    let prompts = ["two red circles", "a blue star above a pink heart"];
    let images = [3, 4].map(|seed| {
        RgbImage::from_fn(32, 32, |x, y| {
            [(seed * x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x * y) % 256) as u8].into()
        })
    });
    let levels: Vec<f32> =
        images.iter().flat_map(|image| image.as_raw()).map(|&level| level.into()).collect();
    let pixels =
        (Tensor::from_slice(&levels).view([2, 32, 32, 3]) / 255.0).permute([0, 3, 1, 2]).contiguous();
    let pixels = pixels.set_requires_grad(true);
    let score = |pixels: &Tensor| reward.differentiable().unwrap().score_pixels(pixels, &prompts).unwrap();
    let scores = score(&pixels);
    for (index, expected) in reward.score(&images, &prompts).unwrap().into_iter().enumerate() {
        let found = scores.double_value(&[index as i64]);
        assert!((found - f64::from(expected)).abs() < 1e-4 * found.abs().max(1.0), "{found} {expected}");
    }
    scores.sum(Kind::Float).backward();
    let direction = mm_testing::normal(5, &[2, 3, 32, 32]);
    let slope = (pixels.grad() * &direction).sum(Kind::Float).double_value(&[]);
    let at = |step: f64| {
        tch::no_grad(|| score(&(&pixels + &direction * step))).sum(Kind::Double).double_value(&[])
    };
    let difference = (at(2e-4) - at(-2e-4)) / 4e-4;
    assert!((slope - difference).abs() < 4e-2 * slope.abs().max(0.1), "{slope} {difference}");
}

#[test]
fn a_config_opens_as_a_weighted_sum() {
    let config: RewardsConfig = toml::from_str(&format!(
        "[[reward]]\nkind = 'clip'\nmodel = {0:?}\n[[reward]]\nkind = 'pick_score'\nmodel = {0:?}\n\
         weight = 0.5\n[[reward]]\nkind = 'jpeg_compressibility'\n[[reward]]\nkind = 'clip'\nmodel = {0:?}\n\
         weight = -1\n",
        folder("clip")
    ))
    .unwrap();
    let rewards = RewardSum::open(&config.reward, &cpu()).unwrap();
    assert_eq!(rewards.names().collect::<Vec<_>>(), ["clip", "pick_score", "jpeg_compressibility", "clip 2"]);
    let image = RgbImage::from_fn(50, 40, |x, y| [(5 * x) as u8, (6 * y) as u8, 90].into());
    let scores = rewards.score_parts(&[image], &["a cat"]).unwrap();
    let [clip, pick, jpeg, again] = [0, 1, 2, 3].map(|part| scores.parts[part][0]);
    assert!(clip == again && jpeg < 0.0 && (pick / clip - 2f32.exp()).abs() < 1e-4);
    assert!((scores.total[0] - (0.5 * pick + jpeg)).abs() < 1e-5);
    assert!(rewards.check_differentiable().unwrap_err().to_string().contains("jpeg_compressibility"));
}
