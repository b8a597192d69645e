//! How diffusion models are trained on folders of images: masks, sizes of several aspects, and latents that
//! are computed once.

use crate::common::{failure, success};
use crate::diffusion_training::{PIXELS, golden};
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks::{self, losses, metrics};
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use mm_image::RgbImage;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG: &str = r#"
[run]
task = "diffusion"
name = "small"
seed = 7
out = "OUT"

[data]
train = { kind = "folder", path = "IMAGES" }
workers = 2
max_bad_samples = MOST

[train]
steps = 40
batch_size = 4
lr = 2e-3
schedule = "constant"
clip_grad = 1.0
checkpoint_every = 10
log_every = 1

[sample]
prompts = 0
"#;

/// Writes `count` images with captions into `folder`; `size` gives that of each.
fn write_images(folder: &Path, count: u32, size: impl Fn(u32) -> (u32, u32)) {
    fs::create_dir_all(folder).unwrap();
    for number in 0..count {
        let (width, height) = size(number);
        let pixel = |x, y| [(x * 13 + number * 40) as u8, (y * 9) as u8, (number * 70) as u8].into();
        RgbImage::from_fn(width, height, pixel).save(folder.join(format!("{number:02}.png"))).unwrap();
        fs::write(folder.join(format!("{number:02}.txt")), format!("picture {number}\na picture")).unwrap();
    }
}

/// Writes a configuration with the tables `more`, for images in `folder/images`.
fn write(folder: &Path, more: &str, most_bad: usize) -> PathBuf {
    let images = folder.join("images");
    let text = CONFIG
        .replace("OUT", folder.to_str().unwrap())
        .replace("IMAGES", images.to_str().unwrap())
        .replace("MOST", &most_bad.to_string());
    let file = folder.join("small.toml");
    fs::write(&file, text + more).unwrap();
    file
}

fn train(config: &Path, name: &str, sets: &[&str]) {
    let run = format!("run.name={name}");
    let sets = ["train.steps=6", &run].into_iter().chain(sets.iter().copied());
    let arguments = ["train", config.to_str().unwrap()].into_iter();
    let arguments: Vec<&str> = arguments.chain(sets.flat_map(|set| ["--set", set])).collect();
    success(&arguments);
}

/// The values of `name` in the training log of a run.
fn logged(run: &Path, name: &str) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|record| record[name].as_f64()).collect()
}

#[test]
fn a_mask_says_what_counts_and_one_of_another_size_is_a_bad_sample() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    write_images(&images, 8, |_| (24, 20));
    let config = write(folder.path(), PIXELS, 0);
    let paint = |side: u32, shade: u8| {
        for number in 0..8 {
            let mask = RgbImage::from_pixel(side, 20, [shade; 3].into());
            mask.save(images.join(format!("{number:02}.mask.png"))).unwrap();
        }
    };
    train(&config, "without", &[]);
    // No sample has a mask.
    train(&config, "whole", &["input.masked_loss=true"]);
    let run = |name: &str| folder.path().join(name);
    assert_same_losses(&run("without"), &run("whole"));
    assert_eq!(logged(&run("whole"), "without_mask"), [1.0; 6]);
    paint(24, 0);
    train(&config, "black", &["input.masked_loss=true"]);
    assert_eq!(losses(&run("black")), [0.0; 6]);
    train(&config, "half", &["input.masked_loss=true", "input.unmasked_weight=0.5"]);
    let (half, whole) = (losses(&run("half"))[0], losses(&run("without"))[0]);
    assert!((2.0 * half - whole).abs() < 1e-5 * whole, "{half} is not half of {whole}");
    paint(23, 255);
    let sets = ["--set", "input.masked_loss=true", "--set", "run.name=other"];
    let arguments: Vec<&str> = ["train", config.to_str().unwrap()].into_iter().chain(sets).collect();
    let error = failure(&arguments, 1);
    assert!(error.contains("its mask has 23 x 20 pixels, the image 24 x 20"), "{error}");
}

/// Buckets of a model of 16 x 16 pixels with patches of 4.
const BUCKETS: &str = "\n[input.buckets]\nmax_aspect = 2.0\n";

/// Wide, high and square images, each next to a few of other aspects near by.
fn sizes(number: u32) -> (u32, u32) {
    [(40, 22), (20, 20), (20, 38), (41, 22), (30, 30)][number as usize % 5]
}

#[test]
fn buckets_resume_bit_for_bit_twice_and_on_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    write_images(&folder.path().join("images"), 30, sizes);
    let model = PIXELS.replace("pos_embed_max_size = 4", "pos_embed_max_size = 8");
    let config = write(folder.path(), &(model + BUCKETS), 0);
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    // Interrupted in the middle of an epoch, with three of its seven batches left, and again.
    let text = config.to_str().unwrap();
    for steps in ["11", "25", "40"] {
        let steps = format!("train.steps={steps}");
        let arguments = ["train", text, "--set", "run.name=twice", "--set", &steps, "--resume", "latest"];
        let until = ["--set", "train.keep_checkpoints=9"];
        success(&arguments.into_iter().chain(until).collect::<Vec<_>>());
        let _ = fs::remove_dir_all(folder.path().join("twice/model"));
    }
    let run = |name: &str| folder.path().join(name);
    assert_eq!(losses(&run("twice")), losses(&run("straight")));
    ranks::success(&["train", text, "--set", "run.name=two"], 2);
    assert_same_losses(&run("straight"), &run("two"));
    assert_same_weights(&run("straight"), &run("two"));
    let wide = "input.buckets.max_aspect=17.0";
    let error = failure(&["train", text, "--set", "run.name=small", "--set", wide], 1);
    assert!(error.contains("pos_embed_max_size"), "{error}");
}

#[test]
fn an_image_beyond_the_largest_aspect_is_counted_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    write_images(&images, 30, sizes);
    RgbImage::new(60, 20).save(images.join("07.png")).unwrap();
    let model = PIXELS.replace("pos_embed_max_size = 4", "pos_embed_max_size = 8");
    let config = write(folder.path(), &(model + BUCKETS), 1);
    train(&config, "counted", &["train.steps=16"]);
    let bad = fs::read_to_string(folder.path().join("counted/bad_samples.jsonl")).unwrap();
    assert!(bad.lines().count() == 1 && bad.contains("60 x 20") && bad.contains("07.png"), "{bad}");
}

#[test]
fn the_steps_of_a_run_by_minutes_are_timed_on_batches_of_one_bucket() {
    let folder = tempfile::tempdir().unwrap();
    write_images(&folder.path().join("images"), 30, sizes);
    let model = PIXELS.replace("pos_embed_max_size = 4", "pos_embed_max_size = 8");
    let config = write(folder.path(), &(model + BUCKETS), 0);
    let text = fs::read_to_string(&config).unwrap().replace("steps = 40", "minutes = 1e-4");
    fs::write(&config, text).unwrap();
    success(&["train", config.to_str().unwrap(), "--set", "run.name=timed"]);
    let resolved = fs::read_to_string(folder.path().join("timed/config.toml")).unwrap();
    assert!(resolved.contains("\nsteps = ") && !resolved.contains("minutes"), "{resolved}");
}

/// Fine-tuning of the small Stable Diffusion 1 with a cache.
fn cached(folder: &Path) -> String {
    format!(
        "\n[model]\nfrom = {:?}\n\n[objective]\nkind = \"ddpm\"\nmin_snr_gamma = 5.0\nnoise_offset = 0.05\n\n\
         [cache]\nfolder = {:?}\nsamples_per_shard = 5\n",
        golden("sd1"),
        folder.join("cache")
    )
}

#[test]
fn a_cache_gives_the_losses_of_a_run_without_it_and_needs_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    write_images(&images, 12, |_| (24, 20));
    let table = cached(folder.path());
    let config = write(folder.path(), table.split("[cache]").next().unwrap(), 0);
    train(&config, "without", &[]);
    let config = write(folder.path(), &table, 0);
    train(&config, "with", &[]);
    let run = |name: &str| folder.path().join(name);
    for (with, without) in losses(&run("with")).iter().zip(losses(&run("without"))) {
        assert!((with - without).abs() < 1e-4 * without, "{with} is not {without}");
    }
    // An interrupted work: one shard is missing, another was being written.
    let shard = |number: usize| folder.path().join(format!("cache/shard-{number:05}.safetensors"));
    let first = fs::read(shard(0)).unwrap();
    let last = fs::read(shard(2)).unwrap();
    fs::write(shard(2).with_extension("safetensors.partial"), &last[..last.len() / 2]).unwrap();
    fs::remove_file(shard(2)).unwrap();
    let written = fs::metadata(shard(0)).unwrap().modified().unwrap();
    train(&config, "again", &[]);
    assert_eq!((fs::read(shard(0)).unwrap(), fs::read(shard(2)).unwrap()), (first, last));
    assert_eq!(fs::metadata(shard(0)).unwrap().modified().unwrap(), written);
    assert_eq!(losses(&run("again")), losses(&run("with")));
    // From here on no image is read.
    for number in 0..12 {
        fs::write(images.join(format!("{number:02}.png")), b"gone").unwrap();
    }
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let two = folder.path().join("two");
    ranks::success(&["train", config.to_str().unwrap(), "--set", "run.name=two"], 2);
    assert_same_losses(&run("straight"), &two);
}

#[test]
fn every_family_of_pipelines_trains_on_a_cache_as_without_it() {
    let edits = "data.train={ kind = \"shapes\", samples = 20, size = 24, scenes = \"prompts\", \
                 content = \"edits\", edits = [\"recolour\"] }";
    for (model, kind, data) in
        [("sdxl", "ddpm", None), ("sd3", "flow", None), ("pix2pix", "ddpm", Some(edits))]
    {
        let folder = tempfile::tempdir().unwrap();
        write_images(&folder.path().join("images"), 6, |number| (24, 16 + 8 * (number % 2)));
        let model = format!("\n[model]\nfrom = {:?}\n\n[objective]\nkind = {kind:?}\n", golden(model));
        let config = write(folder.path(), &model, 0);
        let sets: Vec<&str> = data.into_iter().chain(["train.steps=3"]).collect();
        train(&config, "without", &sets);
        let cache = format!("cache.folder={:?}", folder.path().join("cache"));
        let with: Vec<&str> = sets.iter().copied().chain([cache.as_str()]).collect();
        train(&config, "with", &with);
        let run = |name: &str| losses(&folder.path().join(name));
        for (with, without) in run("with").iter().zip(run("without")) {
            assert!((with - without).abs() < 1e-4 * without, "{model}: {with} is not {without}");
        }
    }
}

#[test]
fn a_cache_of_something_else_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    write_images(&folder.path().join("images"), 8, |_| (24, 20));
    let config = write(folder.path(), &cached(folder.path()), 0);
    train(&config, "first", &["train.steps=1"]);
    let config = config.to_str().unwrap();
    let refused = |set: &str| failure(&["train", config, "--set", "run.name=other", "--set", set], 1);
    let error = refused("data.background=[0, 0, 0]");
    assert!(error.contains("another `images`") && error.contains("background: [255, 255, 255]"), "{error}");
    let error = refused(&format!("model.from={:?}", golden("lcm")));
    assert!(error.contains("this cache was made with another `"), "{error}");
    write_images(&folder.path().join("images"), 9, |_| (24, 20));
    let error = refused("run.seed=1");
    assert!(error.contains("another `data`") && error.contains("(8 samples)"), "{error}");
    fs::remove_file(folder.path().join("cache/cache.json")).unwrap();
    assert!(refused("run.seed=1").contains("has files but no cache.json"));
}

const AUTOENCODER: &str = r#"
[run]
task = "autoencoder"
name = "small"
seed = 7
out = "OUT"

[model.autoencoder]
block_out_channels = [8, 16]
layers_per_block = 1
latent_channels = 3
norm_num_groups = 4
sample_size = 16

[data]
train = { kind = "shapes", samples = 300, size = 16, scenes = "prompts" }
eval.unseen = { kind = "shapes", samples = 8, seed = 1, size = 16, scenes = "prompts" }
workers = 2

[train]
steps = 40
batch_size = 8
lr = 3e-3
clip_grad = 1.0
ema = 0.9
checkpoint_every = 10
log_every = 1
"#;

#[test]
fn an_autoencoder_resumes_bit_for_bit_and_a_latent_model_trains_and_opens_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("autoencoder.toml");
    fs::write(&config, AUTOENCODER.replace("OUT", folder.path().to_str().unwrap())).unwrap();
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let run = |name: &str| folder.path().join(name);
    let of_run = losses(&run("straight"));
    assert!(of_run[39] < 0.7 * of_run[0], "{of_run:?}");
    for model in ["straight/model", "straight/checkpoints/latest"] {
        let model = run(model);
        let arguments = ["eval", config.to_str().unwrap(), "--model", model.to_str().unwrap(), "--json"];
        let report: Value = serde_json::from_str(&success(&arguments)).unwrap();
        let psnr = report[0]["metrics"]["psnr"].as_f64().unwrap();
        assert!(psnr > 5.0 && psnr < 60.0, "{model:?}: {psnr}");
    }
    ranks::success(&["train", config.to_str().unwrap(), "--set", "run.name=two"], 2);
    // The gradient of an absolute error is a sign: where it is nearly 0, a rounding flips it.
    for (one, two) in of_run.iter().zip(losses(&run("two"))).take(10) {
        assert!((one - two).abs() <= 1e-5 * one, "{one} and {two}");
    }

    let tower = golden("../clip/open-clip-resnet");
    let perceptual = format!("objective.perceptual.model={tower:?}");
    let sets = ["--set", &perceptual, "--set", "run.name=perceptual"];
    success(&[&["train", config.to_str().unwrap()], &sets[..]].concat());
    let distances = metrics(&run("perceptual"), "perceptual");
    assert!(distances[39] < 0.9 * distances[0], "{distances:?}");
    let missing = ["--set", "objective.perceptual.model=nowhere/at-all", "--set", "run.name=none"];
    let error = failure(&[&["train", config.to_str().unwrap()], &missing[..]].concat(), 1);
    assert!(error.contains("nowhere/at-all"), "{error}");

    write_images(&run("images"), 10, |_| (24, 20));
    let latent = PIXELS
        .replace(
            "sample_size = 16\npatch_size = 4\nin_channels = 6",
            "sample_size = 8\npatch_size = 2\nin_channels = 6",
        )
        .replace("[model.text]", &format!("[model]\nvae = {:?}\n\n[model.text]", run("straight/model")));
    let latent = format!("{latent}\n[cache]\nfolder = {:?}\nsamples_per_shard = 4\n", run("cache"));
    let latent_folder = run("latent");
    fs::create_dir_all(&latent_folder).unwrap();
    let config = write(&latent_folder, &latent, 0);
    fs::rename(run("images"), latent_folder.join("images")).unwrap();
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(&latent_folder, &config);
    let scale = |of: &str| -> f64 {
        let file = fs::read(latent_folder.join(of).join("vae/config.json")).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["scaling_factor"].as_f64().unwrap()
    };
    assert_ne!(scale("straight/model"), 0.18215);
    assert_eq!(scale("straight/model"), scale("killed/model"));
    for model in ["straight/model", "straight/checkpoints/latest"] {
        let (model, out) = (latent_folder.join(model), latent_folder.join("out.png"));
        let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
        success(&["generate", "--model", model, "a picture", "--steps", "2", "--out", out]);
    }
}
