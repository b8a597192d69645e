//! LoRA on a CLIP against PEFT: outputs, gradients, and files that each reads of the other. With
//! `MM_PEER_PYTHON`, a Python with peft and transformers, PEFT itself opens what is written here.

use crate::folders::{Variant, Whole, assert_same, golden, goldens, rows};
use crate::training::{config, train};
use mm_clip::{Clip, ClipTask, ModelFolder};
use mm_core::checkpoint::{TensorLayout, Weights, hf_names};
use mm_core::config::ConfigFile;
use mm_core::lora::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Lora, record_linears};
use mm_core::read_json;
use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
use mm_text::TokenBatch;
use mm_train::{Resume, read_config};
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
names = ["image_embeds", "text_embeds", "loss"]
print(max((output[name] - expected[name]).abs().max().item() for name in names))
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

/// `[lora]` of a run.
const LORA: [&str; 3] = [
    "lora={ rank = 2, dropout = 0.2, targets = ['q_proj', 'v_proj', 'vision_model.*.fc1'] }",
    "train.checkpoint_every=1",
    "train.gradient_checkpointing=true",
];

fn tensors(file: &Path) -> Vec<(String, Tensor)> {
    let weights = Weights::open(file).unwrap();
    let read = |name: String| (name.clone(), weights.tensor(&name).unwrap());
    weights.list().into_iter().map(|tensor| read(tensor.name)).collect()
}

#[test]
fn a_run_of_adapters_checkpoints_only_them_resumes_bit_for_bit_and_saves_a_merged_model() {
    let base = Whole::new("clip/clip", Variant::Plain).unwrap();
    let model = format!("from = {:?}", base.path());
    let two_steps = [&LORA[..], &["train.steps=2"]].concat();
    let out = tempfile::tempdir().unwrap();
    let unbroken = train(&config(out.path(), &model, &two_steps), &Resume::No);
    let other = tempfile::tempdir().unwrap();
    let mut resumed = config(other.path(), &model, &two_steps);
    resumed.train.steps = 1;
    train(&resumed, &Resume::No);
    resumed.train.steps = 2;
    let resumed = train(&resumed, &Resume::Latest);

    let checkpoint = |run: &Path| tensors(&run.join("checkpoints/latest/model.safetensors"));
    assert!(checkpoint(&unbroken) == checkpoint(&resumed), "resumed equals unbroken, bit for bit");
    let names: Vec<String> = checkpoint(&unbroken).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() == 2 * (4 + 4 + 2) && names.iter().all(|name| name.contains(".lora_")), "{names:?}");
    let merged = unbroken.join("model");
    assert!(tensors(&merged.join("model.safetensors")) == tensors(&resumed.join("model/model.safetensors")));

    let folder = ModelFolder::open(base.path()).unwrap();
    let clip_config = folder.clip().unwrap().clone();
    let vs = VarStore::new(Device::Cpu);
    let (_, linears) =
        record_linears(|| folder.build(&vs, None, |path| Clip::new(path, &clip_config)).unwrap());
    let lora = Lora::open(&merged.join("adapter"), &linears, hf_names, &vs).unwrap();
    let mut expected = mm_core::checkpoint::stored(lora.merged_variables(&vs), &TensorLayout::HF);
    expected.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert!(
        expected == tensors(&merged.join("model.safetensors")),
        "the model is the base with its adapters"
    );
    let moved: f64 =
        rows(base.path()).iter().zip(rows(merged.to_str().unwrap())).map(|(a, b)| apart(a, &b)).sum();
    assert!(moved > 1e-6, "nothing was trained");
    let message = ModelFolder::open(unbroken.join("checkpoints/latest").to_str().unwrap()).unwrap_err();
    assert!(message.to_string().contains("is a checkpoint of adapters (LoRA)"), "{message}");
    assert_same(&rows(merged.to_str().unwrap()), &rows(resumed.join("model").to_str().unwrap()), "resumed");
}

#[test]
fn a_lora_table_that_cannot_be_used_is_refused_with_its_line_and_key() {
    let from = format!("from = {:?}", golden("clip"));
    let message = |model: &str, lora: &str| {
        let text = format!(
            "[run]\ntask = \"clip\"\nname = \"tuned\"\n[data]\ntrain = {{ kind = \"emoji\" }}\n\
             [train]\nsteps = 1\nbatch_size = 4\nlr = 1e-3\n[model]\n{model}\n[lora]\n{lora}\n"
        );
        let mut file = ConfigFile::from_text("c.toml", &text, &[]).unwrap();
        read_config::<ClipTask>(&mut file).map(drop).unwrap_err().to_string()
    };
    let good = "targets = [\"q_proj\"]";
    let wrong = message(&from, "targets = [\"qproj\"]");
    assert!(
        wrong.contains("c.toml:13: `lora.targets`: \"qproj\" matches no linear layer; near names are q_proj"),
        "{wrong}"
    );
    assert!(message(&from, "rank = 0\ntargets = [\"q_proj\"]").contains("c.toml:13: `lora.rank` must be"));
    assert!(message(&from, "ranks = 4").contains("did you mean `rank`?"));
    let locked = message(&format!("{from}\nlock_text = {{}}"), good);
    assert!(locked.contains("`model.lock_text`: `[lora]` freezes the whole model already"), "{locked}");
    let new = "embed_dim = 8\nimage_from = \"a\"\ntext_from = \"b\"";
    assert!(message(new, good).contains("set `model.from`"), "{}", message(new, good));
}
