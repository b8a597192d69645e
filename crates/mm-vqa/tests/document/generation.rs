//! Generated tokens.

use crate::{MODELS, build, expected, json};
use mm_core::hf::overlay;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use serde::Deserialize;
use serde_json::Value;
use std::ops::ControlFlow;
use tch::Tensor;

/// `generation.json`.
#[derive(Deserialize)]
struct Generation {
    eos_token_id: u32,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    settings: Value,
    prompts: Vec<Vec<u32>>,
    outputs: Vec<Vec<Output>>,
}

#[derive(Deserialize)]
struct Output {
    ids: Vec<u32>,
    score: Option<f32>,
    log_probs: Option<Vec<f32>>,
}

fn assert_equals(found: &[Hypothesis], expected: &[Output], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.ids, "{name}");
        if let Some(score) = expected.score {
            assert!((found.score - score).abs() <= 1e-4 * score.abs().max(1.0), "{name}: {score}");
        }
        for (found, expected) in found.log_probs.iter().zip(expected.log_probs.iter().flatten()) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{name}: {expected}");
        }
    }
}

#[test]
fn generated_tokens_are_transformers_alone_and_in_any_batch() {
    for name in MODELS {
        let (expected, (_vs, model)) = (expected(name), build(name));
        let states = tch::no_grad(|| model.encode(&expected["pixel_values"]));
        let generation: Generation = json(&format!("{name}/generation.json"));
        let eos = [generation.eos_token_id];
        let batches: [&[i64]; 7] = [&[0], &[1], &[2], &[3], &[0, 1, 2, 3], &[2, 0], &[3, 1, 2]];
        assert!(generation.runs.len() >= 5);
        for run in &generation.runs {
            let config: GenerationConfig = overlay(&GenerationConfig::default(), &run.settings).unwrap();
            let prompt = |row: i64| Prompt { tokens: run.prompts[row as usize].clone(), seed: row as u64 };
            for batch in batches {
                let prompts: Vec<Prompt> = batch.iter().map(|&row| prompt(row)).collect();
                let states = states.index_select(0, &Tensor::from_slice(batch));
                let found = model.generate(&states, &prompts, &config, &eos).unwrap();
                for (found, &row) in found.iter().zip(batch) {
                    let what = format!("{name}, {}: page {row} of {batch:?}", run.settings);
                    assert_equals(found, &run.outputs[row as usize], &what);
                }
            }
            if config.num_beams == 1 {
                let mut tokens = Vec::new();
                let mut on_token = |token| {
                    tokens.push(token);
                    ControlFlow::Continue(())
                };
                let one = states.narrow(0, 1, 1);
                let found = model.generate_stream(&one, &prompt(1), &config, &eos, &mut on_token).unwrap();
                assert_eq!(tokens, found.tokens);
                assert_equals(&[found], &run.outputs[1], name);
            }
        }
    }
}
