//! Features, logits, losses and gradients.

use crate::{FOLDERS, copied, golden, images, json, largest_difference, normalized, open, tensors};
use mm_core::checkpoint::{TensorLayout, stored};
use mm_core::loss::token_cross_entropy;
use mm_core::nn::take_frozen;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_vqa::vlm::VlmPipeline;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// The rows of a batch of transformers': tokens without padding, and where their labels begin.
fn rows(expected: &HashMap<String, Tensor>) -> Vec<CaptionTokens> {
    let row = |index: i64| {
        let length = expected["attention_mask"].get(index).sum(Kind::Int64).int64_value(&[]);
        let ids: Vec<i64> = Vec::try_from(expected["input_ids"].get(index).narrow(0, 0, length)).unwrap();
        let labels: Vec<i64> = Vec::try_from(expected["labels"].get(index)).unwrap();
        let prompt_length = labels.iter().take_while(|&&label| label == -100).count();
        CaptionTokens { token_ids: ids.into_iter().map(|id| id as u32).collect(), prompt_length }
    };
    (0..expected["input_ids"].size()[0]).map(row).collect()
}

/// The tiles of the first two items of the golden `name`.
fn pixel_values(pipeline: &VlmPipeline, name: &str) -> Tensor {
    let levels = tensors(&format!("{name}/items.safetensors"));
    normalized(pipeline, &Tensor::cat(&[&levels["0"], &levels["1"]], 0))
}

/// Compares features, logits, loss and all gradients of the model in `folder` with the golden `name`.
fn assert_equals_transformers(folder: &Path, name: &str) {
    let expected = tensors(&format!("{name}/expected.safetensors"));
    let (pipeline, vs) = open(folder);
    let model = &pipeline.model;
    let features = model.image_features(&pixel_values(&pipeline, name));
    let difference = largest_difference(&features, &expected["image_features"]);
    assert!(difference <= 1e-4, "{name}: features {difference}");

    let hidden = model.forward(&expected["input_ids"], Some(&features)).unwrap();
    let real = expected["attention_mask"].unsqueeze(-1); // of padding only the peer's are masked
    let difference = largest_difference(&(model.logits(&hidden) * &real), &(&expected["logits"] * &real));
    assert!(difference <= 1e-4, "{name}: logits {difference}");

    let next = NextTokens::new(&rows(&expected), 0);
    let logits = model.next_token_logits(&next, Some(&features)).unwrap();
    let loss = token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64;
    let relative = (&loss / &expected["loss"]).double_value(&[]) - 1.0;
    assert!(relative.abs() <= 1e-4, "{name}: loss {relative}");
    loss.backward();
    let with_gradient = vs.variables().into_iter().filter(|(_, variable)| variable.grad().defined());
    let gradients = with_gradient.map(|(name, variable)| (name, variable.grad()));
    let gradients: HashMap<String, Tensor> = stored(gradients, &TensorLayout::HF).into_iter().collect();
    let mut compared = 0;
    for (weight, expected) in &expected {
        let Some(weight) = weight.strip_prefix("grad.") else { continue };
        let scale = expected.abs().max().double_value(&[]);
        // Of the keys' biases it is rounding alone: the softmax does not see them.
        let difference = largest_difference(&gradients[weight], expected);
        assert!(difference <= 1e-3 * scale + 1e-6, "{name}: {weight}: {difference} of {scale}");
        compared += 1;
    }
    assert_eq!(compared, gradients.len(), "{name}");
}

#[test]
fn smolvlm_and_both_forms_of_llava_equal_transformers() {
    for name in FOLDERS {
        assert_equals_transformers(&golden(name), name);
    }
}

#[test]
fn idefics3_equals_smolvlm_of_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    copied("smolvlm", folder.path());
    std::fs::copy(golden("idefics3").join("config.json"), folder.path().join("config.json")).unwrap();
    assert_equals_transformers(folder.path(), "smolvlm");
}

#[test]
fn llava_equals_transformers_from_each_layout_of_names() {
    let layouts: HashMap<String, HashMap<String, String>> = json(&golden("llava").join("layouts.json"));
    assert_eq!(layouts.len(), 2);
    for names in layouts.values() {
        let folder = tempfile::tempdir().unwrap();
        copied("llava", folder.path());
        let file = folder.path().join("model.safetensors");
        let renamed: Vec<(String, Tensor)> = Tensor::read_safetensors(&file)
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| (names[&name].clone(), tensor))
            .collect();
        Tensor::write_safetensors(&renamed, &file).unwrap();
        assert_equals_transformers(folder.path(), "llava");
    }
}

#[test]
fn a_prompt_of_many_tiles_equals_transformers() {
    let expected = tensors("smolvlm/expected.safetensors");
    let (pipeline, _vs) = open(&golden("smolvlm"));
    let prompts: Value = json(&golden("smolvlm").join("prompts.json"));
    let split = prompts.as_array().unwrap().iter().rfind(|prompt| prompt["splits"] == true).unwrap();
    let ids: Vec<i64> = serde_json::from_value(split["ids"].clone()).unwrap();
    let pixels = tensors("smolvlm/pixels.safetensors");
    let tiles = images(&Tensor::cat(&[&pixels["rocket-flame.split"], &pixels["gravel.split"]], 0));
    assert!(tiles.len() > 8, "{} tiles", tiles.len());
    // More tiles than go through the tower at once.
    let features = pipeline.model.encode_images(&pipeline.processor.normalize_batch(&tiles).unwrap());
    let hidden =
        pipeline.model.forward(&Tensor::from_slice(&ids).unsqueeze(0), Some(&features.copy())).unwrap();
    let logits = pipeline.model.logits(&hidden.narrow(1, ids.len() as i64 - 8, 8));
    let difference = largest_difference(&logits, &expected["split_logits"]);
    assert!(difference <= 1e-4, "{difference}");
}

#[test]
fn a_frozen_tower_and_decoder_leave_gradients_to_the_connector() {
    let expected = tensors("llava/expected.safetensors");
    let (pipeline, vs) = open(&golden("llava"));
    let root = pipeline.config.family.connector_root();
    let frozen = take_frozen(&vs, |name| !name.starts_with(root));
    assert_eq!((vs.len(), frozen.is_empty()), (4, false));
    let outputs = tch::no_grad(|| pipeline.model.tower_outputs(&pixel_values(&pipeline, "llava")));
    let features = pipeline.model.connect(&outputs);
    let next = NextTokens::new(&rows(&expected), 0);
    let logits = pipeline.model.next_token_logits(&next, Some(&features)).unwrap();
    (token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64).backward();
    for (name, variable) in vs.variables() {
        let expected = &expected[&format!("grad.{name}")];
        let scale = expected.abs().max().double_value(&[]);
        assert!(largest_difference(&variable.grad(), expected) <= 1e-3 * scale + 1e-6, "{name}");
    }
}
