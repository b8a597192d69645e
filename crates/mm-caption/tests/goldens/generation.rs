//! Greedy search and beams, token for token, alone and in batches of any order.

use crate::{expected, golden, json};
use mm_caption::CaptionerFolder;
use mm_core::hf::overlay;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use serde::Deserialize;
use serde_json::Value;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// `generation.json`.
#[derive(Deserialize)]
struct Golden {
    eos_token_id: u32,
    items: usize,
    runs: Vec<Run>,
}

/// The texts of all items under one set of settings.
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

/// Generates the texts of a batch: prompts, and the rows of the images.
type Generate<'a> = dyn Fn(&[i64], &[Prompt], &GenerationConfig) -> Vec<Vec<Hypothesis>> + 'a;

fn settings(run: &Run) -> GenerationConfig {
    overlay(&GenerationConfig::default(), &run.settings).unwrap()
}

fn assert_equals(found: &[Hypothesis], expected: &[Output], eos: u32, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.ids, "{name}");
        assert_eq!(found.finished, expected.ids.last() == Some(&eos), "{name}");
        if let Some(score) = expected.score {
            assert!(
                (found.score - score).abs() <= 1e-4 * score.abs().max(1.0),
                "{name}: {} {score}",
                found.score
            );
        }
        let log_probs = expected.log_probs.iter().flatten();
        for (found, expected) in found.log_probs.iter().zip(log_probs) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{name}: {found} {expected}");
        }
    }
}

/// Compares all runs of `folder`: each item alone, all in order, and batches of other orders and sizes.
fn assert_generates_as_transformers(folder: &str, generate: &Generate) {
    let golden: Golden = json(&golden(folder).join("generation.json"));
    let batches: Vec<Vec<usize>> = vec![
        vec![0],
        vec![1],
        vec![2],
        vec![3],
        vec![0, 1, 2, 3],
        vec![3, 0],
        vec![2, 1, 3],
        vec![1, 3, 0, 2],
    ];
    assert!(golden.runs.len() >= 3 && golden.items == 4);
    for run in &golden.runs {
        let config = settings(run);
        for batch in &batches {
            let rows: Vec<i64> = batch.iter().map(|&item| item as i64).collect();
            let prompts: Vec<Prompt> = batch
                .iter()
                .map(|&item| Prompt { tokens: run.prompts[item].clone(), seed: item as u64 })
                .collect();
            let found = generate(&rows, &prompts, &config);
            for (found, &item) in found.iter().zip(batch) {
                let name = format!("{folder}: {}, item {item} of {batch:?}", run.settings);
                assert_equals(found, &run.outputs[item], golden.eos_token_id, &name);
            }
        }
    }
}

fn assert_captioner_generates_as_transformers(folder: &str) {
    let vs = VarStore::new(Device::Cpu);
    let name = golden(folder);
    let opened = CaptionerFolder::open(name.to_str().unwrap()).unwrap();
    let captioner = opened.build(&vs).unwrap();
    let states = tch::no_grad(|| captioner.encode(&expected(folder)["pixel_values"], false));
    let eos = opened.description.tokens.end;
    assert_generates_as_transformers(folder, &|rows, prompts, config| {
        let states = states.index_select(0, &Tensor::from_slice(rows));
        captioner.generate(&states, prompts, config, &[eos]).unwrap()
    });
}

#[test]
fn blip_generates_as_transformers() {
    assert_captioner_generates_as_transformers("blip");
    assert_captioner_generates_as_transformers("blip-large");
}

#[test]
fn vit_gpt2_generates_as_transformers() {
    assert_captioner_generates_as_transformers("vit-gpt2");
    assert_captioner_generates_as_transformers("vit-gpt2-projected");
}
