//! The goldens.

use mm_core::checkpoint::{Weights, write};
use mm_core::read_json;
use mm_diffusion::lora::{Component, ComponentModules, LoraFile};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion-lora").join(name)
}

pub fn json(name: &str) -> Value {
    read_json(&golden(name)).unwrap()
}

/// A LoRA of the goldens: a file, or PEFT's folder.
pub fn lora(name: &str) -> PathBuf {
    let folder = golden(name);
    if folder.is_dir() && name.contains("folder") { folder } else { golden(&format!("{name}.safetensors")) }
}

/// The parts of a model of the goldens that a LoRA may change.
pub fn model(kind: &str) -> Vec<(Component, Weights)> {
    let part = |component: Component| {
        let file = golden(kind).join(format!("{}.safetensors", component.name()));
        file.exists().then(|| (component, Weights::open(&file).unwrap()))
    };
    Component::ALL.into_iter().filter_map(part).collect()
}

pub fn modules(model: &[(Component, Weights)]) -> ComponentModules {
    model
        .iter()
        .fold(ComponentModules::new(), |modules, (component, weights)| modules.with(*component, weights))
}

/// Applies a LoRA to all parts of a model and returns the number of changed layers.
pub fn apply(path: &Path, model: &mut [(Component, Weights)], scale: f64) -> usize {
    let file = LoraFile::open(path, &modules(model)).unwrap();
    model.iter_mut().map(|(component, weights)| file.apply(*component, weights, scale).unwrap()).sum()
}

pub fn magnitude(tensor: &Tensor) -> f64 {
    tensor.abs().sum(Kind::Double).double_value(&[])
}

pub fn assert_near(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{what}: {found}, expected {expected}");
}

/// The largest difference of two tensors of one shape.
pub fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// A file of `tensors` in `folder`.
pub fn stored(folder: &Path, tensors: &[(&str, Tensor)]) -> PathBuf {
    let file = folder.join("lora.safetensors");
    let tensors: Vec<_> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect();
    write(&file, &tensors).unwrap();
    file
}
