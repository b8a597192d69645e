//! What cannot be scored is one clear error.

use super::{cpu, folder, golden, rewards};
use mm_core::checkpoint::write;
use mm_image::RgbImage;
use mm_rlhf::{AestheticReward, ClipReward, ImageReward, RewardConfig, RewardSum};
use tch::{Device, Kind, Tensor};

#[test]
fn images_and_prompts_must_be_as_many() {
    for (name, reward) in rewards() {
        let message = reward.score(&[RgbImage::new(32, 32)], &["a", "b"]).unwrap_err().to_string();
        assert_eq!(message, "1 images with 2 prompts: each image has one", "{name}");
        let pixels = Tensor::zeros([3, 3, 32, 32], (Kind::Float, Device::Cpu));
        let message = reward.differentiable().unwrap().score_pixels(&pixels, &["a"]).unwrap_err().to_string();
        assert_eq!(message, "3 images with 1 prompts: each image has one", "{name}");
        let gray = Tensor::zeros([1, 1, 32, 32], (Kind::Float, Device::Cpu));
        let message = reward.differentiable().unwrap().score_pixels(&gray, &["a"]).unwrap_err().to_string();
        assert!(message.contains("they must be [B, 3, H, W]"), "{name}: {message}");
        assert!(reward.score(&[RgbImage::new(0, 0)], &["a"]).is_err(), "{name}");
    }
}

#[test]
fn a_head_that_does_not_fit_is_refused_with_its_tensor() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("head.safetensors");
    let message = |tensors: &[(&str, &[i64])]| {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let tensors: Vec<_> =
            tensors.iter().map(|(name, shape)| ((*name).to_owned(), zeros(shape))).collect();
        write(&file, &tensors).unwrap();
        AestheticReward::open(&folder("clip"), &file, &cpu()).unwrap_err().to_string()
    };
    let bias: (&str, &[i64]) = ("layers.2.bias", &[1]);
    let first: (&str, &[i64]) = ("layers.0.bias", &[9]);
    let missing = message(&[("layers.0.weight", &[9, 24]), first, bias]);
    assert!(missing.contains("layers.2.weight"), "{missing}");
    let narrow = message(&[("layers.0.weight", &[9, 16]), first, ("layers.2.weight", &[1, 9]), bias]);
    assert!(narrow.contains("layers.0.weight"), "{narrow}");
    let wide = message(&[("layers.0.weight", &[9, 24]), first, ("layers.2.weight", &[2, 9]), bias]);
    assert!(wide.contains("layers.2.weight"), "{wide}");
    let more: (&str, &[i64]) = ("layers.3.weight", &[1]);
    let extra = message(&[("layers.0.weight", &[9, 24]), first, ("layers.2.weight", &[1, 9]), bias, more]);
    assert!(extra.contains("layers.3.weight"), "{extra}");
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("head.safetensors");
    let mut tensors = Tensor::read_safetensors(golden("relu.safetensors")).unwrap();
    tensors[0].1 = &tensors[0].1 * f64::NAN;
    write(&file, &tensors).unwrap();
    let message = AestheticReward::open(&folder("clip"), &file, &cpu()).unwrap_err().to_string();
    assert!(message.contains("NaN"), "{message}");
}

#[test]
fn models_of_other_kinds_are_refused() {
    let message = ClipReward::open(&folder("image-reward"), &cpu()).unwrap_err().to_string();
    assert!(message.contains("image-reward"), "{message}");
    let message = ImageReward::open(&folder("clip"), &cpu()).unwrap_err().to_string();
    assert!(message.contains("clip"), "{message}");
    let missing: RewardConfig = toml::from_str("kind = 'scene'\nmodel = './nowhere'").unwrap();
    let message = RewardSum::open(&[missing], &cpu()).unwrap_err().to_string();
    assert!(message.contains("nowhere"), "{message}");
}
