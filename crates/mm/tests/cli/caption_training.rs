//! Runs of captioners resume exactly, equal themselves on two processes, and save what the peers' forms hold.

use crate::common::{failure, success};
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks;
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use std::path::{Path, PathBuf};

/// A captioner that trains a step in milliseconds.
const CONFIG: &str = r#"
[run]
task = "caption"
name = "small"
seed = 7
out = "OUT"

MODEL

[input]
canonical_share = 0.5

[data]
train = { kind = "shapes", samples = 300, objects = [1, 2] }
eval.unseen = { kind = "shapes", samples = 12, seed = 1, objects = [1, 2] }
workers = 2

[train]
steps = 40
batch_size = 8
lr = 2e-3
warmup = 5
clip_grad = 1.0
ema = 0.9
checkpoint_every = 10
log_every = 1

[generate]
max_new_tokens = 12
"#;

const NEW: &str = r#"
[model]
image.kind = "resnet"
image.depth = 18
image.width = 4
image.image_size = 32
decoder.kind = "gpt2"
decoder.n_embd = 16
decoder.n_layer = 1
decoder.n_head = 2
decoder.n_positions = 64

[tokenizer]
vocab_size = 600
"#;

/// Writes the configuration with the tables `model` and `more`, and runs in `folder`.
pub fn write_config(folder: &Path, model: &str, more: &str) -> PathBuf {
    let file = folder.join("small.toml");
    let text = CONFIG.replace("OUT", folder.to_str().unwrap()).replace("MODEL", model) + more;
    std::fs::write(&file, text).unwrap();
    file
}

/// A captioner of transformers.
pub fn golden(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption").join(name);
    format!("[model]\nfrom = {folder:?}\n")
}

const SCST: &str = "\n[scst]\nsamples = 3\nmax_new_tokens = 8\nscene = 0.5\n";

#[test]
fn a_captioner_with_a_resnet_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), NEW, "");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    // The run is a model, and a checkpoint too.
    for model in ["straight/model", "straight/checkpoints/latest"] {
        let model = folder.path().join(model);
        let config = config.to_str().unwrap();
        let report = success(&["eval", config, "--model", model.to_str().unwrap(), "--json"]);
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report[0]["samples"], 12);
        assert!(report[0]["metrics"]["cider_d"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn self_critical_training_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &golden("vit-gpt2"), SCST);
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
}

#[test]
fn adapters_of_blip_resume_bit_for_bit_and_the_merged_model_opens() {
    let folder = tempfile::tempdir().unwrap();
    let lora = "\n[lora]\nrank = 2\ntargets = [\"query\", \"value\", \"qkv\"]\n";
    let config = write_config(folder.path(), &golden("blip"), lora);
    // What adapters save is the run's; the merged model is compared too.
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    assert!(folder.path().join("straight/model/adapter/adapter_model.safetensors").exists());
}

#[test]
fn two_processes_train_a_captioner_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &golden("blip-large"), "\n[loss]\nlabel_smoothing = 0.1\n");
    let train = |world: usize| {
        let name = format!("run.name=run-{world}");
        let arguments = ["train", config.to_str().unwrap(), "--set", &name, "--set", "train.steps=20"];
        ranks::success(&arguments, world);
        folder.path().join(format!("run-{world}"))
    };
    let (one, two) = (train(1), train(2));
    assert_same_losses(&one, &two);
    assert_same_weights(&one, &two);
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let line = |model: &str, more: &str| {
        let config = write_config(folder.path(), model, more);
        failure(&["train", config.to_str().unwrap()], 2)
    };
    for (model, more, expected) in [
        (NEW, "\n[scst]\nsamples = 1\n", "`scst.samples`: must be at least 2"),
        (NEW, "num_beems = 3\n", "did you mean `num_beams`?"),
        (NEW, "num_beams = 0\n", "num_beams is 0"),
        (&golden("blip"), "\n[tokenizer]\nvocab_size = 100\n", "has a tokenizer already"),
        (&golden("blip"), "\n[lora]\ntargets = [\"qvk\"]\n", "qkv"),
        ("[model]\nimage.kind = \"resnet\"\n", "", "`model.decoder`: missing"),
        ("[model]\ndecoder.kind = \"gpt2\"\n", "", "`model.image`: missing"),
    ] {
        let error = line(model, more);
        assert!(error.contains("small.toml:") && error.contains(expected), "{error}");
    }
    let config = write_config(folder.path(), "[model]\nfrom = \"nowhere\"\n", "");
    assert!(failure(&["train", config.to_str().unwrap()], 1).contains("nowhere"));
}
