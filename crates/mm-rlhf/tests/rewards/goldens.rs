//! Scores and gradients beside PyTorch's.

use super::{golden, images, pixels, prompts, rewards};
use mm_rlhf::{JpegSize, Reward};
use std::collections::{BTreeMap, HashMap};
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-4;

fn expected() -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden("expected.safetensors")).unwrap().into_iter().collect()
}

/// The largest difference, as a share of the largest number where that is above 1.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    largest(&(found - expected)) / largest(expected).max(1.0)
}

#[test]
fn scores_and_gradients_in_pixels_equal_pytorchs() {
    let (expected, prompts) = (expected(), prompts());
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    for (name, reward) in rewards() {
        let scores = reward.score(&images(&expected["images"]), &prompts).unwrap();
        let off = difference(&Tensor::from_slice(&scores), &expected[name]);
        assert!(off <= TOLERANCE, "{name} is off by {off}: {scores:?}");

        let pixels = pixels(&expected["images"]).set_requires_grad(true);
        let scores = reward.differentiable().unwrap().score_pixels(&pixels, &prompts).unwrap();
        let off = difference(&scores, &expected[name]);
        assert!(off <= TOLERANCE, "{name} of pixels is off by {off}");
        scores.sum(Kind::Float).backward();
        let off = difference(&pixels.grad(), &expected[&format!("gradient.{name}")]);
        assert!(off <= TOLERANCE, "the gradient of {name} is off by {off}");
    }
}

#[test]
fn an_image_has_the_same_score_alone_and_in_a_batch() {
    let (expected, prompts) = (expected(), prompts());
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let images = images(&expected["images"]);
    for (name, reward) in rewards() {
        let together = reward.score(&images, &prompts).unwrap();
        for (index, score) in together.into_iter().enumerate() {
            let alone = reward.score(&images[index..=index], &prompts[index..=index]).unwrap();
            let off = (alone[0] - score).abs() / score.abs().max(1.0);
            assert!(alone.len() == 1 && off < 1e-5, "{name} of image {index}: {alone:?} alone, {score}");
        }
    }
}

#[test]
fn images_of_another_size_are_resized_and_cropped_in_pixels_as_in_pytorch() {
    let (expected, prompts) = (expected(), prompts());
    let prompts: Vec<&str> = prompts[..2].iter().map(String::as_str).collect();
    let (_, reward) = rewards().swap_remove(0);
    let pixels = pixels(&expected["large"]);
    let scores = reward.differentiable().unwrap().score_pixels(&pixels, &prompts).unwrap();
    let off = difference(&scores, &expected["large.clip"]);
    assert!(off <= TOLERANCE, "off by {off}");
    // The 8-bit way rounds the resized image.
    let rounded = reward.score(&images(&expected["large"]), &prompts).unwrap();
    let off = difference(&Tensor::from_slice(&rounded), &expected["large.clip"]);
    assert!(off <= 0.01, "off by {off}");
}

#[test]
fn a_gradient_step_raises_the_score() {
    let (expected, prompts) = (expected(), prompts());
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    for (name, reward) in rewards() {
        let reward = reward.differentiable().unwrap();
        let pixels = pixels(&expected["images"]).set_requires_grad(true);
        let before = reward.score_pixels(&pixels, &prompts).unwrap().sum(Kind::Float);
        before.backward();
        let gradient = pixels.grad();
        let norm = gradient.norm().double_value(&[]);
        // Small enough for the change to be linear, large enough for f32.
        let step = 0.02 / norm;
        let after = tch::no_grad(|| {
            let moved = pixels.detach() + &gradient * step;
            reward.score_pixels(&moved, &prompts).unwrap().sum(Kind::Float)
        });
        let gain = after.double_value(&[]) - before.double_value(&[]);
        let linear = 0.02 * norm;
        assert!((gain / linear - 1.0).abs() < 0.1, "{name}: {gain} where {linear} is expected");
    }
}

#[test]
fn jpegs_have_the_order_of_pillows() {
    let pillow: BTreeMap<String, u64> =
        serde_json::from_slice(&std::fs::read(golden("jpeg.json")).unwrap()).unwrap();
    let photo = |name: &String| {
        let file = golden("../images/photos").join(format!("{name}.png"));
        mm_image::decode(&std::fs::read(file).unwrap(), [255; 3]).unwrap()
    };
    let photos: Vec<_> = pillow.keys().map(photo).collect();
    let reward = JpegSize { quality: 95, is_negative: false };
    let scores = reward.score(&photos, &vec![""; photos.len()]).unwrap();
    let kilobytes: Vec<f64> = pillow.values().map(|&bytes| bytes as f64 / 1000.0).collect();
    for (one, other) in (0..photos.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
        // Those within a fifth may change places: the encoders treat colors differently.
        let ratio = kilobytes[one] / kilobytes[other];
        if !(0.8..=1.25).contains(&ratio) {
            assert_eq!(scores[one] > scores[other], ratio > 1.0, "{scores:?} beside {kilobytes:?}");
        }
    }
}
