//! What `cargo xtask bench rlhf` measures of ours: roll-outs and updates of DDPO and DiffusionNFT, as `mm
//! train` makes them for the demo's model, in one process of two threads. Prints one line of JSON, as
//! `xtask/peers/rlhf.py` does for the peer.
//!
//! `bench_rlhf model FOLDER` writes a model of the demo's sizes with random weights; `bench_rlhf ddpo|nft
//! FOLDER [--precision f32|bf16] [--iterations N] [--warmup N]` measures with it. It runs in the workspace's
//! root.

use mm_core::config::ConfigFile;
use mm_core::optim::{AdamWConfig, Optimizer, ParamOptions, Partition};
use mm_core::{Precision, peak_memory};
use mm_data::Dataset;
use mm_diffusion::DiffusionTask;
use mm_dist::ProcessGroup;
use mm_rlhf::RlTask;
use mm_train::{
    Ema, MicroBatch, Shared, Task, TaskConfig, TaskContext, TrainConfig, TrainingData, read_config,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind};

const THREADS: i32 = 2;
const BASE: &str = "configs/rlhf/shapes-base.toml";
/// A roll-out, whatever the demo's is, and one update on it: the numbers of the peer.
const ROLLOUT: [&str; 5] =
    ["rl.prompts=16", "rl.group=8", "rl.steps=10", "rl.epochs=1", "train.batch_size=128"];
/// Of DiffusionNFT: levels of noise that each image is trained at.
const LEVELS: &str = "rl.nft.timesteps=2";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    work: String,
    folder: PathBuf,
    precision: Precision,
    iterations: usize,
    warmup: usize,
}

/// Seconds of each roll-out, and of the update that follows it.
#[derive(Default)]
struct Measured {
    images: usize,
    sampling: Vec<f64>,
    training: Vec<f64>,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tch::set_num_threads(THREADS);
    let config = match options.work.as_str() {
        "model" => return make_model(&options.folder),
        "ddpo" => "configs/rlhf/shapes-ddpo.toml",
        "nft" => "configs/rlhf/shapes-nft.toml",
        other => return Err(format!("unknown work {other}").into()),
    };
    let Measured { images, sampling, training } = measure(config, &options)?;
    let peak_mb = peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64;
    let line = serde_json::json!({
        "work": options.work,
        "precision": options.precision,
        "images": images,
        "sampling": sampling,
        "training": training,
        "peak_mb": peak_mb,
    });
    println!("{line}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let usage = "model, ddpo or nft and a folder are needed";
    let (work, folder) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?.into());
    let mut options = Options { work, folder, precision: Precision::F32, iterations: 5, warmup: 2 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

/// The configuration of a task, for the processor and without evaluation sets.
fn config<T: Task>(file: &str, overrides: &[String]) -> Result<T::Config> {
    let fixed = ["run.device=cpu", "data.eval={}"].map(str::to_owned);
    let overrides: Vec<String> = fixed.into_iter().chain(overrides.iter().cloned()).collect();
    Ok(read_config::<T>(&mut ConfigFile::read(Path::new(file), &overrides)?)?)
}

fn make_model(folder: &Path) -> Result<()> {
    let config = config::<DiffusionTask>(BASE, &["sample.prompts=0".to_owned()])?;
    let group = ProcessGroup::alone();
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open()?);
    let task = DiffusionTask::new(&config, &TaskContext::new(Device::Cpu, &group, &dataset))?;
    // A new model predicts the same for all noise, which no reward can tell apart.
    let mut variables: Vec<_> = task.variables().variables().into_values().collect();
    let is_zero = |variable: &tch::Tensor| variable.abs().sum(Kind::Double).double_value(&[]) == 0.0;
    tch::no_grad(|| {
        for variable in variables.iter_mut().filter(|variable| variable.dim() > 1 && is_zero(variable)) {
            let _ = variable.normal_(0.0, 0.02);
        }
    });
    std::fs::create_dir_all(folder)?;
    Ok(task.save_model(folder)?)
}

fn measure(file: &str, options: &Options) -> Result<Measured> {
    let mut overrides = vec![
        format!("model.from={}", options.folder.display()),
        "reward=[{ kind = \"brightness\" }]".to_owned(),
        "guard.reward=[]".to_owned(),
    ];
    overrides.extend(ROLLOUT.map(str::to_owned));
    if options.work == "nft" {
        overrides.push(LEVELS.to_owned());
    }
    let config = config::<RlTask>(file, &overrides)?;
    let group = ProcessGroup::alone();
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open()?);
    let mut task = RlTask::new(&config, &TaskContext::new(Device::Cpu, &group, &dataset))?;
    // What is read at once are the prompts of a roll-out.
    let prompts = TrainConfig { batch_size: config.rl.prompts, ..config.train.clone() };
    let shared = Shared { train: &prompts, ..config.shared() };
    let mut data = TrainingData::new(dataset, shared, &group, task.preprocess());
    let train = &config.train;
    let options_of = |name: &str| ParamOptions {
        has_weight_decay: task.has_weight_decay(name),
        ..ParamOptions::default()
    };
    let &TrainConfig { beta1, beta2, eps, weight_decay, .. } = train;
    let adamw = AdamWConfig { beta1, beta2, eps, weight_decay };
    let mut optimizer = Optimizer::new(task.variables(), adamw, Partition::WHOLE, options_of);
    let mut ema = Ema::new(task.variables(), train.ema.unwrap_or(0.9));
    let precision = options.precision;
    let micro_batch =
        MicroBatch { precision, device: Device::Cpu, loss_scale: 1.0, group: &group, average: None };
    let mut measured = Measured { images: config.train.batch_size, ..Measured::default() };
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let batch = task.next_batch(&mut data, precision)?;
        let sampling = start.elapsed().as_secs_f64();
        let start = Instant::now();
        task.backward(&batch, &micro_batch)?;
        let norm = optimizer.gradient_norm();
        optimizer.step(train.lr, &norm, train.clip_grad)?;
        optimizer.zero_grad();
        task.after_step();
        ema.update(iteration as u64 + 1);
        let training = start.elapsed().as_secs_f64();
        if iteration >= options.warmup {
            measured.sampling.push(sampling);
            measured.training.push(training);
        }
    }
    Ok(measured)
}
