//! What the tests of the command line share: a small configuration, and the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A CLIP that trains a step in milliseconds.
const CONFIG: &str = r#"
[run]
task = "clip"
name = "small"
seed = 7
out = "OUT"

[model]
embed_dim = 32
image.kind = "vit"
image.image_size = 32
image.patch_size = 16
image.hidden_size = 32
image.intermediate_size = 64
image.num_hidden_layers = 2
image.num_attention_heads = 2
image.patch_dropout = 0.25
TEXT

[data]
train = { kind = "emoji", split = "train" }
eval.held_out = { kind = "emoji", split = "held_out" }
workers = 2

[train]
steps = 40
batch_size = 16
lr = 1e-3
warmup = 5
clip_grad = 1.0
ema = 0.9
checkpoint_every = 10
log_every = 1
"#;

const TEXT: &str = r#"
text.kind = "clip"
text.hidden_size = 32
text.intermediate_size = 64
text.num_hidden_layers = 1
text.num_attention_heads = 2
text.max_position_embeddings = 16

[tokenizer]
vocab_size = 2048
"#;

/// Writes the small configuration, with runs in `folder`, and gives its path.
pub fn write_config(folder: &Path) -> PathBuf {
    write_config_with(folder, TEXT)
}

/// The same with another text tower.
pub fn write_config_with(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("small.toml");
    std::fs::write(&file, CONFIG.replace("OUT", folder.to_str().unwrap()).replace("TEXT", text)).unwrap();
    file
}

/// The folder of a CLIP of two steps, trained in `folder` with `KEY=VALUE`s that change the config.
pub fn trained_clip(folder: &Path, changes: &[&str]) -> String {
    let config = write_config(folder);
    let changes =
        ["train.steps=2", "train.warmup=1"].iter().chain(changes).flat_map(|change| ["--set", change]);
    success(&["train", config.to_str().unwrap()].into_iter().chain(changes).collect::<Vec<_>>());
    folder.join("small/model").to_str().unwrap().to_owned()
}

/// A PNG of one colour.
pub fn write_png(file: &Path, shade: u8) {
    mm_image::RgbImage::from_pixel(24, 24, [shade; 3].into()).save(file).unwrap();
}

/// `mm` with `arguments`, not yet started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mm"));
    command.args(arguments);
    command
}

/// Runs `mm` to its end.
pub fn mm(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Runs `mm`, which must fail with `code` and one `error:` line, and gives that line.
pub fn failure(arguments: &[&str], code: i32) -> String {
    let output = mm(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    errors[0].to_owned()
}

/// Runs `mm`, which must succeed, and gives what it printed.
pub fn success(arguments: &[&str]) -> String {
    let output = mm(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The weights of the model that a run ends with; of a pipeline, those of its denoiser, or of an autoencoder.
pub fn model_weights(run: &Path) -> PathBuf {
    const DENOISER: &str = "diffusion_pytorch_model.safetensors";
    let files = [
        "model.safetensors".to_owned(),
        DENOISER.to_owned(),
        format!("transformer/{DENOISER}"),
        format!("unet/{DENOISER}"),
    ];
    files.iter().map(|file| run.join("model").join(file)).find(|file| file.exists()).unwrap()
}
