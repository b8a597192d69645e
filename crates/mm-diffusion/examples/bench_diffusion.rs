//! What `cargo xtask bench diffusion` measures of ours: Stable Diffusion 1.5's U-Net and autoencoder with
//! random weights. Prints one line of JSON, as `xtask/peers/diffusion.py` does for diffusers.
//!
//! `bench_diffusion WORK [--precision f32|bf16] [--iterations N] [--warmup N]`, WORK being `step` (a guided
//! step of the U-Net: two rows of 64 x 64 latents with 77 tokens each), `decode` (such latents to 512 x 512
//! pixels), `limit` (matrix products of the U-Net's shapes) or `layers` (the time of the U-Net's layers at
//! each level, as text). `bench_diffusion error` prints how far packed models are from plain ones in f32.

use mm_core::nn::{
    Attention, AttentionMask, Conv2d, Conv2dConfig, GroupNorm, Linear, channels_last, matrices_in,
};
use mm_core::{Precision, peak_memory};
use mm_diffusion::{UNet, UNetConfig, UNetInputs, Vae, VaeConfig};
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const THREADS: i32 = 2;
const LATENTS: i64 = 64;
const TOKENS: i64 = 77;
const CONTEXT: i64 = 768;
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
/// The matrix products of a guided step and of an image, a multiply-add being two operations.
const STEP_GFLOP: f64 = 1607.0;
const DECODE_GFLOP: f64 = 2515.0;
/// Products of the U-Net's linear layers: rows, inputs, outputs.
const PRODUCTS: [(i64, i64, i64); 4] =
    [(8192, 320, 2560), (8192, 1280, 320), (2048, 640, 5120), (512, 5120, 1280)];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    work: String,
    precision: Precision,
    iterations: usize,
    warmup: usize,
}

/// The measured iterations.
struct Measured {
    seconds: Vec<f64>,
    /// Memory that the process holds more after the last than after the first, in MB.
    growth_mb: f64,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tch::set_num_threads(THREADS);
    tch::manual_seed(0);
    let (measured, gflop) = match options.work.as_str() {
        "step" => (step(&options)?, STEP_GFLOP),
        "decode" => (decode(&options)?, DECODE_GFLOP),
        "limit" => limit(&options)?,
        "layers" => return layers(&options),
        "error" => return error(),
        other => return Err(format!("unknown work {other}").into()),
    };
    let peak_mb = peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64;
    let line = serde_json::json!({
        "work": options.work,
        "precision": options.precision,
        "items_per_iteration": 1,
        "seconds": measured.seconds,
        "gflop_per_iteration": gflop,
        "peak_mb": peak_mb,
        "growth_mb": measured.growth_mb,
    });
    println!("{line}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let work = arguments.next().ok_or("step, decode, limit, layers or error is needed")?;
    let mut options = Options { work, precision: Precision::F32, iterations: 2, warmup: 1 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    if options.iterations == 0 {
        return Err("at least one iteration is needed".into());
    }
    Ok(options)
}

fn time(options: &Options, mut run: impl FnMut() -> Result<()>) -> Result<Measured> {
    let (mut seconds, mut resident) = (Vec::new(), Vec::new());
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        mm_sys::inference_mode(&mut run)?;
        if iteration >= options.warmup {
            seconds.push(start.elapsed().as_secs_f64());
            resident.push(resident_mb()?);
        }
    }
    Ok(Measured { seconds, growth_mb: resident[resident.len() - 1] - resident[0] })
}

/// Memory that this process holds now, in MB.
fn resident_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.split("VmRSS:").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(value.ok_or("the system reports no resident memory")?.parse::<f64>()? / 1024.0)
}

/// The U-Net, and its weights, which stay in memory as long as the store.
fn unet() -> Result<(VarStore, UNet)> {
    let config =
        UNetConfig { cross_attention_dim: serde_json::from_value(CONTEXT.into())?, ..UNetConfig::default() };
    let vs = VarStore::new(Device::Cpu);
    let model = UNet::new(&vs.root(), &config)?;
    Ok((vs, model))
}

fn vae() -> Result<(VarStore, Vae)> {
    let config = VaeConfig {
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        sample_size: 512,
        ..VaeConfig::default()
    };
    let vs = VarStore::new(Device::Cpu);
    let model = Vae::new(&vs.root(), &config)?;
    Ok((vs, model))
}

fn predict(model: &UNet, latents: &Tensor, states: &Tensor, precision: Precision) -> Result<Tensor> {
    let [latents, states] = [latents, states].map(|x| x.to_kind(precision.kind()));
    let (timestep, text) = (Tensor::full([2], 500.0, F32), model.project_text(&states));
    let inputs =
        UNetInputs { sample: &latents, timestep: &timestep, text: &text, added: None, guidance: None };
    Ok(model.forward(inputs)?)
}

/// Converts the weights with `pack`.
fn packed<M>((vs, mut model): (VarStore, M), pack: impl FnOnce(&mut M)) -> M {
    drop(vs); // the weights would be in memory twice
    pack(&mut model);
    model
}

fn step(options: &Options) -> Result<Measured> {
    let unet = matrices_in(options.precision.kind(), unet)?;
    let model = packed(unet, |model| model.pack(options.precision));
    let (latents, states) =
        (Tensor::randn([2, 4, LATENTS, LATENTS], F32), Tensor::randn([2, TOKENS, CONTEXT], F32));
    time(options, || predict(&model, &latents, &states, options.precision).map(drop))
}

fn decode(options: &Options) -> Result<Measured> {
    let model = packed(vae()?, |model| model.pack(options.precision));
    let latents = Tensor::randn([1, 4, LATENTS, LATENTS], (options.precision.kind(), Device::Cpu));
    time(options, || {
        drop(model.decode(&latents));
        Ok(())
    })
}

/// The machine's matrix limit.
fn limit(options: &Options) -> Result<(Measured, f64)> {
    let kind = (options.precision.kind(), Device::Cpu);
    let operands: Vec<(Tensor, Linear)> = PRODUCTS
        .iter()
        .map(|&(rows, input, output)| {
            let mut linear = Linear::from_tensors(Tensor::randn([output, input], kind), None);
            linear.pack(options.precision);
            (Tensor::randn([rows, input], kind), linear)
        })
        .collect();
    let measured = time(options, || {
        operands.iter().for_each(|(x, linear)| drop(linear.forward(x)));
        Ok(())
    })?;
    let gflop = PRODUCTS.iter().map(|&(rows, input, output)| 2e-9 * (rows * input * output) as f64).sum();
    Ok((measured, gflop))
}

/// Prints the time of each kind of layer at each level of the U-Net, for two rows.
fn layers(options: &Options) -> Result<()> {
    let (vs, kind) = (VarStore::new(Device::Cpu), options.precision.kind());
    let root = vs.root();
    let print = |name: &str, gflop: f64, run: &dyn Fn() -> Tensor| -> Result<()> {
        let seconds = time(options, || {
            drop(run());
            Ok(())
        })?
        .seconds;
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{name:40} {:8.2} ms {:6.0} GFLOP/s", best * 1e3, gflop / best);
        Ok(())
    };
    for (level, channels) in [320i64, 640, 1280, 1280].into_iter().enumerate() {
        let side = LATENTS >> level;
        let positions = 2 * side * side;
        let path = &root / level as i64;
        let x = channels_last(&Tensor::randn([2, channels, side, side], (kind, Device::Cpu)));
        let rows = x.flatten(2, 3).transpose(1, 2);
        let linear_gflop = |input: i64, output: i64| 2e-9 * positions as f64 * input as f64 * output as f64;

        let mut conv = Conv2d::new(&(&path / "conv"), Conv2dConfig::same(channels, channels, 3));
        let mut norm = GroupNorm::new(&(&path / "norm"), 32, channels, 1e-5);
        conv.pack(options.precision);
        norm.pack();
        print(&format!("{side} conv"), 9.0 * linear_gflop(channels, channels), &|| conv.forward(&x))?;
        print(&format!("{side} group norm, SiLU"), 0.0, &|| norm.forward_silu(&x))?;
        let linear = |name: &str, input, output| {
            let mut linear = Linear::new(&(&path / name), input, output, 0.02);
            linear.pack(options.precision);
            linear
        };
        let (geglu, out) = (linear("geglu", channels, 8 * channels), linear("out", 4 * channels, channels));
        let hidden = geglu.forward(&rows);
        let gate = |hidden: &Tensor| {
            let parts = hidden.chunk(2, -1);
            &parts[0] * parts[1].gelu("none")
        };
        let gated = gate(&hidden);
        print(&format!("{side} linear to 8x"), linear_gflop(channels, 8 * channels), &|| {
            geglu.forward(&rows)
        })?;
        print(&format!("{side} gates"), 0.0, &|| gate(&hidden))?;
        print(&format!("{side} linear from 4x"), linear_gflop(4 * channels, channels), &|| {
            out.forward(&gated)
        })?;
        let mut attention = Attention::new(
            Linear::without_bias(&(&path / "in_proj"), channels, 3 * channels, 0.02),
            Linear::new(&(&path / "out_proj"), channels, channels, 0.02),
            8,
        );
        attention.pack(options.precision);
        let products = 4e-9 * (positions * side * side * channels) as f64;
        print(&format!("{side} self-attention"), 4.0 * linear_gflop(channels, channels) + products, &|| {
            attention.forward(&rows, &AttentionMask::none())
        })?;
    }
    Ok(())
}

/// Prints the largest and the root mean square difference of packed models to plain ones in f32, over the
/// plain output's deviation.
fn error() -> Result<()> {
    let print = |name: &str, found: &Tensor, plain: &Tensor| {
        let off = (found.to_kind(Kind::Float) - plain) / plain.std(true);
        let (most, square) =
            (off.abs().max().double_value(&[]), off.square().mean(Kind::Float).double_value(&[]));
        println!("{name}: at most {most:.1e}, {:.1e} in the mean", square.sqrt());
    };
    let latents = Tensor::randn([2, 4, LATENTS, LATENTS], F32);
    let states = Tensor::randn([2, TOKENS, CONTEXT], F32);
    let (mut last, mut decoded) = (None, None);
    for precision in [Precision::F32, Precision::Bf16] {
        tch::manual_seed(1);
        let (vs, mut model) = unet()?;
        // A new model predicts zero.
        let _ = tch::no_grad(|| vs.variables()["conv_out.weight"].shallow_clone().normal_(0.0, 0.02));
        drop(vs);
        let run =
            |model: &UNet, precision| mm_sys::inference_mode(|| predict(model, &latents, &states, precision));
        let plain = last.take().map_or_else(|| run(&model, Precision::F32), Ok)?;
        model.pack(precision);
        print(&format!("U-Net {precision:?}"), &run(&model, precision)?, &plain);
        last = Some(plain);

        let (vs, mut model) = vae()?;
        drop(vs);
        let run = |model: &Vae, kind| {
            mm_sys::inference_mode(|| model.decode(&latents.narrow(0, 0, 1).to_kind(kind)))
        };
        let plain = decoded.take().unwrap_or_else(|| run(&model, Kind::Float));
        model.pack(precision);
        print(&format!("autoencoder {precision:?}"), &run(&model, precision.kind()), &plain);
        decoded = Some(plain);
    }
    Ok(())
}
