//! Runs of question answering models resume exactly and equal themselves on two processes.

use crate::common::{failure, success};
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks;
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use mm_core::checkpoint::Weights;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model that trains a step in milliseconds.
const CONFIG: &str = r#"
[run]
task = "vqa"
name = "small"
seed = 7
out = "OUT"

MODEL

[input]
questions_per_image = 3

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
"#;

/// A small model with the fusion `FUSION`.
const NEW: &str = r#"
[model]
image.kind = "resnet"
image.depth = 18
image.width = 4
image.image_size = 32
question.kind = "lstm"
question.embedding_size = 16
question.hidden_size = 16

[model.fusion]
FUSION

[tokenizer]
vocab_size = 600

[answers]
min_count = 1
"#;

pub const MCAN: &str =
    "kind = \"mcan\"\nwidth = 16\nheads = 2\nmlp_width = 32\nlayers = 1\noutput_width = 16";
const GUIDED: &str = "kind = \"guided\"\nwidth = 16\nattention_width = 16\nclassifier_width = 16";
const PARALLEL: &str = "kind = \"parallel\"\nwidth = 16\nattention_width = 16\nclassifier_width = 16";

/// Writes the configuration of a new model with `fusion` and the tables `more`, and runs in `folder`.
pub fn write_config(folder: &Path, fusion: &str, more: &str) -> PathBuf {
    write(folder, &NEW.replace("FUSION", fusion), more)
}

fn write(folder: &Path, model: &str, more: &str) -> PathBuf {
    let file = folder.join("small.toml");
    let text = CONFIG.replace("OUT", folder.to_str().unwrap()).replace("MODEL", model) + more;
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_model_with_dropout_resumes_bit_for_bit_and_every_checkpoint_opens() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), MCAN, "optimizer = \"muon\"\n");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    for model in ["straight/model", "straight/checkpoints/latest"] {
        let (model, config) = (folder.path().join(model), config.to_str().unwrap());
        let report = success(&["eval", config, "--model", model.to_str().unwrap(), "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap();
        let metrics = &report[0]["metrics"];
        for name in ["accuracy", "accuracy_blind", "accuracy_prior", "accuracy_count", "ece", "aurc"] {
            let value = metrics[name].as_f64().unwrap_or_else(|| panic!("{name} is missing: {metrics}"));
            assert!((0.0..=1.0).contains(&value), "{name} {value}");
        }
        // The baselines and the answers are of the training set, so that checkpoints have them too.
        assert!(metrics["accuracy_prior"].as_f64().unwrap() > 0.2);
    }
}

/// A checkpoint of transformers.
pub fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/vqa/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn adapters_of_blip_resume_bit_for_bit_and_the_merged_model_opens() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("[model]\nfrom = {:?}\n", golden("blip"));
    let config = write(folder.path(), &model, "\n[lora]\nrank = 2\ntargets = [\"query\", \"value\"]\n");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    assert!(folder.path().join("straight/model/adapter/adapter_model.safetensors").exists());
    // The answers of the training set are the list that is ranked.
    let answers = folder.path().join("straight/model/answers.json");
    let answers: Vec<String> = serde_json::from_slice(&std::fs::read(answers).unwrap()).unwrap();
    assert!(answers.contains(&"yes".to_owned()), "{answers:?}");
}

#[test]
fn the_whole_of_blip_learns_the_answers_and_opens() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("[model]\nfrom = {:?}\n", golden("blip"));
    let config = write(folder.path(), &model, "");
    success(&["train", config.to_str().unwrap()]);
    let run = folder.path().join("small");
    let losses = ranks::losses(&run);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[30..]) < 0.7 * mean(&losses[..10]), "{losses:?}");
    let first = success(&["eval", config.to_str().unwrap(), "--json"]);
    let model = run.join("model");
    assert_eq!(
        success(&["eval", config.to_str().unwrap(), "--model", model.to_str().unwrap(), "--json"]),
        first
    );
}

/// The tensor of a run's last model.
fn tensor(run: &Path, name: &str) -> Vec<f32> {
    let weights = Weights::open(&run.join("model/model.safetensors")).unwrap();
    Vec::try_from(weights.tensor(name).unwrap().view(-1)).unwrap()
}

#[test]
fn word_vectors_of_a_file_fill_the_rows_of_their_words() {
    let folder = tempfile::tempdir().unwrap();
    let glove = folder.path().join("glove.txt");
    let row = |word: &str, value: &str| format!("{word}{}\n", format!(" {value}").repeat(16));
    std::fs::write(&glove, row("circle", "0.25") + &row("many", "-0.5") + &row("aardvark", "1")).unwrap();
    let model = NEW.replace("FUSION", MCAN).replace("vocab_size = 600", "min_word_count = 1");
    let model = model.replace("[model]\n", &format!("[model]\nglove = {glove:?}\n"));
    let config = write(folder.path(), &model, "");
    success(&[
        "train",
        config.to_str().unwrap(),
        "--set",
        "train.steps=1",
        "--set",
        "train.warmup=0",
        "--set",
        "train.lr=1e-9",
    ]);
    let table = tensor(&folder.path().join("small"), "question.embedding.weight");
    let rows: Vec<&[f32]> = table.chunks(16).collect();
    for value in [0.25, -0.5] {
        let filled = rows.iter().filter(|row| row.iter().all(|x| (x - value).abs() < 1e-6)).count();
        assert_eq!(filled, 1, "{value}");
    }
}

#[test]
fn a_vilt_with_new_answers_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("[model]\nfrom = {:?}\n", golden("vilt"));
    let config = write(folder.path(), &model, "\n[answers]\nmin_count = 1\n");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let model = folder.path().join("straight/model/config.json");
    let model: Value = serde_json::from_slice(&std::fs::read(model).unwrap()).unwrap();
    let answers: Vec<&Value> = model["id2label"].as_object().unwrap().values().collect();
    assert!(answers.contains(&&Value::from("yes")), "{answers:?}");
}

#[test]
fn two_processes_train_a_model_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    // Dropout draws other numbers in two processes than in one.
    let config = write_config(folder.path(), &format!("{GUIDED}\ndropout = 0.0"), "");
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
fn a_model_trains_with_the_softmax_and_parallel_co_attention() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), PARALLEL, "\n[loss]\nkind = \"softmax\"\n");
    success(&["train", config.to_str().unwrap(), "--set", "train.steps=6"]);
    let model = folder.path().join("small/model/config.json");
    let model: Value = serde_json::from_slice(&std::fs::read(model).unwrap()).unwrap();
    assert_eq!((&model["model_type"], &model["scores"]), (&"mm-co-attention".into(), &"softmax".into()));
    assert_eq!(
        model["id2label"].as_object().unwrap().len(),
        model["model"]["classes"].as_u64().unwrap() as usize
    );
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let without = |table: &str| NEW.replace("FUSION", MCAN).replace(table, "");
    for (model, more, expected) in [
        (NEW.replace("FUSION", &MCAN.replace("heads = 2", "heads = 3")), "", "no multiple of"),
        (without("[tokenizer]\nvocab_size = 600"), "", "`tokenizer`: a new model needs"),
        (
            NEW.replace("FUSION", MCAN).replace("min_count = 1", "min_count = 0"),
            "",
            "`answers.min_count`: must be at least 1",
        ),
        (NEW.replace("FUSION", MCAN), "\n[metrics]\ncoverage = 0.0\n", "`metrics.coverage`: must be above 0"),
        (NEW.replace("FUSION", MCAN), "\n[metrics]\nprotocol = \"offical\"\n", "official"),
        (NEW.replace("FUSION", MCAN), "\n[lora]\nrank = 2\ntargets = [\"query\"]\n", "set `model.from`"),
        ("[model]\nimage.kind = \"resnet\"\n".to_owned(), "", "`model.question`: missing"),
    ] {
        let config = write(folder.path(), &model, more);
        let error = failure(&["train", config.to_str().unwrap()], 2);
        assert!(error.contains("small.toml:") && error.contains(expected), "{error}");
    }
}
