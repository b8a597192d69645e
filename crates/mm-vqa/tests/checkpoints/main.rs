//! Outputs, gradients, answers and ranks equal transformers' (`data/goldens/vqa`, written by
//! `xtask/goldens/vqa.py`).

mod blip;
mod blip_answers;
mod folders;
mod vilt;

use mm_core::checkpoint::{TensorLayout, stored};
use mm_vqa::VqaFolder;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::Tensor;
use tch::nn::VarStore;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vqa").join(name)
}

fn open(name: &str) -> VqaFolder {
    VqaFolder::open(golden(name).to_str().unwrap()).unwrap()
}

fn json<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&std::fs::read(golden(file)).unwrap()).unwrap()
}

fn expected(folder: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden(folder).join("expected.safetensors")).unwrap().into_iter().collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Compares all gradients of the variables with those of `expected`, to 1e-3 of their largest.
fn assert_gradients_equal(vs: &VarStore, expected: &HashMap<String, Tensor>) {
    let with_gradient = vs.variables().into_iter().filter(|(_, variable)| variable.grad().defined());
    let gradients = with_gradient.map(|(name, variable)| (name, variable.grad()));
    let gradients: HashMap<String, Tensor> = stored(gradients, &TensorLayout::HF).into_iter().collect();
    let mut compared = 0;
    for (name, expected) in
        expected.iter().filter_map(|(name, value)| Some((name.strip_prefix("grad.")?, value)))
    {
        let scale = expected.abs().max().double_value(&[]);
        // Of the keys' biases it is rounding alone: the softmax does not see them.
        let difference = largest_difference(&gradients[name], expected);
        assert!(difference <= 1e-3 * scale + 1e-6, "{name}: {difference} of {scale}");
        compared += 1;
    }
    assert_eq!(compared, gradients.len());
}
