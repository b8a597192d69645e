//! Greedy search and beams, token for token, alone and in batches of prompts of any lengths.

use crate::{FOLDERS, golden, json, load};
use mm_core::hf::overlay;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use serde::Deserialize;
use serde_json::Value;
use std::ops::ControlFlow;

/// `generation.json`.
#[derive(Deserialize)]
struct Golden {
    eos_token_id: u32,
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

fn assert_equals(found: &[Hypothesis], expected: &[Output], eos: u32, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let is_close = |found: f32, expected: f32| (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.ids, "{name}");
        assert_eq!(found.finished, expected.ids.last() == Some(&eos), "{name}");
        if let Some(score) = expected.score {
            assert!(is_close(found.score, score), "{name}: {} {score}", found.score);
        }
        for (&found, &expected) in found.log_probs.iter().zip(expected.log_probs.iter().flatten()) {
            assert!(is_close(found, expected), "{name}: {found} {expected}");
        }
    }
}

#[test]
fn text_models_generate_as_transformers_whatever_else_is_in_the_batch() {
    for folder in FOLDERS {
        let (_vs, model) = load(folder);
        let golden: Golden = json(&golden(folder).join("generation.json"));
        assert_eq!(model.end, [golden.eos_token_id]);
        for run in &golden.runs {
            let config: GenerationConfig = overlay(&GenerationConfig::default(), &run.settings).unwrap();
            for batch in [&[0][..], &[1], &[2], &[3], &[0, 1, 2, 3], &[3, 0], &[2, 1, 3]] {
                let prompt = |&item: &usize| Prompt { tokens: run.prompts[item].clone(), seed: item as u64 };
                let prompts: Vec<Prompt> = batch.iter().map(prompt).collect();
                let found = model.generate(&prompts, &config).unwrap();
                for (found, &item) in found.iter().zip(batch) {
                    let name = format!("{folder}: {}, item {item} of {batch:?}", run.settings);
                    assert_equals(found, &run.outputs[item], golden.eos_token_id, &name);
                }
            }
        }
    }
}

#[test]
fn a_stream_is_the_text_and_draws_by_the_seed_of_its_prompt() {
    let (_vs, model) = load("llama");
    let greedy = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
    let sampling = GenerationConfig { do_sample: true, temperature: 1.5, ..greedy.clone() };
    let prompts = [("a picture of", 1), ("there is", 2), ("a picture of", 3)];
    let prompts = prompts.map(|(text, seed)| model.prompt(text, seed).unwrap());
    for config in [&greedy, &sampling] {
        let texts = model.generate(&prompts, config).unwrap();
        for (prompt, texts) in prompts.iter().zip(&texts) {
            let mut tokens = Vec::new();
            let mut on_token = |token| {
                tokens.push(token);
                ControlFlow::Continue(())
            };
            let found = model.generate_stream(prompt, config, &mut on_token).unwrap();
            assert_eq!((&found.tokens, &found.tokens), (&texts[0].tokens, &tokens));
        }
    }
    let texts = model.generate(&prompts, &sampling).unwrap();
    assert_ne!(texts[0][0].tokens, texts[2][0].tokens, "seeds 1 and 3 draw other texts");
}
