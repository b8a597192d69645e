//! Runs of models that read documents resume exactly and equal themselves on two processes.

use crate::common::{failure, success};
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks;
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model that trains a step in milliseconds: pages become 56 x 80 pixels.
const CONFIG: &str = r#"
[run]
task = "document"
name = "small"
seed = 7
out = "OUT"

[model.encoder]
image_size = [80, 56]
embed_dim = 8
depths = [1, 1]
num_heads = [2, 2]
window_size = 4

[model.decoder]
d_model = 16
decoder_layers = 2
decoder_attention_heads = 2
decoder_ffn_dim = 32
max_position_embeddings = 96

[input]
schema = "invoice"
max_tokens = 96

[data]
train = { kind = "invoices", samples = 300, fields = ["date", "total"], blank = 0.1 }
eval.unseen = { kind = "invoices", split = "held_out", samples = 4, fields = ["date", "total"] }
workers = 2

[train]
steps = 40
batch_size = 4
lr = 2e-3
warmup = 5
clip_grad = 1.0
ema = 0.9
checkpoint_every = 10
log_every = 1

[generate]
max_new_tokens = 20
"#;

const GUIDED: &str = "\n[loss]\ncharacters = 1.0\nattention = 0.5\n";

fn write_config(folder: &Path, more: &str) -> PathBuf {
    let file = folder.join("small.toml");
    std::fs::write(&file, CONFIG.replace("OUT", folder.to_str().unwrap()) + more).unwrap();
    file
}

#[test]
fn a_new_model_resumes_bit_for_bit_and_every_checkpoint_opens() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), GUIDED);
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    for model in ["straight/model", "straight/checkpoints/latest"] {
        let (model, config) = (folder.path().join(model), config.to_str().unwrap());
        let report = success(&["eval", config, "--model", model.to_str().unwrap(), "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap();
        let metrics = &report[0]["metrics"];
        for name in ["all_fields_exact", "exact/total", "f1/date", "tree_edit_accuracy", "anls", "finished"] {
            let value = metrics[name].as_f64().unwrap_or_else(|| panic!("{name} is missing: {metrics}"));
            assert!((0.0..=1.0).contains(&value), "{name} {value}");
        }
    }
    let losses = ranks::losses(&folder.path().join("straight"));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[30..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
}

#[test]
fn two_processes_train_a_model_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), GUIDED);
    let train = |world: usize| {
        let name = format!("run.name=run-{world}");
        let arguments = ["train", config.to_str().unwrap(), "--set", &name, "--set", "train.steps=10"];
        ranks::success(&arguments, world);
        folder.path().join(format!("run-{world}"))
    };
    let (one, two) = (train(1), train(2));
    assert_same_losses(&one, &two);
    assert_same_weights(&one, &two);
}

#[test]
fn the_scores_of_a_blind_model_stand_beside_those_of_one_that_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), "");
    let config = config.to_str().unwrap();
    let blind = ["--set", "input.blind=true", "--set", "run.name=blind", "--set", "train.steps=5"];
    success(&[&["train", config], &blind[..]].concat());
    let beside = format!("metrics.blind={}", folder.path().join("blind/model").display());
    let run = ["--set", beside.as_str(), "--set", "train.steps=5"];
    success(&[&["train", config], &run[..]].concat());
    let report: Value = serde_json::from_str(&success(&["eval", config, run[0], run[1], "--json"])).unwrap();
    assert!(report[0]["metrics"]["blind_all_fields_exact"].as_f64().is_some(), "{report}");
}

#[test]
fn a_configuration_that_cannot_be_trained_is_refused_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), GUIDED);
    for (set, code, expected) in [
        ("input.blind=true", 2, "nothing is printed on the blank page"),
        ("input.schema=a b", 2, "must be a word"),
        ("loss.attention=-1", 2, "must be a number of at least 0"),
        ("model.from=somewhere", 2, "the checkpoint that `model.from` names has it already"),
        ("input.schema=receipt", 1, "is a document of `input.schema` \"receipt\""),
    ] {
        let error = failure(&["train", config.to_str().unwrap(), "--set", set], code);
        assert!(error.contains(expected), "{set}: {error}");
    }
}
