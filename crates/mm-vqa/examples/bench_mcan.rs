//! What `cargo xtask bench vqa` measures of ours: training steps of MCAN-small on features of image regions
//! in memory. Prints one line of JSON, as `xtask/peers/mcan.py` does for plain PyTorch.
//!
//! `bench_mcan [--precision f32|bf16] [--regions N] [--iterations N] [--warmup N]`

use mm_core::loss::soft_target_bce;
use mm_core::optim::{AdamWConfig, Optimizer, ParamOptions, Partition};
use mm_core::{Precision, peak_memory};
use mm_text::{LstmConfig, QuestionEncoderConfig};
use mm_vision::{ImageTowerConfig, ResNetConfig};
use mm_vqa::co_attention::{
    CoAttentionConfig, CoAttentionHead, DEFAULT_CLASSES, FusionConfig, ImageTokens, McanConfig,
};
use serde_json::json;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 64;
/// Tokens of a question, rows of the word embedding and width of an image region.
const TOKENS: i64 = 14;
const WORDS: i64 = 18_000;
const REGION_WIDTH: i64 = 2048;
const THREADS: i32 = 2;
const LEARNING_RATE: f64 = 1e-4;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    precision: Precision,
    regions: i64,
    iterations: usize,
    warmup: usize,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tch::set_num_threads(THREADS);
    tch::manual_seed(1);
    let lstm = LstmConfig { vocab_size: WORDS, ..LstmConfig::default() };
    let config = CoAttentionConfig {
        // Not built: the features of its regions are the input.
        image: ImageTowerConfig::ResNet(ResNetConfig::default()),
        question: QuestionEncoderConfig::Lstm(lstm.clone()),
        fusion: FusionConfig::Mcan(McanConfig::default()),
        classes: DEFAULT_CLASSES,
    };
    let vs = VarStore::new(Device::Cpu);
    let tokens = ImageTokens { width: REGION_WIDTH, positions: None };
    let head = CoAttentionHead::new(&vs.root(), tokens, &config)?;
    head.set_training(true);
    let seconds = train(&options, &vs, &head)?;
    let flops = sample_gflop(&lstm, &McanConfig::default(), options.regions as f64);
    let measured = json!({
        "work": "train",
        "gflop_per_iteration": 3.0 * BATCH as f64 * flops,
        "items_per_iteration": BATCH,
        "peak_mb": peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64,
        "precision": serde_json::to_value(options.precision)?,
        "regions": options.regions,
        "seconds": seconds,
    });
    println!("{measured}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { precision: Precision::F32, regions: 100, iterations: 5, warmup: 1 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--regions" => options.regions = value.parse()?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    if options.regions < 1 || options.iterations == 0 {
        return Err("at least one region and one iteration are needed".into());
    }
    Ok(options)
}

/// The seconds of each step: forward, backward and update.
fn train(options: &Options, vs: &VarStore, head: &CoAttentionHead) -> Result<Vec<f64>> {
    let float = (Kind::Float, Device::Cpu);
    let regions = Tensor::randn([BATCH, options.regions, REGION_WIDTH], float);
    let image_index = Tensor::arange(BATCH, (Kind::Int64, Device::Cpu));
    let input_ids = Tensor::randint(WORDS, [BATCH, TOKENS], (Kind::Int64, Device::Cpu));
    let lengths = Tensor::full([BATCH], TOKENS, (Kind::Int64, Device::Cpu));
    let targets = Tensor::rand([BATCH, DEFAULT_CLASSES], float).gt(0.999).to_kind(Kind::Float);
    let config = AdamWConfig { beta1: 0.9, beta2: 0.98, eps: 1e-9, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(vs, config, Partition::WHOLE, |_| ParamOptions::default());
    let none = Tensor::from(0f32);

    let mut seconds = Vec::new();
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let loss = options.precision.autocast(Device::Cpu, || {
            let logits = head.forward(&head.project(&regions), &image_index, &input_ids, &lengths);
            soft_target_bce(&logits, &targets)
        });
        loss.backward();
        optimizer.step(LEARNING_RATE, &none, None)?;
        optimizer.zero_grad();
        assert!(loss.double_value(&[]).is_finite());
        if iteration >= options.warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

/// Multiply-adds of the forward pass for one sample, two operations each.
fn sample_gflop(lstm: &LstmConfig, mcan: &McanConfig, regions: f64) -> f64 {
    let [width, mlp, layers, reduction, output] =
        [mcan.width, mcan.mlp_width, mcan.layers, mcan.reduction_width, mcan.output_width]
            .map(|size| size as f64);
    let (tokens, hidden) = (TOKENS as f64, lstm.hidden_size as f64);
    let projection = regions * REGION_WIDTH as f64 * width;
    let recurrence = tokens * 4.0 * hidden * (lstm.embedding_size as f64 + hidden);
    let encoder = tokens * (4.0 * width * width + 2.0 * width * mlp) + 2.0 * tokens * tokens * width;
    let guided = 2.0 * (regions + tokens) * width * width + 2.0 * regions * tokens * width;
    let decoder =
        regions * (4.0 * width * width + 2.0 * width * mlp) + 2.0 * regions * regions * width + guided;
    let reductions = (regions + tokens) * width * reduction + 2.0 * width * output;
    let classifier = output * DEFAULT_CLASSES as f64;
    let sum = projection + recurrence + layers * (encoder + decoder) + reductions + classifier;
    2.0 * sum / 1e9
}
