//! The goldens of co-attention models.

use mm_vqa::co_attention::{CoAttentionConfig, CoAttentionHead, ImageTokens};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vqa-co-attention").join(folder)
}

pub fn config(folder: &str) -> (ImageTokens, CoAttentionConfig) {
    let json: Value =
        serde_json::from_slice(&std::fs::read(golden(folder).join("config.json")).unwrap()).unwrap();
    let width = json["tokens"]["width"].as_i64().unwrap();
    let positions = json["tokens"]["positions"].as_i64();
    (ImageTokens { width, positions }, serde_json::from_value(json["model"].clone()).unwrap())
}

/// The model of `folder` with its weights.
pub fn head(folder: &str) -> (VarStore, CoAttentionHead) {
    let (tokens, config) = config(folder);
    let vs = VarStore::new(Device::Cpu);
    let head = CoAttentionHead::new(&vs.root(), tokens, &config).unwrap();
    let file = golden(folder).join("model.safetensors");
    mm_core::checkpoint::load(&vs, &file, mm_core::checkpoint::hf_names).unwrap();
    (vs, head)
}

pub fn expected(folder: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden(folder).join("expected.safetensors")).unwrap().into_iter().collect()
}

/// The logits of all questions of `expected`.
pub fn logits(head: &CoAttentionHead, expected: &HashMap<String, Tensor>) -> Tensor {
    let image_tokens = head.project(&expected["image_tokens"]);
    head.forward(&image_tokens, &expected["image_index"], &expected["input_ids"], &expected["lengths"])
}
