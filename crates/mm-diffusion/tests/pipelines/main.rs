//! Models and whole pipelines equal diffusers' (`data/goldens/diffusion`, written by
//! `xtask/goldens/diffusion.py`).

mod attention;
mod autoencoder;
mod batches;
mod cases;
mod inversions;
mod refusals;
mod safety;
mod unet;

use mm_core::checkpoint::Weights;
use mm_diffusion::{DiffusionPipeline, PipelineOptions};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion").join(name)
}

fn expected(folder: &str) -> HashMap<String, Tensor> {
    let file = golden(folder).join("expected.safetensors");
    Tensor::read_safetensors(file).unwrap().into_iter().collect()
}

fn json(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(file)).unwrap()).unwrap()
}

fn weights(part: &str) -> Weights {
    Weights::open(&golden(part).join("diffusion_pytorch_model.safetensors")).unwrap()
}

fn open(folder: &str, options: &PipelineOptions) -> DiffusionPipeline {
    DiffusionPipeline::open(golden(folder).to_str().unwrap(), options).unwrap()
}

/// Asserts that no element differs by more than `limit`.
fn assert_equal(what: &str, found: &Tensor, expected: &Tensor, limit: f64) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let off = (found - expected).abs().max().double_value(&[]);
    assert!(off <= limit, "{what} is off by {off}");
}
