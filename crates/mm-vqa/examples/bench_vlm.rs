//! What `cargo xtask bench vlm` measures of ours: answers of a model of SmolVLM-256M's sizes about one tile,
//! and training steps of its adapters. Prints one line of JSON, as `xtask/peers/vlm.py` does for
//! transformers.
//!
//! `bench_vlm generate|train --folder DIR [--precision f32|bf16|int8] [--iterations N] [--warmup N]`, DIR
//! being what `vlm.py --make DIR` writes.

use mm_core::lora::{Lora, LoraConfig, record_linears};
use mm_core::loss::token_cross_entropy;
use mm_core::optim::{AdamWConfig, Optimizer, ParamOptions, Partition};
use mm_core::{Precision, peak_memory};
use mm_text::decoder::{CaptionTokens, Decoder, NextTokens};
use mm_text::generate::{GenerationConfig, Prompt};
use mm_vqa::vlm::{ConnectorConfig, Vlm, VlmConfig, VlmFolder};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// New tokens of an answer.
const TOKENS: usize = 64;
/// One in so many logits is printed.
const LOGITS_STEP: usize = 48;
const THREADS: usize = 2;
/// Of the adapters, on the layers with these names.
const RANK: i64 = 8;
const TARGETS: [&str; 2] = ["q_proj", "v_proj"];
const LEARNING_RATE: f64 = 1e-4;
/// Numbers of 8 bytes that are read for the bandwidth, 512 MB.
const READ: usize = 1 << 26;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    work: String,
    folder: String,
    precision: Precision,
    iterations: usize,
    warmup: usize,
}

/// The images and texts that both sides read.
struct Inputs {
    /// `[B, 3, side, side]`.
    pixel_values: Tensor,
    prompt: Vec<u32>,
    /// Of the prompt with each image, in training.
    answers: Vec<Vec<u32>>,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tch::set_num_threads(THREADS as i32);
    let folder = VlmFolder::open(&options.folder)?;
    let inputs = Inputs::read(&options.folder)?;
    let mut measured = match options.work.as_str() {
        "generate" => generate(&options, folder, &inputs)?,
        "train" => train(&options, &folder, &inputs)?,
        work => return Err(format!("unknown work {work}: generate or train").into()),
    };
    measured["precision"] = serde_json::to_value(options.precision)?;
    println!("{measured}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let work = arguments.next().ok_or("generate or train is needed")?;
    let mut options =
        Options { work, folder: String::new(), precision: Precision::F32, iterations: 3, warmup: 1 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--folder" => options.folder = value,
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    if options.folder.is_empty() || options.iterations == 0 {
        return Err("--folder DIR and at least one iteration are needed".into());
    }
    Ok(options)
}

impl Inputs {
    fn read(folder: &str) -> Result<Self> {
        let file = Path::new(folder).join("inputs.safetensors");
        let mut tensors: HashMap<String, Tensor> = Tensor::read_safetensors(file)?.into_iter().collect();
        let mut take = |name: &str| {
            tensors.remove(name).ok_or_else(|| format!("inputs.safetensors has no tensor {name}"))
        };
        let ids = |tensor: &Tensor| -> Result<Vec<u32>> {
            Ok(Vec::<i64>::try_from(tensor)?.into_iter().map(|id| id as u32).collect())
        };
        let (pixel_values, prompt, answers) = (take("pixel_values")?, take("prompt")?, take("answers")?);
        let answers = answers.unbind(0).iter().map(ids).collect::<Result<_>>()?;
        Ok(Self { pixel_values, prompt: ids(&prompt)?, answers })
    }
}

/// Answers about the first image.
fn generate(options: &Options, folder: VlmFolder, inputs: &Inputs) -> Result<Value> {
    let config = folder.config.clone();
    let vs = VarStore::new(Device::Cpu);
    let mut model = folder.build(&vs, |path| Vlm::new(path, &config))?;
    let read = read_bytes(&config, &vs, options.precision, inputs.prompt.len());
    drop((vs, folder)); // the weights would be in memory twice
    model.pack(options.precision);
    let pixel_values = inputs.pixel_values.narrow(0, 0, 1);
    let prompt = Prompt { tokens: inputs.prompt.clone(), seed: 0 };
    let settings = GenerationConfig { max_new_tokens: TOKENS, ..GenerationConfig::default() };
    let (mut first_seconds, mut later_seconds, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let features = model.encode_images(&pixel_values);
        let mut first = None;
        let text = model.generate_stream(Some(features), &prompt, &settings, &[], &mut |_| {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            ControlFlow::Continue(())
        })?;
        let (whole, first) = (start.elapsed().as_secs_f64(), first.ok_or("the answer has no token")?);
        if iteration >= options.warmup {
            first_seconds.push(first);
            later_seconds.push(whole - first);
        }
        ids = text.tokens;
    }
    let features = model.encode_images(&pixel_values);
    let decoder = model.with_features(Some(features), std::slice::from_ref(&prompt))?;
    let logits = mm_sys::inference_mode(|| {
        let mut cache = decoder.new_cache(prompt.tokens.len() as i64, None);
        decoder.start(&[&prompt.tokens], &mut cache)
    });
    let logits: Vec<f32> = Vec::try_from(logits.view(-1))?;
    let (work, peak_mb) = (Work::of(&config), peak_mb()?);
    let (places, later) = (inputs.prompt.len() as f64, (TOKENS - 1) as f64);
    Ok(json!({
        "work": "generate",
        "first": {
            "items_per_iteration": 1,
            "seconds": first_seconds,
            "gflop_per_iteration": work.image + work.tokens(0.0, places) + work.head,
            "peak_mb": peak_mb,
        },
        "later": {
            "items_per_iteration": later,
            "seconds": later_seconds,
            "gflop_per_iteration": work.tokens(places, places + later) + later * work.head,
            "peak_mb": peak_mb,
        },
        "ids": ids,
        "logits": logits.iter().step_by(LOGITS_STEP).collect::<Vec<_>>(),
        "memory": { "read_mb": read / 1e6, "bandwidth": bandwidth()? / 1e9 },
    }))
}

/// Steps of AdamW on the adapters: forward, backward and update.
fn train(options: &Options, folder: &VlmFolder, inputs: &Inputs) -> Result<Value> {
    let config = &folder.config;
    let vs = VarStore::new(Device::Cpu);
    let (model, linears) = record_linears(|| folder.build(&vs, |path| Vlm::new(path, config)));
    let model = model?;
    let targets = TARGETS.map(str::to_owned).to_vec();
    let lora = LoraConfig { rank: RANK, alpha: RANK as f64, targets, ..LoraConfig::default() };
    let lora = Lora::attach(&lora, &linears, config.family.lora_names(), &vs)?;
    let adamw = AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let mut optimizer =
        Optimizer::new(lora.variables(), adamw, Partition::WHOLE, |_| ParamOptions::default());
    let row = |answer: &Vec<u32>| CaptionTokens {
        token_ids: [inputs.prompt.as_slice(), answer].concat(),
        prompt_length: inputs.prompt.len(),
    };
    let rows: Vec<CaptionTokens> = inputs.answers.iter().map(row).collect();
    let next = NextTokens::new(&rows, 0);
    let none = Tensor::from(0f32);
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let loss = options.precision.autocast(Device::Cpu, || {
            let features = model.image_features(&inputs.pixel_values);
            let logits = model.next_token_logits(&next, Some(&features))?;
            mm_vqa::Result::Ok(token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64)
        })?;
        loss.backward();
        optimizer.step(LEARNING_RATE, &none, None)?;
        optimizer.zero_grad();
        losses.push(loss.double_value(&[]));
        if iteration >= options.warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let (count, length) = (rows.len() as f64, rows[0].token_ids.len() as f64);
    let work = Work::of(config);
    let forward = count * (work.image + work.tokens(0.0, length)) + next.count() as f64 * work.head;
    Ok(json!({
        "work": "train",
        "items_per_iteration": count * length,
        "seconds": seconds,
        // The frozen weights have no gradients.
        "gflop_per_iteration": 2.0 * forward,
        "peak_mb": peak_mb()?,
        "loss": losses[0],
    }))
}

/// Matrix products in GFLOP, a multiply-add being two operations.
struct Work {
    /// The tower and the connector for an image.
    image: f64,
    /// The logits of a token.
    head: f64,
    /// The products of a token with the weights of the decoder's blocks.
    token: f64,
    /// Those of a token with the key and the value of one place, in all blocks.
    place: f64,
}

impl Work {
    fn of(config: &VlmConfig) -> Self {
        let (vision, text) = (&config.vision, &config.text);
        let [width, mlp, layers, patch] =
            [vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.patch_size]
                .map(|size| size as f64);
        let patches = vision.patch_grid().pow(2) as f64;
        let block =
            2.0 * patches * (4.0 * width * width + 2.0 * width * mlp) + 4.0 * patches * patches * width;
        let embedding = 2.0 * patches * 3.0 * patch * patch * width;
        let [hidden, inner, blocks, heads, kv_heads, head, vocab] = [
            text.hidden_size,
            text.intermediate_size,
            text.num_hidden_layers,
            text.num_attention_heads,
            text.kv_heads(),
            text.head_width(),
            text.vocab_size,
        ]
        .map(|size| size as f64);
        let connector = match config.connector {
            // Each value of a patch is an input once.
            ConnectorConfig::PixelShuffle { .. } => 2.0 * patches * width * hidden,
            ConnectorConfig::Mlp { .. } => 2.0 * patches * (width + hidden) * hidden,
        };
        let attention = hidden * head * (2.0 * heads + 2.0 * kv_heads);
        Self {
            image: (layers * block + embedding + connector) / 1e9,
            head: 2.0 * hidden * vocab / 1e9,
            token: blocks * 2.0 * (attention + 3.0 * hidden * inner) / 1e9,
            place: blocks * 4.0 * heads * head / 1e9,
        }
    }

    /// The decoder's blocks for the tokens at the places from `start` to `end`, each of which sees those
    /// before it.
    fn tokens(&self, start: f64, end: f64) -> f64 {
        (end - start) * (self.token + self.place * (start + end) / 2.0)
    }
}

/// The bytes of weights, keys and values that a token of the middle of the answer reads. The output layer of
/// an int8 model stays in f32.
fn read_bytes(config: &VlmConfig, vs: &VarStore, precision: Precision, prompt: usize) -> f64 {
    let (text, family) = (&config.text, config.family);
    let embeddings = format!("{}.embed_tokens.weight", family.body_root());
    let head = match text.tie_word_embeddings {
        true => embeddings.clone(),
        false => format!("{}.weight", family.head_root()),
    };
    let body = format!("{}.", family.body_root());
    let is_read = |name: &str| name == head || name.starts_with(&body) && name != embeddings;
    let size = |name: &str, tensor: &Tensor| match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
        Precision::Int8 if name == head || tensor.dim() < 2 => 4,
        Precision::Int8 => 1,
    };
    let variables = vs.variables();
    let read = variables.iter().filter(|(name, _)| is_read(name));
    let weights: usize = read.map(|(name, tensor)| tensor.numel() * size(name, tensor)).sum();
    let kind = if precision == Precision::Bf16 { 2 } else { 4 };
    let place = text.num_hidden_layers * 2 * text.kv_heads() * text.head_width() * kind;
    weights as f64 + place as f64 * (prompt + TOKENS / 2) as f64
}

/// The bytes a second that all threads together read of memory beyond the caches.
fn bandwidth() -> Result<f64> {
    let numbers = vec![1u64; READ];
    let sum = |part: &[u64]| part.iter().fold(0u64, |sum, number| sum.wrapping_add(*number));
    let read = |_| {
        let start = Instant::now();
        let total = thread::scope(|scope| {
            let parts = numbers.chunks(READ / THREADS).map(|part| scope.spawn(move || sum(part)));
            let parts: Vec<_> = parts.collect();
            parts.into_iter().map(|part| part.join().unwrap_or_default()).fold(0, u64::wrapping_add)
        });
        (black_box(total), size_of_val(numbers.as_slice()) as f64 / start.elapsed().as_secs_f64())
    };
    let reads: Vec<(u64, f64)> = (0..5).map(read).collect();
    match reads.iter().all(|(total, _)| *total == READ as u64) {
        true => Ok(reads.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)),
        false => Err("a thread that reads the memory failed".into()),
    }
}

/// Peak memory of the process, in MB.
fn peak_mb() -> Result<f64> {
    Ok(peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64)
}
