//! LoRA on a CLIP against PEFT: outputs, gradients, and files that each reads of the other. With
//! `MM_PEER_PYTHON`, a Python with peft and transformers, PEFT itself opens what is written here.

use crate::folders::{golden, goldens};
use mm_clip::{Clip, ModelFolder};
use mm_core::checkpoint::{TensorLayout, Weights, hf_names};
use mm_core::lora::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Lora, record_linears};
use mm_core::read_json;
use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
use mm_text::TokenBatch;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// Opens an adapter folder and compares image embeddings with those expected.
const OPEN: &str = r#"
import sys, torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import CLIPModel
base, adapter, expected = sys.argv[1:]
expected, inputs = load_file(expected), load_file(base + "/expected.safetensors")
model = PeftModel.from_pretrained(CLIPModel.from_pretrained(base), adapter).eval()
with torch.no_grad():
    output = model(pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"], return_loss=True)
print(max((output[name] - expected[name]).abs().max().item() for name in ["image_embeds", "text_embeds", "loss"]))
"#;

/// The file or folder `name` of data/goldens/lora.
fn adapter_golden(name: &str) -> PathBuf {
    goldens().join("lora").join(name)
}

fn expected(file: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file).unwrap().into_iter().collect()
}

struct Adapted {
    vs: VarStore,
    clip: Clip,
    lora: Lora,
}

/// The golden CLIP with the adapters of PEFT.
fn open() -> Adapted {
    let folder = ModelFolder::open(golden("clip").to_str().unwrap()).unwrap();
    let config = folder.clip().unwrap().clone();
    let vs = VarStore::new(Device::Cpu);
    let (clip, linears) =
        record_linears(|| folder.build(&vs, None, |path| Clip::new(path, &config)).unwrap());
    let lora = Lora::open(&adapter_golden("adapter"), &linears, hf_names, &vs).unwrap();
    Adapted { vs, clip, lora }
}

fn embed(clip: &Clip) -> (Tensor, Tensor) {
    let inputs = expected(&golden("clip").join("expected.safetensors"));
    let input_ids = inputs["input_ids"].shallow_clone();
    let tokens = TokenBatch { attention_mask: input_ids.ones_like(), input_ids };
    (clip.image.encode(&inputs["pixel_values"], false), clip.text.encode(&tokens))
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a.reshape(-1) - b.reshape(-1)).abs().max().double_value(&[])
}

#[test]
fn outputs_and_gradients_of_adapters_are_those_of_peft() {
    let Adapted { vs, clip, lora } = open();
    let expected = expected(&adapter_golden("expected.safetensors"));
    let (image_embeds, text_embeds) = embed(&clip);
    let contrastive = Contrastive::new(&ProcessGroup::alone(), ContrastiveConfig::default());
    let loss = clip.head.loss(&contrastive, &image_embeds, &text_embeds).unwrap();
    for (name, found) in [("image_embeds", &image_embeds), ("text_embeds", &text_embeds), ("loss", &loss)] {
        let apart = apart(found, &expected[name]);
        assert!(apart <= 1e-5, "{name} differs by {apart}");
    }
    loss.backward();
    let gradients: Vec<&str> = expected.keys().filter_map(|name| name.strip_prefix("gradient.")).collect();
    assert_eq!(gradients.len(), lora.variables().len());
    for name in gradients {
        let apart = apart(&lora.variables().variables()[name].grad(), &expected[&format!("gradient.{name}")]);
        assert!(apart <= 1e-5, "the gradient of {name} differs by {apart}");
    }
    assert!(vs.variables().values().all(|variable| !variable.grad().defined()), "the base model is frozen");
}

#[test]
fn merged_weights_give_the_outputs_of_peft_and_save_as_a_plain_model() {
    let Adapted { vs, clip, lora } = open();
    let expected = expected(&adapter_golden("expected.safetensors"));
    let merged = lora.merged_variables(&vs);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    mm_core::checkpoint::write(&file, &mm_core::checkpoint::stored(merged, &TensorLayout::HF)).unwrap();
    std::fs::copy(golden("clip").join("config.json"), folder.path().join("config.json")).unwrap();
    let saved = ModelFolder::open(folder.path().to_str().unwrap()).unwrap();
    let config = saved.clip().unwrap().clone();
    let plain = saved.build(&VarStore::new(Device::Cpu), None, |path| Clip::new(path, &config)).unwrap();
    lora.merge();
    for clip in [&plain, &clip] {
        let apart = apart(&embed(clip).0, &expected["merged_image_embeds"]);
        assert!(apart <= 1e-5, "image_embeds differ by {apart}");
    }
}

#[test]
fn adapters_are_written_as_peft_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    open().lora.save(folder.path(), Some("clip")).unwrap();
    let peft = adapter_golden("adapter");
    let tensors = |folder: &Path| {
        let weights = Weights::open(&folder.join(ADAPTER_WEIGHTS_FILE)).unwrap();
        let read = |name: String| (weights.tensor(&name).unwrap(), name);
        weights.list().into_iter().map(|tensor| read(tensor.name)).collect::<Vec<_>>()
    };
    assert_eq!(tensors(folder.path()), tensors(&peft));
    let read = |folder: &Path| read_json::<Value>(&folder.join(ADAPTER_CONFIG_FILE)).unwrap();
    let (ours, theirs) = (read(folder.path()), read(&peft));
    for (key, value) in ours.as_object().unwrap() {
        // The layers are named by PEFT's targets there, and one by one here.
        assert!(key == "target_modules" || *value == theirs[key], "{key} is {value} for {}", theirs[key]);
    }
    let Some(python) = std::env::var_os("MM_PEER_PYTHON") else {
        println!("not opened by PEFT: MM_PEER_PYTHON names no Python with peft");
        return;
    };
    let mut command = Command::new(python);
    command.args(["-c", OPEN]).arg(golden("clip")).arg(folder.path());
    let output = command.arg(adapter_golden("expected.safetensors")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let apart: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!(apart <= 1e-5, "PEFT computes other outputs, by {apart}");
}
