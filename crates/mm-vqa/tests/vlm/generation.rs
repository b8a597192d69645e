//! Greedy search and beams, token for token, alone and in batches of any order.

use crate::{FOLDERS, golden, images, json, open, tensors};
use mm_core::hf::overlay;
use mm_core::{OpenOptions, Precision};
use mm_text::generate::GenerationConfig;
use mm_vqa::vlm::{VlmAnswer, VlmInputs, VlmPipeline};
use serde::Deserialize;
use serde_json::Value;
use std::ops::ControlFlow;

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

/// The four items of a folder, whose tiles are the peer's: one, two, one and none.
fn items(pipeline: &VlmPipeline, folder: &str) -> Vec<VlmInputs> {
    let levels = tensors(&format!("{folder}/items.safetensors"));
    let golden: Golden = json(&golden(folder).join("generation.json"));
    let items: Vec<VlmInputs> = (0..golden.items)
        .map(|item| VlmInputs {
            input_ids: golden.runs[0].prompts[item].clone(),
            tiles: levels.get(&item.to_string()).map(images).unwrap_or_default(),
        })
        .collect();
    let tiles: Vec<usize> = items.iter().map(|item| item.tiles.len()).collect();
    assert_eq!(tiles, [1, 2, 1, 0]);
    assert_eq!(pipeline.eos, [golden.eos_token_id]);
    items
}

fn assert_equals(found: &[VlmAnswer], expected: &[Output], eos: u32, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let is_near = |found: f32, expected: f32| (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.ids, "{name}");
        assert_eq!(found.finished, expected.ids.last() == Some(&eos), "{name}");
        if let Some(score) = expected.score {
            assert!(is_near(found.score, score), "{name}: {} {score}", found.score);
        }
        for (&found, &expected) in found.log_probs.iter().zip(expected.log_probs.iter().flatten()) {
            assert!(is_near(found, expected), "{name}: {found} {expected}");
        }
    }
}

#[test]
fn texts_equal_transformers_alone_and_in_batches_of_other_images_and_lengths() {
    for folder in FOLDERS {
        let (pipeline, _vs) = open(&golden(folder));
        let items = items(&pipeline, folder);
        let golden: Golden = json(&golden(folder).join("generation.json"));
        assert!(golden.runs.len() >= 5);
        for run in &golden.runs {
            let config: GenerationConfig = overlay(&GenerationConfig::default(), &run.settings).unwrap();
            for batch in [vec![0], vec![1], vec![2], vec![3], vec![1, 0], vec![3, 1], vec![2, 3, 1, 0]] {
                let inputs: Vec<VlmInputs> = batch.iter().map(|&item| items[item].clone()).collect();
                let found = pipeline.generate(&inputs, &config).unwrap();
                for (found, &item) in found.iter().zip(&batch) {
                    let name = format!("{folder}: {}, item {item} of {batch:?}", run.settings);
                    assert_equals(found, &run.outputs[item], golden.eos_token_id, &name);
                }
            }
        }
    }
}

#[test]
fn a_stream_gives_the_pieces_of_the_same_text() {
    for folder in FOLDERS {
        let (pipeline, _vs) = open(&golden(folder));
        let config = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
        for inputs in items(&pipeline, folder) {
            let mut text = String::new();
            let found = pipeline
                .generate_stream(&inputs, &config, &mut |piece| {
                    text.push_str(piece);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let expected = pipeline.generate(&[inputs], &config).unwrap().remove(0).remove(0);
            assert_eq!((&found, text.as_str()), (&expected, expected.text.as_str()));
        }
    }
}

#[test]
fn drawn_texts_depend_on_their_place_and_seed_alone() {
    let (pipeline, _vs) = open(&golden("smolvlm"));
    let items = items(&pipeline, "smolvlm");
    let config =
        GenerationConfig { do_sample: true, max_new_tokens: 8, seed: 5, ..GenerationConfig::default() };
    let alone = pipeline.generate(&items[..1], &config).unwrap();
    let batch = pipeline.generate(&items, &config).unwrap();
    assert_eq!(alone[0][0].tokens, batch[0][0].tokens);
    let other = GenerationConfig { seed: 6, ..config };
    assert_ne!(pipeline.generate(&items, &other).unwrap(), batch);
}

#[test]
fn packed_models_generate_in_every_precision() {
    for folder in FOLDERS {
        let (plain, _vs) = open(&golden(folder));
        let items = items(&plain, folder);
        let config = GenerationConfig { max_new_tokens: 4, ..GenerationConfig::default() };
        let expected = plain.generate(&items, &config).unwrap();
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let options = OpenOptions { precision, ..OpenOptions::default() };
            let packed = VlmPipeline::open(golden(folder).to_str().unwrap(), &options).unwrap();
            let found = packed.generate(&items, &config).unwrap();
            if precision == Precision::F32 {
                let tokens = |answers: &[Vec<VlmAnswer>]| -> Vec<Vec<u32>> {
                    answers.iter().map(|texts| texts[0].tokens.clone()).collect()
                };
                assert_eq!(tokens(&found), tokens(&expected), "{folder}");
            }
            // Rounding may change a token of so small a model; the first is as probable.
            for (found, expected) in found.iter().zip(&expected) {
                let (found, expected) = (found[0].log_probs[0].exp(), expected[0].log_probs[0].exp());
                assert!((found - expected).abs() < 0.1, "{folder} {precision:?}: {found} {expected}");
            }
        }
    }
}
