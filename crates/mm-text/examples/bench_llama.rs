//! The seconds of one-token steps of a decoder of SmolLM2-135M's sizes with random weights, in each
//! precision, beside the bandwidth of memory measured in the same run. Prints one line of JSON a precision:
//! the median step, the bytes of weights and of keys and values that a step reads, and their share of the
//! bandwidth.
//!
//! `bench_llama [STEPS] [PROMPT_TOKENS]`

use mm_core::Precision;
use mm_text::decoder::{Decoder, Llama, LlamaConfig, TextDecoder};
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |index: usize, default: i64| arguments.get(index).map_or(Ok(default), |given| given.parse());
    let (steps, prompt) = (argument(0, 48)?, argument(1, 80)?);
    let config = LlamaConfig {
        vocab_size: 49_152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: Some(3),
        max_position_embeddings: 8192,
        rope_theta: 100_000.0,
        tie_word_embeddings: true,
        ..LlamaConfig::default()
    };
    let bandwidth = bandwidth();
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let vs = VarStore::new(Device::Cpu);
        let mut decoder = Llama::new(&(vs.root() / "model"), &(vs.root() / "lm_head"), &config)?;
        let bytes = bytes_of_weights(&vs, precision);
        drop(vs);
        decoder.pack(precision);
        let step = mm_sys::inference_mode(|| median_step(&decoder, steps, prompt));
        let keys = config.num_hidden_layers * 2 * config.kv_heads() * config.head_width();
        let size = if precision == Precision::Bf16 { 2 } else { 4 };
        let bytes = bytes + (keys * size * (prompt + steps / 2)) as f64;
        let line = serde_json::json!({
            "precision": precision,
            "step_ms": step * 1e3,
            "tokens_per_second": 1.0 / step,
            "read_mb": bytes / 1e6,
            "gb_per_second": bytes / step / 1e9,
            "bandwidth_gb_per_second": bandwidth / 1e9,
            "share_of_bandwidth": bytes / step / bandwidth,
        });
        println!("{line}");
    }
    Ok(())
}

/// The seconds of a step, the median of `steps` after a prompt.
fn median_step(decoder: &Llama, steps: i64, prompt: i64) -> f64 {
    let mut cache = decoder.new_cache(prompt + steps, None);
    let tokens: Vec<u32> = (0..prompt as u32).collect();
    let _ = decoder.start(&[&tokens], &mut cache);
    let token = Tensor::from_slice(&[7i64]).unsqueeze(0);
    let step = |_| {
        let started = Instant::now();
        let _ = decoder.step(&token, &mut cache);
        started.elapsed().as_secs_f64()
    };
    let mut seconds: Vec<f64> = (0..steps).map(step).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// The bytes of weights that a step reads: of the embeddings as the output layer, which stays in f32 in int8.
fn bytes_of_weights(vs: &VarStore, precision: Precision) -> f64 {
    let size = |name: &str| match precision {
        Precision::F32 => 4.0,
        Precision::Bf16 => 2.0,
        Precision::Int8 if name.contains("embed_tokens") => 4.0,
        Precision::Int8 => 1.0,
    };
    vs.variables().iter().map(|(name, variable)| variable.numel() as f64 * size(name)).sum()
}

/// The bytes a second that all threads together read of memory beyond the caches, by a sum.
fn bandwidth() -> f64 {
    let x = Tensor::ones([1 << 27], (Kind::Float, Device::Cpu)); // 512 MB
    let read = |_| {
        let started = Instant::now();
        let _ = x.sum(Kind::Float);
        (x.numel() * size_of::<f32>()) as f64 / started.elapsed().as_secs_f64()
    };
    (0..5).map(read).fold(0.0, f64::max)
}
