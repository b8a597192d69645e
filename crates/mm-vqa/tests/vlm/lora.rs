//! Adapters equal PEFT's (`data/goldens/vlm-lora`, written by `xtask/goldens/vlm-lora.py`).

use crate::{golden, images, largest_difference, tensors};
use mm_core::lora::{Linears, Lora, record_linears};
use mm_core::loss::token_cross_entropy;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_vqa::vlm::{VlmFolder, VlmPipeline};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const FOLDERS: [&str; 2] = ["smolvlm", "llava"];

fn lora_golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vlm-lora").join(name)
}

/// The model `name` with its variables and linear layers.
fn recorded(name: &str) -> (VlmPipeline, VarStore, Linears) {
    let vs = VarStore::new(Device::Cpu);
    let folder = VlmFolder::open(golden(name).to_str().unwrap()).unwrap();
    let (pipeline, linears) = record_linears(|| VlmPipeline::load(&folder, &vs));
    (pipeline.unwrap(), vs, linears)
}

/// The batch of the goldens of `name`, and its images.
fn batch(pipeline: &VlmPipeline, name: &str) -> (NextTokens, Tensor, Tensor) {
    let expected = tensors(&format!("{name}/expected.safetensors"));
    let row = |index: i64| {
        let length = expected["attention_mask"].get(index).sum(Kind::Int64).int64_value(&[]);
        let ids: Vec<i64> = Vec::try_from(expected["input_ids"].get(index).narrow(0, 0, length)).unwrap();
        let labels: Vec<i64> = Vec::try_from(expected["labels"].get(index)).unwrap();
        let prompt_length = labels.iter().take_while(|&&label| label == -100).count();
        CaptionTokens { token_ids: ids.into_iter().map(|id| id as u32).collect(), prompt_length }
    };
    let levels = tensors(&format!("{name}/items.safetensors"));
    let tiles = images(&Tensor::cat(&[&levels["0"], &levels["1"]], 0));
    let pixels = pipeline.processor.normalize_batch(&tiles).unwrap();
    (NextTokens::new(&[row(0), row(1)], 0), pixels, expected["attention_mask"].shallow_clone())
}

fn names(file: &Path) -> BTreeSet<String> {
    Tensor::read_safetensors(file).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn adapters_of_peft_give_its_logits_and_gradients_and_are_saved_under_its_names() {
    for name in FOLDERS {
        let (pipeline, vs, linears) = recorded(name);
        let family = pipeline.config.family;
        let folder = lora_golden(name).join("adapter");
        let lora = Lora::open(&folder, &linears, family.lora_names(), &vs).unwrap();
        let file = lora_golden(name).join("expected.safetensors");
        let expected: HashMap<String, Tensor> = Tensor::read_safetensors(file).unwrap().into_iter().collect();
        let (next, pixels, mask) = batch(&pipeline, name);
        let features = pipeline.model.image_features(&pixels);
        let ids = &tensors(&format!("{name}/expected.safetensors"))["input_ids"];
        let hidden = pipeline.model.forward(ids, Some(&features)).unwrap();
        let real = mask.unsqueeze(-1);
        let difference =
            largest_difference(&(pipeline.model.logits(&hidden) * &real), &(&expected["logits"] * &real));
        assert!(difference <= 1e-4, "{name}: logits {difference}");

        let logits = pipeline.model.next_token_logits(&next, Some(&features)).unwrap();
        let loss = token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64;
        let relative = (&loss / &expected["loss"]).double_value(&[]) - 1.0;
        assert!(relative.abs() <= 1e-4, "{name}: loss {relative}");
        loss.backward();
        let mut compared = 0;
        for (variable, tensor) in lora.variables().variables() {
            let Some(expected) = expected.get(&format!("gradient.{variable}")) else { continue };
            let scale = expected.abs().max().double_value(&[]);
            let difference = largest_difference(&tensor.grad(), expected);
            assert!(difference <= 1e-3 * scale + 1e-6, "{name}: {variable}: {difference} of {scale}");
            compared += 1;
        }
        assert_eq!(compared + 2, expected.len(), "{name}");

        let saved = tempfile::tempdir().unwrap();
        lora.save(saved.path(), Some(name)).unwrap();
        let file = "adapter_model.safetensors";
        assert_eq!(names(&saved.path().join(file)), names(&folder.join(file)), "{name}");
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_by_the_name_of_a_layer() {
    let (pipeline, vs, linears) = recorded("smolvlm");
    let folder = lora_golden("llava").join("adapter");
    let error = Lora::open(&folder, &linears, pipeline.config.family.lora_names(), &vs).unwrap_err();
    assert!(error.to_string().contains("language_model"), "{error}");
}
