//! Checkpoints of Stable Diffusion in one file: written from a folder, read again, and generated from.

use crate::common::{failure, success};
use mm_core::checkpoint::{TensorLayout, Weights, stored, write};
use mm_diffusion::{UNet, UNetConfig, Vae, VaeConfig};
use mm_text::{ClipText, ClipTextConfig, ClipTextVariant, Tokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tch::Device;
use tch::nn::{Path as Variables, VarStore};

fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

const PARTS: [(&str, &str); 3] =
    [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")];

fn file(folder: &Path, (part, stem): (&str, &str)) -> PathBuf {
    folder.join(part).join(format!("{stem}.safetensors"))
}

fn write_json(file: &Path, value: &Value) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, value.to_string()).unwrap();
}

/// Writes a part of a pipeline with random weights.
fn part(folder: &Path, index: usize, config: &Value, layout: &TensorLayout, make: impl FnOnce(&Variables)) {
    let vs = VarStore::new(Device::Cpu);
    make(&vs.root());
    write_json(&folder.join(PARTS[index].0).join("config.json"), config);
    write(&file(folder, PARTS[index]), &stored(vs.variables(), layout)).unwrap();
}

/// A small random pipeline with the settings of the published models, which readers of a file assume.
fn pipeline(folder: &Path, is_sd2: bool) {
    let class = |library: &str, class: &str| json!([library, class]);
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "scheduler": class("diffusers", "DDIMScheduler"),
        "text_encoder": class("transformers", "CLIPTextModel"),
        "tokenizer": class("transformers", "CLIPTokenizer"),
        "unet": class("diffusers", "UNet2DConditionModel"),
        "vae": class("diffusers", "AutoencoderKL"),
    });
    write_json(&folder.join("model_index.json"), &index);
    let prediction = if is_sd2 { "v_prediction" } else { "epsilon" };
    let scheduler = json!({
        "_class_name": if is_sd2 { "DDIMScheduler" } else { "PNDMScheduler" }, "beta_start": 0.00085,
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": false, "steps_offset": 1,
        "clip_sample": false, "skip_prk_steps": true, "prediction_type": prediction,
    });
    write_json(&folder.join("scheduler/scheduler_config.json"), &scheduler);
    let unet = json!({
        "sample_size": 8, "block_out_channels": [32, 64], "layers_per_block": 1, "cross_attention_dim": 64,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": if is_sd2 { 1 } else { 8 }, "use_linear_projection": is_sd2,
    });
    part(folder, 0, &unet, &UNet::LAYOUT, |path| {
        UNet::new(path, &UNetConfig::from_hf(&unet).unwrap()).unwrap();
    });
    let vae = json!({
        "block_out_channels": [32, 32], "layers_per_block": 1, "sample_size": 16,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    });
    part(folder, 1, &vae, &Vae::LAYOUT, |path| {
        Vae::new(path, &VaeConfig::from_hf(&vae).unwrap()).unwrap();
    });
    let text = json!({
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1,
        "hidden_act": if is_sd2 { "gelu" } else { "quick_gelu" },
    });
    part(folder, 2, &text, &TensorLayout::HF, |path| {
        let config = ClipTextConfig::from_hf(&text, ClipTextVariant::Clip).unwrap();
        ClipText::new(&(path / "text_model"), &config).unwrap();
    });
    let tokenizer = Tokenizer::openai_clip().unwrap();
    let tokenizer = if is_sd2 { tokenizer.with_pad_token("!").unwrap() } else { tokenizer };
    fs::create_dir(folder.join("tokenizer")).unwrap();
    tokenizer.save(&folder.join("tokenizer"), &["input_ids", "attention_mask"]).unwrap();
}

fn assert_same_parts(left: &Path, right: &Path) {
    for part in PARTS {
        let [left, right] = [left, right].map(|folder| Weights::open(&file(folder, part)).unwrap());
        assert_eq!(left.list(), right.list());
        for info in left.list() {
            assert_eq!(left.tensor(&info.name).unwrap(), right.tensor(&info.name).unwrap(), "{}", info.name);
        }
    }
}

#[test]
fn a_folder_is_the_same_after_a_file_and_the_file_itself_generates_the_same_image() {
    for is_sd2 in [false, true] {
        let out = tempfile::tempdir().unwrap();
        let path = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
        let (folder, file, again) = (path("folder"), path("made/all.safetensors"), path("again"));
        pipeline(Path::new(&folder), is_sd2);
        success(&["convert", "--from", &folder, "--to", &file, "--format", "single_file"]);
        let printed = success(&["inspect", &file]);
        assert!(printed.contains(if is_sd2 { "Sd2" } else { "Sd1" }), "{printed}");
        let back = ["convert", "--from", &file, "--to", &again];
        let predicts = ["--prediction", "v_prediction"];
        success(&[&back[..], if is_sd2 { &predicts } else { &[] }].concat());
        assert_same_parts(Path::new(&folder), Path::new(&again));
        let image = |model: &str, name: &str| {
            let arguments = ["generate", "--model", model, "a star", "--steps", "2", "--size", "16x16"];
            success(&[&arguments[..], &["--out", &path(name)]].concat());
            mm_image::decode(&fs::read(path(name)).unwrap(), [255; 3]).unwrap()
        };
        let expected = image(&folder, "folder.png");
        assert_eq!(image(&again, "again.png"), expected);
        if is_sd2 {
            let error = failure(&["generate", "--model", &file, "a", "--out", &path("a.png")], 1);
            assert!(error.contains("do not show what they predict"), "{error}");
        } else {
            assert_eq!(image(&file, "file.png"), expected);
        }
    }
}

#[test]
fn numbers_are_written_in_the_type_that_is_asked_for() {
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    pipeline(&out.path().join("folder"), false);
    let to_file = ["--format", "single_file", "--dtype", "f16"];
    success(
        &[&["convert", "--from", &path("folder"), "--to", &path("f.safetensors")], &to_file[..]].concat(),
    );
    success(&["convert", "--from", &path("f.safetensors"), "--to", &path("bf16"), "--dtype", "bf16"]);
    let types = |file: &Path| -> Vec<String> {
        let mut types: Vec<_> =
            Weights::open(file).unwrap().list().into_iter().map(|info| info.dtype).collect();
        types.dedup();
        types
    };
    assert_eq!(types(&out.path().join("f.safetensors")), ["F16"]);
    for part in PARTS {
        assert_eq!(types(&file(&out.path().join("bf16"), part)), ["BF16"]);
    }
}

#[test]
fn what_has_no_form_in_one_file_or_in_a_folder_is_refused_with_the_reason() {
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let refused = |from: &str, to: &str, more: &[&str]| {
        failure(&[&["convert", "--from", &golden(from), "--to", &path(to)], more].concat(), 1)
    };
    let single = ["--format", "single_file"];
    let cases: [(&str, &str, &[&str], &str); 8] = [
        ("diffusion/sd1", "a.safetensors", &single, "attention_head_dim is 2 and readers assume 8"),
        ("diffusion/sd3", "a.safetensors", &single, "StableDiffusion3Pipeline has no form in one file"),
        ("diffusion/sd1", "a.ckpt", &single, "name a file in .safetensors"),
        ("clip/clip", "a.safetensors", &single, "for a folder of Stable Diffusion"),
        ("diffusion/sd1", "a", &[], "written by --format single_file"),
        ("diffusion-lora/ldm-sd1.safetensors", "a", &[], "text_encoder has 40 tokens"),
        ("diffusion-lora/ldm-sd2.safetensors", "a", &[], "--prediction"),
        ("diffusion/sd1", "a", &["--prediction", "epsilon"], "has it in its scheduler"),
    ];
    for (from, to, more, expected) in cases {
        let error = refused(from, to, more);
        assert!(error.contains(expected), "{from}: {error}");
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
