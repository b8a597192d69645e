//! Co-attention models equal plain PyTorch versions of them (`data/goldens/vqa-co-attention`, written by
//! `xtask/goldens/vqa-co-attention.py`), and an answer does not depend on the batch.

mod batches;
mod goldens;
mod training;

use mm_vqa::co_attention::{CoAttentionConfig, CoAttentionHead, ImageTokens};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

const FOLDERS: [&str; 4] = ["guided", "guided-tanh", "parallel", "mcan"];

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vqa-co-attention").join(folder)
}

fn config(folder: &str) -> (ImageTokens, CoAttentionConfig) {
    let json: Value =
        serde_json::from_slice(&std::fs::read(golden(folder).join("config.json")).unwrap()).unwrap();
    let width = json["tokens"]["width"].as_i64().unwrap();
    let positions = json["tokens"]["positions"].as_i64();
    (ImageTokens { width, positions }, serde_json::from_value(json["model"].clone()).unwrap())
}

/// The model of `folder` with its weights.
fn head(folder: &str) -> (VarStore, CoAttentionHead) {
    let (tokens, config) = config(folder);
    let vs = VarStore::new(Device::Cpu);
    let head = CoAttentionHead::new(&vs.root(), tokens, &config).unwrap();
    let file = golden(folder).join("model.safetensors");
    mm_core::checkpoint::load(&vs, &file, mm_core::checkpoint::hf_names).unwrap();
    (vs, head)
}

fn expected(folder: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden(folder).join("expected.safetensors")).unwrap().into_iter().collect()
}

/// The logits of all questions of `expected`.
fn logits(head: &CoAttentionHead, expected: &HashMap<String, Tensor>) -> Tensor {
    let image_tokens = head.project(&expected["image_tokens"]);
    head.forward(&image_tokens, &expected["image_index"], &expected["input_ids"], &expected["lengths"])
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
