//! Written files read back as what was written.

use crate::common::{apply, largest_difference, lora, model, modules, stored};
use mm_core::checkpoint::Weights;
use mm_diffusion::lora::{Component, LoraFile, LoraLayers, LoraPair, write_kohya, write_peft};
use std::path::Path;
use tch::Tensor;

/// Checks that the LoRA `name` of the goldens does the same after `write`.
fn round_trip(name: &str, kind: &str, write: fn(&Path, &LoraLayers) -> mm_diffusion::Result<()>) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("written.safetensors");
    let (mut first, mut second) = (model(kind), model(kind));
    let layers = LoraFile::open(&lora(name), &modules(&first)).unwrap();
    write(&file, layers.layers()).unwrap();
    let count = apply(&lora(name), &mut first, 0.7);
    assert_eq!(apply(&file, &mut second, 0.7), count);
    for ((_, first), (_, second)) in first.iter().zip(&second) {
        for tensor in first.list() {
            let (first, second) = (first.tensor(&tensor.name).unwrap(), second.tensor(&tensor.name).unwrap());
            assert!(largest_difference(&first, &second) <= 1e-6, "{}", tensor.name);
        }
    }
    Weights::open(&file).unwrap()
}

#[test]
fn a_lora_with_alphas_is_written_for_peft_with_the_scale_in_its_matrices() {
    let written = round_trip("kohya", "sd1", write_peft);
    assert!(written.shape("unet.conv_in.lora_A.weight").is_some());
    assert!(written.shape("text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_B.weight").is_some());
    assert!(!written.has_suffix(".alpha"));
    round_trip("kohya-sgm", "sdxl", write_peft);
    round_trip("sd3", "sd3", write_peft);
}

#[test]
fn a_lora_is_written_for_kohyas_programs_with_its_alphas() {
    let written = round_trip("peft-with-metadata", "sd1", write_kohya);
    assert_eq!(written.tensor("lora_unet_conv_in.alpha").unwrap().double_value(&[]), 5.0);
    assert!(written.shape("lora_te_text_model_encoder_layers_1_mlp_fc1.lora_up.weight").is_some());
    let written = round_trip("kohya-sdxl", "sdxl", write_kohya);
    assert!(written.has_prefix("lora_te1_text_model_") && written.has_prefix("lora_te2_text_model_"));
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = stored(folder.path(), &[("kept", Tensor::ones([1], tch::kind::FLOAT_CPU))]);
    let layers = |down: Tensor, up: Tensor| -> LoraLayers {
        let pair = LoraPair { down, up, alpha: None };
        [(Component::Unet, [("conv_in".to_owned(), pair)].into())].into()
    };
    let ones = |shape: &[i64]| Tensor::ones(shape, tch::kind::FLOAT_CPU);
    for (layers, problem) in [
        (LoraLayers::new(), "no layers to write"),
        (layers(ones(&[2, 4]), ones(&[8, 2]) * f64::NAN), "unet.conv_in: it has NaN"),
        (layers(ones(&[2, 4]), ones(&[8, 3])), "no pair of a LoRA"),
        (layers(ones(&[2]), ones(&[8, 2])), "no pair of a LoRA"),
    ] {
        for write in [write_peft, write_kohya] {
            let message = write(&file, &layers).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
    }
    assert!(Weights::open(&file).unwrap().shape("kept").is_some(), "the old file is untouched");
}
