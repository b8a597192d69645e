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
         [lora]\nrank = 2\nalpha = 3.0\ntargets = [\"to_q\", \"to_v\"]\n",
        golden("sd1")
    );
    // A U-Net of images alone reads no edits.
    let config = write(folder.path(), &more, "adamw", "objects = [1, 2]");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let model = folder.path().join("straight/model");
    success(&["eval", config.to_str().unwrap(), "--model", model.to_str().unwrap(), "--json"]);
    // The base with the adapters makes the image of the merged model.
    let image = |name: &str, model: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let arguments = ["generate", "--model", model, "a star", "--steps", "2", "--out"];
        success(&[&arguments[..], &[out.to_str().unwrap()], more].concat());
        mm_image::decode(&std::fs::read(out).unwrap(), [255; 3]).unwrap()
    };
    let merged = image("merged.png", model.to_str().unwrap(), &[]);
    let adapter = model.join("adapter");
    let adapted = image("adapted.png", &golden("sd1"), &["--lora", adapter.to_str().unwrap()]);
    let off = |left: &mm_image::RgbImage, right: &mm_image::RgbImage| {
        left.as_raw().iter().zip(right.as_raw()).map(|(a, b)| a.abs_diff(*b)).max()
    };
    assert!(off(&adapted, &merged) <= Some(1), "{:?}", off(&adapted, &merged));
    let kohya = folder.path().join("kohya.safetensors");
    let (from, to) = (adapter.to_str().unwrap(), kohya.to_str().unwrap());
    success(&["convert", "--from", from, "--to", to, "--format", "kohya"]);
    assert!(success(&["inspect", to]).contains("kohya"));
    let adapted = image("kohya.png", &golden("sd1"), &["--lora", to]);
    assert!(off(&adapted, &merged) <= Some(1), "{:?}", off(&adapted, &merged));
    let again = ["convert", "--from", to, "--to", "again.safetensors", "--format", "kohya"];
    assert!(failure(&again, 1).contains("the name of a layer as its model has it"));
    assert!(off(&image("base.png", &golden("sd1"), &[]), &merged) > Some(1));
}

#[test]
fn a_new_token_resumes_bit_for_bit_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let tables = format!(
        "\n[model]\nfrom = {:?}\n\n[objective]\nkind = \"ddpm\"\n\n[input]\ncaption_dropout = 0.0\n\n\
         [textual_inversion]\ntoken = \"<ring>\"\ninitializer = \"the\"\nvectors = 2\n",
        golden("sd1")
    );
    let config = write(folder.path(), &tables, "adamw", "objects = [1, 2]");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let learned = |folder: &Path| {
        tch::Tensor::read_safetensors(folder.join("learned_embeds.safetensors")).unwrap().remove(0)
    };
    let run = folder.path().join("straight");
    let (token, vectors) = learned(&run.join("model"));
    assert_eq!((token.as_str(), vectors.size()), ("<ring>", vec![2, 16]));
    assert_eq!(learned(&folder.path().join("killed/model")).1, vectors);
    assert_eq!(learned(&run.join("checkpoints/step-40")).1.size(), [2, 16]);
    // All tensors but the table are the same, and so are the rows of the table.
    let tensors = |model: &Path, part: &str| -> std::collections::HashMap<String, tch::Tensor> {
        tch::Tensor::read_safetensors(model.join(part)).unwrap().into_iter().collect()
    };
    let (base, model) = (PathBuf::from(golden("sd1")), run.join("model"));
    const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
    let (unet, expected) = (tensors(&model, UNET), tensors(&base, UNET));
    assert!(unet.len() == expected.len() && unet.iter().all(|(name, tensor)| expected[name] == *tensor));
    let (text, expected) =
        (tensors(&model, "text_encoder/model.safetensors"), tensors(&base, "text_encoder/model.safetensors"));
    assert_eq!(text.len(), expected.len());
    for (name, tensor) in &text {
        let short = name.trim_start_matches("text_model.");
        let expected = expected.get(name).unwrap_or_else(|| &expected[short]);
        if !name.ends_with("token_embedding.weight") {
            assert_eq!(tensor, expected, "{name}");
            continue;
        }
        let rows = expected.size()[0];
        assert_eq!(&tensor.narrow(0, 0, rows), expected);
        assert_eq!(tensor.narrow(0, rows, 2), vectors);
        assert!(tensor.get(rows) != tensor.get(rows + 1), "the two vectors learn different things");
    }
    // The model knows the token, as the base does with the file.
    let image = |name: &str, model: &Path, more: &[&str]| {
        let (out, model) = (folder.path().join(name), model.to_str().unwrap());
        let arguments = ["generate", "--model", model, "a <ring>", "--steps", "2", "--out"];
        success(&[&arguments[..], &[out.to_str().unwrap()], more].concat());
        mm_image::decode(&std::fs::read(out).unwrap(), [255; 3]).unwrap()
    };
    let file = run.join("model/learned_embeds.safetensors");
    let with_file = image("a.png", &base, &["--embedding", file.to_str().unwrap()]);
    assert_eq!(image("b.png", &model, &[]), with_file);
    assert_ne!(image("c.png", &base, &[]), with_file);
}

#[test]
fn a_new_token_trains_in_both_text_encoders_of_sdxl() {
    let folder = tempfile::tempdir().unwrap();
    let tables = format!(
        "\n[model]\nfrom = {:?}\n\n[objective]\nkind = \"ddpm\"\n\n[input]\ncaption_dropout = 0.0\n\n\
         [textual_inversion]\ntoken = \"<ring>\"\ninitializer = \"the\"\nprompts = \"style\"\n",
        golden("sdxl")
    );
    let config = write(folder.path(), &tables, "adamw", "objects = [1, 2]");
    success(&["train", config.to_str().unwrap(), "--set", "train.steps=2", "--set", "train.warmup=0"]);
    let model = folder.path().join("small/model");
    let learned = model.join("learned_embeds.safetensors");
    let sizes: std::collections::BTreeMap<String, Vec<i64>> = tch::Tensor::read_safetensors(&learned)
        .unwrap()
        .into_iter()
        .map(|(name, vectors)| (name, vectors.size()))
        .collect();
    assert_eq!(sizes, [("clip_g".to_owned(), vec![1, 8]), ("clip_l".to_owned(), vec![1, 16])].into());
    let text: Value =
        serde_json::from_slice(&std::fs::read(model.join("text_encoder_2/config.json")).unwrap()).unwrap();
    assert_eq!(text["projection_dim"], 8);
    let image = |name: &str, model: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let arguments = ["generate", "--model", model, "a <ring>", "--steps", "2", "--out"];
        success(&[&arguments[..], &[out.to_str().unwrap()], more].concat());
        mm_image::decode(&std::fs::read(out).unwrap(), [255; 3]).unwrap()
    };
    let embedding = format!("{}:<ring>", learned.display());
    let with_file = image("a.png", &golden("sdxl"), &["--embedding", &embedding]);
    assert_eq!(image("b.png", model.to_str().unwrap(), &[]), with_file);
}

#[test]
fn a_new_token_that_cannot_be_trained_is_refused_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: [&str; 2], code| {
        let tables = format!(
            "\n[model]\nfrom = {:?}\n\n[objective]\nkind = \"ddpm\"\n\n[input]\ncaption_dropout = 0.0\n\n\
             [textual_inversion]\ntoken = \"<ring>\"\ninitializer = \"the\"\n",
            golden("sd1")
        );
        let config = write(folder.path(), &tables.replace(change[0], change[1]), "adamw", "objects = [1, 2]");
        failure(&["train", config.to_str().unwrap()], code)
    };
    for (change, code, expected) in [
        (["caption_dropout = 0.0", "caption_dropout = 0.1"], 2, "input.caption_dropout"),
        (["<ring>", "a ring"], 2, "textual_inversion.token"),
        (["<ring>", "the</w>"], 1, "is in the vocabulary already"),
        (["\"the\"", "\"theatre\""], 1, "textual_inversion.initializer"),
        (["initializer", "vectors = 0\ninitializer"], 2, "textual_inversion.vectors"),
    ] {
        let error = refused(change, code);
        assert!(error.contains(expected), "{error}");
    }
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
