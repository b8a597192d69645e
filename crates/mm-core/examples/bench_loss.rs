//! What the contrastive losses take, whole and in tiles, and a transformer with and without gradient
//! checkpointing: seconds of each forward and backward pass, and the most memory above that of what goes in
//! (embeddings, weights) and its gradients. Prints one line of JSON. The peak is the process's, so that a
//! measurement is a process of its own.
//!
//! `bench_loss plain|tiled|plain-siglip|tiled-siglip B D [TILE]` or `bench_loss checkpointing on|off`

use mm_core::loss::{DEFAULT_TILE, info_nce, info_nce_tiled, siglip, siglip_tiled};
use mm_core::nn::{Activation, AttentionMask, BlockConfig, BlockNames, Transformer};
use mm_core::peak_memory;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const ITERATIONS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    tch::manual_seed(0);
    let (seconds, bytes) = match arguments[..] {
        ["checkpointing", switch @ ("on" | "off")] => {
            checkpointing(1, 1, switch == "on"); // libtorch's own code comes into memory with its first use
            checkpointing(16, 12, switch == "on")
        }
        [work @ ("plain" | "tiled" | "plain-siglip" | "tiled-siglip"), batch, width, ref tile @ ..] => {
            let tile = tile.first().map_or(Ok(DEFAULT_TILE), |tile| tile.parse())?;
            loss(work, 256, width.parse()?, tile);
            loss(work, batch.parse()?, width.parse()?, tile)
        }
        _ => {
            return Err(
                "usage: bench_loss plain|tiled|plain-siglip|tiled-siglip B D [TILE] | checkpointing on|off"
                    .into(),
            );
        }
    };
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_mb": bytes / 1e6 }));
    Ok(())
}

/// A loss over `batch` pairs of embeddings.
fn loss(work: &str, batch: i64, width: i64, tile: i64) -> (Vec<f64>, f64) {
    let (images, texts) = (unit_rows(batch, width), unit_rows(batch, width));
    let [scale, bias] = [2.66f32, -10.0].map(|x| Tensor::from(x).set_requires_grad(true));
    measure(&[&images, &texts], || {
        let loss = match work {
            "plain" => info_nce(&images, &texts, &scale),
            "tiled" => info_nce_tiled(&images, &texts, &scale, tile),
            "plain-siglip" => siglip(&images, &texts, &scale, &bias),
            _ => siglip_tiled(&images, &texts, &scale, &bias, tile),
        };
        loss.backward();
    })
}

/// A transformer of the width of CLIP's text tower, over `batch` images of 256 patches.
fn checkpointing(batch: i64, layers: i64, is_on: bool) -> (Vec<f64>, f64) {
    let vs = VarStore::new(Device::Cpu);
    let width = 512;
    let config = BlockConfig {
        width,
        layers,
        activation: Activation::Gelu,
        gradient_checkpointing: is_on,
        ..BlockConfig::default()
    };
    let transformer = Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP);
    let x = Tensor::randn([batch, 256, width], F32);
    let weights = vs.trainable_variables();
    measure(&weights.iter().collect::<Vec<_>>(), || {
        transformer.forward(x.shallow_clone(), &AttentionMask::none()).square().mean(Kind::Float).backward();
    })
}

/// The seconds of each run of `step`, and the bytes that it takes above `inputs` and their gradients.
fn measure(inputs: &[&Tensor], step: impl Fn()) -> (Vec<f64>, f64) {
    let before = peak_memory().unwrap();
    let seconds = (0..ITERATIONS).map(|_| {
        let started = Instant::now();
        step();
        let seconds = started.elapsed().as_secs_f64();
        inputs.iter().for_each(|input| mm_sys::clear_gradient(&mut input.shallow_clone()));
        seconds
    });
    let seconds = seconds.collect();
    let gradients: usize = inputs.iter().map(|input| input.numel() * size_of::<f32>()).sum();
    (seconds, (peak_memory().unwrap() - before) as f64 - gradients as f64)
}

/// Random unit rows `[batch, width]`, made in the memory that they take.
fn unit_rows(batch: i64, width: i64) -> Tensor {
    let mut x = Tensor::randn([batch, width], F32);
    x /= x.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
    x.set_requires_grad(true)
}
