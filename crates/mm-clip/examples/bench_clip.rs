//! What `cargo xtask bench clip` measures of ours: ViT-B/32 with random weights, batch 16. Prints one line of
//! JSON, as `xtask/peers/bench_clip.py` does for the peers.
//!
//! `bench_clip WORK [--precision f32|bf16|int8] [--iterations N] [--warmup N] [--captions FILE]`, WORK being
//! `captions` (prints the emoji set's, the input of the others), `cosine` (prints how near bf16 and int8 come
//! to f32), `limit`, `images`, `texts77`, `texts` or `train`; `bench_clip save DIR` writes the model into an
//! existing folder.

mod common;

use common::print_result;
use mm_clip::{CheckpointFormat, Clip, ClipConfig, ClipPipeline, StoredType};
use mm_core::Precision;
use mm_core::nn::Linear;
use mm_core::optim::{AdamWConfig, Optimizer, ParamOptions, Partition};
use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
use mm_text::{TokenBatch, Tokenizer};
use mm_vision::ImageProcessor;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const BATCH: usize = 16;
const CONTEXT: usize = 77;
const THREADS: i32 = 2;
/// CLIP's end token.
const EOS: u32 = 49407;
/// The matrix products of one layer of either tower at batch 16: rows, inputs, outputs.
const IMAGE_PRODUCTS: [(i64, i64, i64); 4] =
    [(800, 768, 2304), (800, 768, 768), (800, 768, 3072), (800, 3072, 768)];

struct Options {
    work: String,
    precision: Precision,
    iterations: usize,
    warmup: usize,
    captions: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    if let (Some("save"), Some(folder)) = (arguments.next().as_deref(), arguments.next()) {
        return save(Path::new(&folder));
    }
    let options = parse(std::env::args().skip(1))?;
    if options.work == "captions" {
        captions().for_each(|caption| println!("{caption}"));
        return Ok(());
    }
    tch::set_num_threads(THREADS);
    tch::manual_seed(0);
    if options.work == "cosine" {
        return cosine(&options);
    }
    let (seconds, gflop) = match options.work.as_str() {
        "limit" => limit(&options),
        "images" | "texts77" | "texts" => inference(&options)?,
        "train" => training(&options)?,
        other => return Err(format!("unknown work {other:?}").into()),
    };
    print_result(&options.work, options.precision, BATCH, &seconds, gflop)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn std::error::Error>> {
    let work = arguments.next().ok_or("which work?")?;
    let mut options = Options { work, precision: Precision::F32, iterations: 5, warmup: 2, captions: None };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            "--captions" => options.captions = Some(value),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

/// The canonical captions of all pairs, in an order that mixes long and short as training does.
fn captions() -> impl Iterator<Item = &'static str> {
    let pairs = mm_data::emoji::pairs(mm_data::emoji::HeldOutBy::Caption);
    // 1,597 has no factor in common with the number of pairs, so each comes once.
    (0..pairs.len()).map(move |index| pairs[index * 1597 % pairs.len()].captions[0].as_str())
}

/// Runs `step` for warm-up and measurement; gives the seconds of each measured iteration.
fn time(options: &Options, mut step: impl FnMut(usize)) -> Vec<f64> {
    (0..options.warmup + options.iterations)
        .map(|index| {
            let start = Instant::now();
            step(index);
            start.elapsed().as_secs_f64()
        })
        .skip(options.warmup)
        .collect()
}

/// The machine's matrix limit: the image tower's own products, on operands that stay in place. In int8 each
/// product includes the quantising of its inputs.
fn limit(options: &Options) -> (Vec<f64>, f64) {
    let kind = (options.precision.kind(), Device::Cpu);
    let operands: Vec<(Tensor, Linear)> = IMAGE_PRODUCTS
        .iter()
        .map(|&(rows, input, output)| {
            let mut linear = Linear::from_tensors(Tensor::randn([output, input], kind), None);
            if options.precision == Precision::Int8 {
                linear.pack(options.precision);
            }
            (Tensor::randn([rows, input], kind), linear)
        })
        .collect();
    let seconds = mm_sys::inference_mode(|| {
        time(options, |_| operands.iter().for_each(|(x, linear)| drop(linear.forward(x))))
    });
    let gflop =
        IMAGE_PRODUCTS.iter().map(|&(rows, input, output)| 2.0 * (rows * input * output) as f64 / 1e9).sum();
    (seconds, gflop)
}

fn inference(options: &Options) -> Result<(Vec<f64>, f64), Box<dyn std::error::Error>> {
    let (vs, mut model) = vit_b_32()?;
    if options.precision != Precision::F32 {
        model.pack(options.precision);
    }
    drop(vs); // a packed model does without the f32 weights
    let pixel_values = Tensor::randn([BATCH as i64, 3, 224, 224], (Kind::Float, Device::Cpu));
    if options.work == "images" {
        let seconds =
            time(options, |_| mm_sys::inference_mode(|| drop(model.image.encode(&pixel_values, false))));
        return Ok((seconds, BATCH as f64 * image_gflop()));
    }
    let batches = batches(options)?;
    let seconds = time(options, |index| mm_sys::inference_mode(|| drop(model.text.encode(&batches[index]))));
    Ok((seconds, mean_text_gflop(options, &batches)))
}

/// Prints the smallest cosine between f32 and narrower embeddings of a batch of images and one of captions.
fn cosine(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let pixel_values = Tensor::randn([BATCH as i64, 3, 224, 224], (Kind::Float, Device::Cpu));
    let tokens = batches(options)?.swap_remove(0);
    let embed = |model: &Clip| {
        tch::no_grad(|| [model.image.encode(&pixel_values, false), model.text.encode(&tokens)])
    };
    for (name, precision) in [("bf16", Precision::Bf16), ("int8", Precision::Int8)] {
        let (_vs, mut model) = vit_b_32()?;
        let exact = embed(&model);
        model.pack(precision);
        for (what, (exact, packed)) in ["images", "texts"].iter().zip(exact.iter().zip(embed(&model))) {
            let cosine = (exact * packed).sum_dim_intlist([1i64].as_slice(), false, Kind::Float).min();
            println!("{what}: cosine of {name} to f32 at least {:.5}", cosine.double_value(&[]));
        }
    }
    Ok(())
}

fn training(options: &Options) -> Result<(Vec<f64>, f64), Box<dyn std::error::Error>> {
    let (vs, mut model) = vit_b_32()?;
    let config = AdamWConfig { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.2 };
    let mut optimizer = Optimizer::new(&vs, config, Partition::WHOLE, |_| ParamOptions::default());
    let pixel_values = Tensor::randn([BATCH as i64, 3, 224, 224], (Kind::Float, Device::Cpu));
    let batches = batches(options)?;
    let none = Tensor::from(0f32);
    let contrastive = Contrastive::new(&ProcessGroup::alone(), ContrastiveConfig::default());
    let seconds = time(options, |index| {
        let loss = options.precision.autocast(Device::Cpu, || {
            let image_embeds = model.image.encode(&pixel_values, true);
            model
                .head
                .loss(&contrastive, &image_embeds, &model.text.encode(&batches[index]))
                .expect("one process loses none")
        });
        loss.backward();
        optimizer.step(5e-4, &none, None).expect("gradients fit their parameters");
        optimizer.zero_grad();
        model.head.clamp_logit_scale();
        assert!(loss.double_value(&[]).is_finite());
    });
    let gflop = 3.0 * (BATCH as f64 * image_gflop() + mean_text_gflop(options, &batches));
    Ok((seconds, gflop))
}

fn vit_b_32() -> Result<(VarStore, Clip), Box<dyn std::error::Error>> {
    let vs = VarStore::new(Device::Cpu);
    let model = Clip::new(&vs.root(), &vit_b_32_config()?)?;
    Ok((vs, model))
}

fn vit_b_32_config() -> Result<ClipConfig, toml::de::Error> {
    toml::from_str("embed_dim = 512\nimage.kind = \"vit\"\ntext.kind = \"clip\"\n")
}

/// Writes ViT-B/32 with OpenAI's tokenizer and preprocessing, as transformers reads it.
fn save(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    tch::manual_seed(0);
    let config = vit_b_32_config()?;
    let vs = VarStore::new(Device::Cpu);
    let clip = Clip::new(&vs.root(), &config)?;
    let (tokenizer, processor) = (Arc::new(Tokenizer::openai_clip()?), ImageProcessor::default_clip(224));
    let pipeline = ClipPipeline::new(clip, config, tokenizer, processor, Device::Cpu);
    Ok(pipeline.save(&[&vs], folder, CheckpointFormat::Hf, StoredType::F32)?)
}

/// One batch an iteration, padded to 77: tokens that fill the context, or captions 16k to 16k + 15.
fn batches(options: &Options) -> Result<Vec<TokenBatch>, Box<dyn std::error::Error>> {
    let count = options.warmup + options.iterations;
    if options.work == "texts77" {
        let mut full = vec![1000u32; CONTEXT];
        (full[0], full[CONTEXT - 1]) = (49406, EOS);
        return Ok((0..count).map(|_| TokenBatch::from_rows(&vec![full.clone(); BATCH], 0, EOS)).collect());
    }
    let rows = token_rows(Path::new(options.captions.as_ref().ok_or("--captions FILE is needed")?))?;
    let batch = |k: usize| (0..BATCH).map(|i| rows[(k * BATCH + i) % rows.len()].clone()).collect::<Vec<_>>();
    Ok((0..count).map(|k| TokenBatch::from_rows(&batch(k), CONTEXT, EOS)).collect())
}

/// The tokens of each caption in `file`: read from a file of ids, as the peers print them, or made by the
/// goldens' tokenizer, which is CLIP's own with fewer merges.
fn token_rows(file: &Path) -> Result<Vec<Vec<u32>>, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(file)?;
    if file.extension().is_some_and(|extension| extension == "ids") {
        let ids = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
        return Ok(text.lines().map(ids).collect::<Result<_, _>>()?);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/text/clip_tokenizer");
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let mut rows = tokenizer.encode_all(&text.lines().collect::<Vec<_>>())?;
    // the end token of the full vocabulary
    rows.iter_mut().filter_map(|row| row.last_mut()).for_each(|end| *end = EOS);
    Ok(rows)
}

/// Multiply-adds of a transformer tower for one sample, two operations each.
fn tower_gflop(tokens: f64, width: f64) -> f64 {
    let (matrices, attention) = (2.0 * 12.0 * width * width * tokens, 2.0 * 2.0 * tokens * tokens * width);
    (matrices + attention) * 12.0 / 1e9
}

fn image_gflop() -> f64 {
    tower_gflop(50.0, 768.0) + 2.0 * 49.0 * 3.0 * 32.0 * 32.0 * 768.0 / 1e9 + 2.0 * 768.0 * 512.0 / 1e9
}

/// What a batch of texts takes when it is cut after its longest text.
fn mean_text_gflop(options: &Options, batches: &[TokenBatch]) -> f64 {
    let measured = &batches[options.warmup..];
    let one = |batch: &TokenBatch| {
        let longest = batch.attention_mask.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64).max();
        BATCH as f64 * (tower_gflop(longest.double_value(&[]), 512.0) + 2.0 * 512.0 * 512.0 / 1e9)
    };
    measured.iter().map(one).sum::<f64>() / measured.len() as f64
}
