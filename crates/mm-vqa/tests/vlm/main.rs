//! Vision-language models equal transformers' (`data/goldens/vlm`, written by `xtask/goldens/vlm.py`).

mod errors;
mod folders;
mod generation;
mod lora;
mod models;
mod processors;
mod training;

use mm_image::RgbImage;
use mm_vqa::vlm::{VlmFolder, VlmPipeline};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The folders of whole models.
const FOLDERS: [&str; 3] = ["smolvlm", "llava", "llava-interleave"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vlm").join(name)
}

fn json<T: DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn tensors(file: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden(file)).unwrap().into_iter().collect()
}

/// The model in `folder`, that its variables are in.
fn open(folder: &Path) -> (VlmPipeline, VarStore) {
    let vs = VarStore::new(Device::Cpu);
    let folder = VlmFolder::open(folder.to_str().unwrap()).unwrap();
    (VlmPipeline::load(&folder, &vs).unwrap(), vs)
}

fn photo(name: &str) -> RgbImage {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/photos");
    mm_image::decode(&std::fs::read(folder.join(format!("{name}.png"))).unwrap(), [255; 3]).unwrap()
}

/// `pixel_values` of 8-bit `levels` `[T, 3, H, W]`.
fn normalized(pipeline: &VlmPipeline, levels: &Tensor) -> Tensor {
    pipeline.processor.normalize_batch(&images(levels)).unwrap()
}

/// The images of 8-bit `levels` `[T, 3, H, W]`.
fn images(levels: &Tensor) -> Vec<RgbImage> {
    let (count, _, height, width) = levels.size4().unwrap();
    (0..count)
        .map(|index| {
            let pixels = levels.get(index).permute([1, 2, 0]).contiguous();
            let pixels: Vec<u8> = Vec::try_from(pixels.view(-1)).unwrap();
            RgbImage::from_raw(width as u32, height as u32, pixels).unwrap()
        })
        .collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let float = |tensor: &Tensor| tensor.to_kind(Kind::Float);
    (float(a) - float(b)).abs().max().double_value(&[])
}

/// The folder of `from` in `to`, with `model.safetensors` and `config.json` as `change` leaves them.
fn copied(from: &str, to: &Path) {
    for file in std::fs::read_dir(golden(from)).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}
