//! What `cargo xtask bench caption` measures of ours: captions of 8 images by BLIP-base, 3 beams and 20 new
//! tokens each, or training on 8 pairs. Prints one line of JSON, as `xtask/peers/caption.py` does for
//! transformers.
//!
//! `bench_caption --folder DIR [--precision f32|bf16|int8] [--iterations N] [--warmup N] [--train]`, DIR
//! being what `caption.py --make DIR` writes.

use mm_caption::{CaptionPipeline, Captioner, CaptionerFolder};
use mm_core::loss::token_cross_entropy;
use mm_core::nn::{AttentionMask, Context};
use mm_core::optim::{AdamWConfig, Optimizer, ParamOptions, Partition};
use mm_core::{DeviceConfig, OpenOptions, Precision, peak_memory};
use mm_text::decoder::{CaptionTokens, Decoder, NextTokens};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Tensor};

const IMAGES: usize = 8;
const BEAMS: usize = 3;
/// New tokens of each caption; tokens of each training caption, of which the first are a prompt.
const TOKENS: usize = 20;
const PROMPT: usize = 4;
const THREADS: i32 = 2;
/// BLIP-base: the sizes of both stacks of blocks, of the image's tokens and of the vocabulary.
const WIDTH: f64 = 768.0;
const MLP_WIDTH: f64 = 3072.0;
const LAYERS: f64 = 12.0;
const PATCHES: f64 = 24.0 * 24.0;
const PATCH_VALUES: f64 = 3.0 * 16.0 * 16.0;
const IMAGE_TOKENS: f64 = PATCHES + 1.0;
const VOCABULARY: f64 = 30524.0;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    folder: String,
    precision: Precision,
    iterations: usize,
    warmup: usize,
    train: bool,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tch::set_num_threads(THREADS);
    let mut measured = if options.train { training(&options)? } else { captioning(&options)? };
    measured["precision"] = serde_json::to_value(options.precision)?;
    measured["items_per_iteration"] = IMAGES.into();
    println!("{measured}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options =
        Options { folder: String::new(), precision: Precision::F32, iterations: 3, warmup: 1, train: false };
    while let Some(name) = arguments.next() {
        if name == "--train" {
            options.train = true;
            continue;
        }
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

/// Captions the images: the seconds of whole batches, and the median of each part.
fn captioning(options: &Options) -> Result<Value> {
    let device = DeviceConfig::from(Device::Cpu);
    let open = OpenOptions { device, precision: options.precision, ..OpenOptions::default() };
    let pipeline = CaptionPipeline::open(&options.folder, &open)?;
    let (captioner, tokens) = (&pipeline.captioner, &pipeline.description.tokens);
    let pixel_values = pixel_values(&options.folder)?;
    let prompt = |image: usize| Prompt { tokens: tokens.start.into_iter().collect(), seed: image as u64 };
    let prompts: Vec<Prompt> = (0..IMAGES).map(prompt).collect();
    let config = GenerationConfig {
        num_beams: BEAMS,
        min_new_tokens: TOKENS,
        max_new_tokens: TOKENS,
        ..GenerationConfig::default()
    };
    let encode = || mm_sys::inference_mode(|| captioner.encode(&pixel_values, false));

    let (mut encoder, mut decoder, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let mut texts: Vec<Vec<Hypothesis>> = Vec::new();
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let states = encode();
        let encoded = start.elapsed().as_secs_f64();
        texts = captioner.generate(&states, &prompts, &config, &[tokens.end])?;
        let all = start.elapsed().as_secs_f64();
        if iteration >= options.warmup {
            encoder.push(encoded);
            decoder.push(all - encoded);
            whole.push(all);
        }
    }
    let peak_mb = peak_mb()?;

    let keys = project(options, captioner, encode());
    let (encode_seconds, decode_seconds, keys_seconds) = (median(encoder), median(decoder), median(keys));
    let images = IMAGES as f64;
    // The first step has a row for each image, the others one for each beam.
    let rows = images * (1.0 + (BEAMS * (TOKENS - 1)) as f64);
    let step_gflop = rows * (blocks_gflop() + head_gflop()) / TOKENS as f64;
    let step_seconds = (decode_seconds - keys_seconds) / TOKENS as f64;
    Ok(json!({
        "work": "caption",
        "seconds": whole,
        "gflop_per_iteration": images * (encoder_gflop() + keys_gflop()) + TOKENS as f64 * step_gflop,
        "peak_mb": peak_mb,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "tokens_per_second": (IMAGES * TOKENS) as f64 / decode_seconds,
        "phases": {
            "encoder": { "seconds": encode_seconds, "gflop": images * encoder_gflop() },
            "keys": { "seconds": keys_seconds, "gflop": images * keys_gflop() },
            "step": { "seconds": step_seconds, "gflop": step_gflop },
        },
        "ids": texts.iter().map(|beams| beams.first().map(|best| &best.tokens)).collect::<Vec<_>>(),
    }))
}

/// The seconds of the keys and values of the images in all blocks of the decoder: `generate` begins with
/// them.
fn project(options: &Options, captioner: &Captioner, states: Tensor) -> Vec<f64> {
    let context = Context { states, mask: AttentionMask::none() };
    let time = |_: usize| {
        let start = Instant::now();
        mm_sys::inference_mode(|| drop(captioner.decoder().new_cache(TOKENS as i64, Some(&context))));
        start.elapsed().as_secs_f64()
    };
    (0..options.warmup + options.iterations).map(time).skip(options.warmup).collect()
}

/// Trains on pairs: the seconds of each step.
fn training(options: &Options) -> Result<Value> {
    let vs = VarStore::new(Device::Cpu);
    let folder = CaptionerFolder::open(&options.folder)?;
    let captioner = folder.build(&vs)?;
    let tokens = folder.description.tokens.clone();
    drop(folder); // the mapped weights
    let pixel_values = pixel_values(&options.folder)?;
    let next = NextTokens::new(&captions(tokens.start.ok_or("BLIP has a begin token")?, tokens.end), 0);
    let config = AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 };
    let mut optimizer = Optimizer::new(&vs, config, Partition::WHOLE, |_| ParamOptions::default());
    let none = Tensor::from(0f32);

    let mut seconds = Vec::new();
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let loss = options.precision.autocast(Device::Cpu, || {
            let states = captioner.encode(&pixel_values, true);
            let logits = captioner.next_token_logits(&states, &next);
            token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64
        });
        loss.backward();
        optimizer.step(1e-5, &none, None)?;
        optimizer.zero_grad();
        assert!(loss.double_value(&[]).is_finite());
        if iteration >= options.warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    // The last token of a caption is not read, and those of the prompt are not predicted.
    let decoder = (TOKENS - 1) as f64 * blocks_gflop() + (TOKENS - PROMPT) as f64 * head_gflop();
    Ok(json!({
        "work": "train",
        "gflop_per_iteration": 3.0 * IMAGES as f64 * (encoder_gflop() + keys_gflop() + decoder),
        "peak_mb": peak_mb()?,
        "pairs_per_second": IMAGES as f64 / median(seconds.clone()),
        "seconds": seconds,
    }))
}

/// Captions of any words.
fn captions(start: u32, end: u32) -> Vec<CaptionTokens> {
    let caption = |image: usize| {
        let word = |place: usize| (1000 + (image * TOKENS + place) * 181) as u32;
        let mut token_ids: Vec<u32> = (0..TOKENS).map(word).collect();
        (token_ids[0], token_ids[TOKENS - 1]) = (start, end);
        CaptionTokens { token_ids, prompt_length: PROMPT }
    };
    (0..IMAGES).map(caption).collect()
}

/// `[8, 3, 384, 384]`, f32, which the peer reads too.
fn pixel_values(folder: &str) -> Result<Tensor> {
    let tensors = Tensor::read_safetensors(Path::new(folder).join("pixels.safetensors"))?;
    let found = tensors.into_iter().find(|(name, _)| name == "pixel_values");
    Ok(found.ok_or("pixels.safetensors has no pixel_values")?.1)
}

fn peak_mb() -> Result<f64> {
    Ok(peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Multiply-adds of the image encoder for one image, two operations each.
fn encoder_gflop() -> f64 {
    let matrices = 2.0 * IMAGE_TOKENS * (4.0 * WIDTH * WIDTH + 2.0 * WIDTH * MLP_WIDTH);
    let attention = 4.0 * IMAGE_TOKENS * IMAGE_TOKENS * WIDTH;
    (LAYERS * (matrices + attention) + 2.0 * PATCHES * PATCH_VALUES * WIDTH) / 1e9
}

/// Those of the keys and values of one image in all blocks of the decoder.
fn keys_gflop() -> f64 {
    LAYERS * 2.0 * 2.0 * WIDTH * WIDTH * IMAGE_TOKENS / 1e9
}

/// Those of the decoder's blocks for one token. A text is too short for its self-attention to count.
fn blocks_gflop() -> f64 {
    let matrices = 2.0 * (6.0 * WIDTH * WIDTH + 2.0 * WIDTH * MLP_WIDTH);
    LAYERS * (matrices + 4.0 * IMAGE_TOKENS * WIDTH) / 1e9
}

/// Those of the logits of one token.
fn head_gflop() -> f64 {
    2.0 * (WIDTH * WIDTH + WIDTH * VOCABULARY) / 1e9
}
