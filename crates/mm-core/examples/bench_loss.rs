//! What the contrastive losses take, whole and in tiles: seconds of each forward and backward pass, and the most memory above that of the
//! embeddings and their gradients. Prints one line of JSON; the peak is the process's, so a measurement is a process of its own.
//!
//! `bench_loss plain|tiled|plain-siglip|tiled-siglip B D [TILE]`

#[path = "../tests/common/memory.rs"]
mod memory;

use memory::peak_memory;
use mm_core::loss::{DEFAULT_TILE, info_nce, info_nce_tiled, siglip, siglip_tiled};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

const ITERATIONS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).map(|text| text.parse::<i64>()).transpose();
    let (Some(work), Some(batch), Some(width)) = (arguments.first(), number(1)?, number(2)?) else {
        return Err("usage: bench_loss plain|tiled|plain-siglip|tiled-siglip B D [TILE]".into());
    };
    let tile = number(3)?.unwrap_or(DEFAULT_TILE);
    tch::manual_seed(0);
    let [scale, bias] = [2.66f32, -10.0].map(|x| Tensor::from(x).set_requires_grad(true));
    let run = |batch: i64| -> Result<_, String> {
        let (images, texts) = (unit_rows(batch, width), unit_rows(batch, width));
        let (before, mut seconds) = (peak_memory(), Vec::new());
        for _ in 0..ITERATIONS {
            let started = Instant::now();
            let loss = match work.as_str() {
                "plain" => info_nce(&images, &texts, &scale),
                "tiled" => info_nce_tiled(&images, &texts, &scale, tile),
                "plain-siglip" => siglip(&images, &texts, &scale, &bias),
                "tiled-siglip" => siglip_tiled(&images, &texts, &scale, &bias, tile),
                other => return Err(format!("unknown work {other:?}")),
            };
            Tensor::run_backward(&[loss], &[&images, &texts, &scale], false, false);
            seconds.push(started.elapsed().as_secs_f64());
        }
        let gradients = 2 * images.numel() * size_of::<f32>();
        Ok((seconds, (peak_memory() - before) as f64 - gradients as f64))
    };
    run(tile.min(256))?; // libtorch's own code comes into memory with its first use
    let (seconds, bytes) = run(batch)?;
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_mb": bytes / 1e6 }));
    Ok(())
}

/// Random unit rows `[batch, width]`, made in the memory that they take.
fn unit_rows(batch: i64, width: i64) -> Tensor {
    let mut x = Tensor::randn([batch, width], (Kind::Float, Device::Cpu));
    x /= x.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
    x.set_requires_grad(true)
}
