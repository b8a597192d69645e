//! Models that read documents equal transformers' Donut (`data/goldens/donut`, written by
//! `xtask/goldens/donut.py`).

mod folders;
mod generation;
mod model;
mod pages;
mod readings;
mod sequences;

use mm_vqa::document::{DocumentFolder, DocumentModel, DocumentPipeline};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// The models: an encoder as wide as the decoder, and one of another width.
const MODELS: [&str; 2] = ["equal", "projected"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/donut").join(name)
}

fn open(name: &str) -> DocumentFolder {
    DocumentFolder::open(golden(name).to_str().unwrap()).unwrap()
}

/// A model that can be trained, with its variables.
fn build(name: &str) -> (VarStore, DocumentModel) {
    let vs = VarStore::new(Device::Cpu);
    let model = open(name).build(&vs).unwrap();
    (vs, model)
}

/// A model for inference.
fn pipeline(name: &str) -> DocumentPipeline {
    DocumentPipeline::open(golden(name).to_str().unwrap(), &mm_core::OpenOptions::default()).unwrap()
}

fn json<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&std::fs::read(golden(file)).unwrap()).unwrap()
}

fn tensors(file: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden(file)).unwrap().into_iter().collect()
}

fn expected(folder: &str) -> HashMap<String, Tensor> {
    tensors(&format!("{folder}/expected.safetensors"))
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
