//! Runs of diffusion models resume exactly, equal themselves on two processes, and leave models that open.

use crate::common::{failure, success};
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks;
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model that trains a step in milliseconds.
const CONFIG: &str = r#"
[run]
task = "diffusion"
name = "small"
seed = 7
out = "OUT"

[data]
train.kind = "mix"
eval.unseen = { kind = "shapes", samples = 6, seed = 1, size = 16, scenes = "prompts", objects = [1, 3] }
workers = 2

[[data.train.sources]]
weight = 1.0
source = { kind = "shapes", samples = 300, size = 16, scenes = "prompts", objects = [1, 3] }

[[data.train.sources]]
weight = 1.0
source = { kind = "shapes", samples = 300, size = 16, scenes = "prompts", CONTENT }

[train]
steps = 40
batch_size = 8
lr = 2e-3
warmup = 5
clip_grad = 1.0
ema = 0.9
checkpoint_every = 10
log_every = 1
optimizer = "OPTIMIZER"

[sample]
prompts = 4
steps = 3
guidance = [2.0, 1.0]
"#;

pub const PIXELS: &str = r#"
[model.transformer]
sample_size = 16
patch_size = 4
in_channels = 6
out_channels = 3
num_layers = 2
attention_head_dim = 8
num_attention_heads = 2
pos_embed_max_size = 4
qk_norm = "rms_norm"

[model.text]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 24

[tokenizer]
vocab_size = 600

[objective]
kind = "flow"
prediction = "sample"
shift = 2.0
"#;

pub fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/diffusion/{name}", env!("CARGO_MANIFEST_DIR"))
}

const EDITS: &str = "content = \"edits\", edits = [\"recolour\"]";

/// Writes a configuration with the second set's `content` and the tables `more`, and runs in `folder`.
fn write(folder: &Path, more: &str, optimizer: &str, content: &str) -> PathBuf {
    let file = folder.join("small.toml");
    let text = CONFIG.replace("OUT", folder.to_str().unwrap()).replace("OPTIMIZER", optimizer);
    std::fs::write(&file, text.replace("CONTENT", content) + more).unwrap();
    file
}

#[test]
fn a_model_in_pixels_resumes_bit_for_bit_and_every_checkpoint_opens() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), PIXELS, "muon", EDITS);
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    for model in ["straight/model", "straight/checkpoints/latest"] {
        let (model, config) = (folder.path().join(model), config.to_str().unwrap());
        let report = success(&["eval", config, "--model", model.to_str().unwrap(), "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap();
        let loss = report[0]["metrics"]["loss"].as_f64().unwrap();
        assert!(loss > 0.0 && loss < 10.0, "{model:?}: {loss}");
    }
}

#[test]
fn two_processes_train_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), PIXELS, "adamw", EDITS);
    let config = config.to_str().unwrap();
    success(&["train", config, "--set", "run.name=one"]);
    ranks::success(&["train", config, "--set", "run.name=two"], 2);
    let run = |name: &str| folder.path().join(name);
    assert_same_losses(&run("one"), &run("two"));
    assert_same_weights(&run("one"), &run("two"));
}

#[test]
fn adapters_of_a_u_net_resume_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!(
        "\n[model]\nfrom = {:?}\n\n[objective]\nkind = \"ddpm\"\nmin_snr_gamma = 5.0\nnoise_offset = 0.05\n\n\
         [lora]\nrank = 2\ntargets = [\"to_q\", \"to_v\"]\n",
        golden("sd1")
    );
    // A U-Net of images alone reads no edits.
    let config = write(folder.path(), &more, "adamw", "objects = [1, 2]");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    assert!(folder.path().join("straight/model/adapter/adapter_model.safetensors").exists());
    let model = folder.path().join("straight/model");
    success(&["eval", config.to_str().unwrap(), "--model", model.to_str().unwrap(), "--json"]);
}

#[test]
fn an_objective_that_the_model_does_not_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!("\n[model]\nfrom = {:?}\n", golden("sd1"));
    let config = write(folder.path(), &more, "adamw", EDITS);
    let error = failure(&["train", config.to_str().unwrap()], 1);
    assert!(error.contains("objective.kind = \"ddpm\""), "{error}");
    let ddpm = PIXELS.replace("kind = \"flow\"\nprediction = \"sample\"\nshift = 2.0", "kind = \"ddpm\"");
    let config = write(folder.path(), &ddpm, "adamw", EDITS);
    let error = failure(&["train", config.to_str().unwrap()], 2);
    assert!(error.contains("objective.kind"), "{error}");
}
