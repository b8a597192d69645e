//! What `cargo xtask bench small` measures of ours: training the demo's model, 4 M parameters at batch 128,
//! as `mm train` does it, with its data read, decoded and augmented meanwhile. Prints one line of JSON, as
//! `xtask/peers/bench_small.py` does for the peer.
//!
//! `bench_small WORK [--precision f32|bf16] [--iterations N] [--warmup N]`, WORK being `lengths` (prints the
//! longest caption of each batch in tokens, so that the peer's texts are as long), `limit` or `train`. It
//! runs in the workspace's root.

mod common;

use common::print_result;
use mm_clip::{ClipRunConfig, ClipTask, TextInput};
use mm_core::config::ConfigFile;
use mm_core::{DeviceConfig, Precision};
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use mm_train::{
    Event, NoProgress, Resume, Run, RunFolder, Task, TaskConfig, TaskContext, Trainer, TrainingData,
    read_config,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

const CONFIG: &str = "configs/clip/emoji-vit-tiny.toml";
/// The emoji model's sizes: image tokens, width, and layers of the image and text tower.
const IMAGE_TOKENS: f64 = 17.0;
const WIDTH: f64 = 192.0;
const LAYERS: (f64, f64) = (4.0, 2.0);
const PATCH_VALUES: f64 = 3.0 * 16.0 * 16.0;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    work: String,
    precision: Precision,
    iterations: usize,
    warmup: usize,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let mut config = read_config::<ClipTask>(&mut ConfigFile::read(Path::new(CONFIG), &[])?)?;
    config.data.eval.clear();
    config.train.steps = (options.warmup + options.iterations) as u64;
    config.train.warmup = config.train.warmup.min(config.train.steps);
    config.run.device = DeviceConfig::from(Device::Cpu);
    let batch = config.train.batch_size;
    let (seconds, gflop) = match options.work.as_str() {
        "lengths" => {
            lengths(&config)?.iter().for_each(|length| println!("{length}"));
            return Ok(());
        }
        "limit" => limit(&options, batch as i64),
        "train" => {
            let lengths = &lengths(&config)?[options.warmup..];
            let texts =
                lengths.iter().map(|&length| text_gflop(length as f64)).sum::<f64>() / lengths.len() as f64;
            (train(&options, config)?, 3.0 * batch as f64 * (image_gflop() + texts))
        }
        other => return Err(format!("unknown work {other:?}").into()),
    };
    print_result(&options.work, options.precision, batch, &seconds, gflop)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let work = arguments.next().ok_or("which work?")?;
    let mut options = Options { work, precision: Precision::F32, iterations: 100, warmup: 20 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            "--captions" => {} // for the peer
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

/// The longest caption of each batch of the run, in tokens.
fn lengths(config: &ClipRunConfig) -> Result<Vec<i64>> {
    let (mut task, mut data) = open(config)?;
    let longest = |texts: &TextInput| match texts {
        TextInput::Tokens(tokens) => tokens
            .attention_mask
            .sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)
            .max()
            .int64_value(&[]),
        TextInput::Pooled(_) => 0,
    };
    (0..config.train.steps).map(|_| Ok(longest(&task.next_batch(&mut data, Precision::F32)?.texts))).collect()
}

/// The task with its data, on one process.
fn open(config: &ClipRunConfig) -> Result<(ClipTask, TrainingData<<ClipTask as Task>::Item>)> {
    let group = ProcessGroup::alone();
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open()?);
    let context = TaskContext::new(Device::Cpu, &group, &dataset);
    let task = ClipTask::new(config, &context)?;
    let data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
    Ok((task, data))
}

/// Seconds of each step after the warm-up.
fn train(options: &Options, mut config: ClipRunConfig) -> Result<Vec<f64>> {
    let out = std::env::temp_dir().join(format!("bench-small-{}", std::process::id()));
    config.run.out = out.clone();
    config.train.checkpoint_every = 0;
    let group = ProcessGroup::alone();
    let (task, data) = open(&config)?;
    let folder = RunFolder::open(&config.run, &Resume::No, &toml::to_string(&config)?, &group)?;
    let run = Run { folder: &folder, group: &group, precision: options.precision };
    let (mut seconds, mut before) = (Vec::new(), Instant::now());
    let mut watch = |event: Event| {
        if let Event::Step(_) = event {
            seconds.push(before.elapsed().as_secs_f64());
            before = Instant::now();
        }
    };
    let trainer = Trainer::new(task, data, Vec::new(), &config, run)?;
    let trained = trainer.train(&AtomicBool::new(false), &NoProgress, &mut watch);
    std::fs::remove_dir_all(&out)?;
    trained?;
    Ok(seconds.split_off(options.warmup))
}

/// The machine's matrix limit at the image tower's products, on operands that stay in place.
fn limit(options: &Options, batch: i64) -> (Vec<f64>, f64) {
    let (rows, width) = (batch * IMAGE_TOKENS as i64, WIDTH as i64);
    let shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)];
    let kind = (options.precision.kind(), Device::Cpu);
    let operands = shapes
        .map(|(input, output)| (Tensor::randn([rows, input], kind), Tensor::randn([output, input], kind)));
    let pass = || operands.iter().for_each(|(x, weight)| drop(x.linear(weight, None::<&Tensor>)));
    let time = |_| {
        let start = Instant::now();
        pass();
        start.elapsed().as_secs_f64()
    };
    let all: Vec<f64> =
        mm_sys::inference_mode(|| (0..options.warmup + options.iterations).map(time).collect());
    let gflop = shapes.iter().map(|(input, output)| 2.0 * (rows * input * output) as f64 / 1e9).sum();
    (all[options.warmup..].to_vec(), gflop)
}

/// Multiply-adds of a transformer tower for one sample, two operations each.
fn tower_gflop(tokens: f64, layers: f64) -> f64 {
    let (matrices, attention) = (2.0 * 12.0 * WIDTH * WIDTH * tokens, 2.0 * 2.0 * tokens * tokens * WIDTH);
    ((matrices + attention) * layers + 2.0 * WIDTH * WIDTH) / 1e9
}

fn image_gflop() -> f64 {
    tower_gflop(IMAGE_TOKENS, LAYERS.0) + 2.0 * (IMAGE_TOKENS - 1.0) * PATCH_VALUES * WIDTH / 1e9
}

fn text_gflop(tokens: f64) -> f64 {
    tower_gflop(tokens, LAYERS.1)
}
