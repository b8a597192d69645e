//! Outputs, gradients and generated texts equal transformers' (`data/goldens/caption`, written by
//! `xtask/goldens/caption.py`).

mod generation;
mod models;
mod tokenizers;

use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption").join(name)
}

fn json<T: DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn expected(folder: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden(folder).join("expected.safetensors")).unwrap().into_iter().collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
