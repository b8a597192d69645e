//! Runs of vision-language models resume exactly, equal themselves on two processes, and learn.

use crate::common::{failure, success};
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks;
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model that trains a step in milliseconds.
const CONFIG: &str = r#"
[run]
task = "vlm"
name = "small"
seed = 7
out = "OUT"

MODEL

[input]
content = "questions"
max_tokens = 96
packing = true

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
max_new_tokens = 6
"#;

const NEW: &str = r#"
[model.image]
variant = "siglip"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
image_size = 32
patch_size = 8
layer_norm_eps = 1e-6

[model.text]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 128
tie_word_embeddings = true

[tokenizer]
vocab_size = 300
"#;

/// Writes the configuration with the tables `model` and `more`, and runs in `folder`.
fn write_config(folder: &Path, model: &str, more: &str) -> PathBuf {
    let file = folder.join("small.toml");
    let text = CONFIG.replace("OUT", folder.to_str().unwrap()).replace("MODEL", model) + more;
    std::fs::write(&file, text).unwrap();
    file
}

/// `[model]` from a model of transformers, with other `keys`.
fn golden(name: &str, keys: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vlm").join(name);
    format!("[model]\nfrom = {folder:?}\n{keys}\n")
}

#[test]
fn a_new_model_learns_and_resumes_bit_for_bit_and_both_run_and_checkpoint_open() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), NEW, "");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let losses = ranks::losses(&folder.path().join("straight"));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[35..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
    let model = folder.path().join("straight/model");
    for model in [model.clone(), folder.path().join("straight/checkpoints/latest")] {
        let arguments = ["eval", config.to_str().unwrap(), "--model", model.to_str().unwrap(), "--json"];
        let report: Value = serde_json::from_str(&success(&arguments)).unwrap();
        assert_eq!(report[0]["samples"], 12);
        for name in ["accuracy", "accuracy_blind", "loss", "perplexity", "finished"] {
            let value = report[0]["metrics"][name].as_f64();
            assert!(value.is_some_and(|value| value >= 0.0), "{name}: {report}");
        }
    }
    for file in ["chat_template.jinja", "processor_config.json", "tokenizer.json"] {
        assert!(model.join(file).exists(), "{file}");
    }
}

#[test]
fn adapters_of_smolvlm_resume_bit_for_bit_and_the_merged_model_opens() {
    let folder = tempfile::tempdir().unwrap();
    let lora = "\n[lora]\nrank = 2\ndropout = 0.1\ntargets = [\"q_proj\", \"v_proj\"]\n";
    let config = write_config(folder.path(), &golden("smolvlm", ""), lora);
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    assert!(folder.path().join("straight/model/adapter/adapter_model.safetensors").exists());
    let model = folder.path().join("straight/model");
    success(&["eval", config.to_str().unwrap(), "--model", model.to_str().unwrap(), "--json"]);
}

#[test]
fn the_projector_of_llava_alone_resumes_bit_for_bit_with_checkpointed_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &golden("llava", "train = \"connector\""), "");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[train]\n", "[train]\ngradient_checkpointing = true\n");
    std::fs::write(&config, text).unwrap();
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
}

#[test]
fn two_processes_train_a_model_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), NEW, "\n[loss]\nlabel_smoothing = 0.1\n");
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
fn a_wrong_configuration_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let smolvlm = golden("smolvlm", "");
    for (model, more, expected) in [
        (NEW.replace("\"siglip\"", "\"clip\""), "", "it must be siglip"),
        (NEW.replace("[tokenizer]\nvocab_size = 300", ""), "", "`tokenizer`: a new model needs"),
        (NEW.replace("vocab_size = 300", "vocab_size = 100"), "", "must be at least 262"),
        (format!("[model]\ntrain = \"text\"\n{NEW}"), "", "`model.train`: the other parts have random"),
        (format!("[model]\nscale_factor = 3\n{NEW}"), "", "no multiple of scale_factor 3"),
        ("[tokenizer]\nvocab_size = 300\n[model]\n".to_owned(), "", "`model.image`: missing"),
        (golden("smolvlm", "scale_factor = 2"), "", "`model.scale_factor`: the checkpoint"),
        (golden("smolvlm", "train = \"conector\""), "", "conector"),
        (smolvlm.clone(), "\n[tokenizer]\nvocab_size = 300\n", "has a tokenizer already"),
        (smolvlm.clone(), "\n[lora]\ntargets = [\"qproj\"]\n", "q_proj"),
        (golden("smolvlm", "train = \"text\""), "\n[lora]\ntargets = [\"q_proj\"]\n", "remove one"),
        (smolvlm, "\n[loss]\nlabel_smoothing = 1.0\n", "`loss.label_smoothing`"),
    ] {
        let config = write_config(folder.path(), &model, more);
        let error = failure(&["train", config.to_str().unwrap()], 2);
        assert!(error.contains("small.toml:") && error.contains(expected), "{expected}: {error}");
    }
    let config = write_config(folder.path(), "[model]\nfrom = \"nowhere\"\n", "");
    assert!(failure(&["train", config.to_str().unwrap()], 1).contains("nowhere"));
}
