//! Decoders of Llama's form equal transformers' (`data/goldens/llama`, written by `xtask/goldens/llama.py`).

mod generation;
mod language_model;
mod models;

use mm_core::hf::HfFolder;
use mm_text::LanguageModel;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// The folders of text models.
const FOLDERS: [&str; 3] = ["llama", "llama-linear", "qwen2"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/llama").join(name)
}

fn json<T: DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn tensors(file: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file).unwrap().into_iter().collect()
}

fn load(folder: &str) -> (VarStore, LanguageModel) {
    let vs = VarStore::new(Device::Cpu);
    let model = LanguageModel::load(&HfFolder::at(golden(folder)), &vs).unwrap();
    (vs, model)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
