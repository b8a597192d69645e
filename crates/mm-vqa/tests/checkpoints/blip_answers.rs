//! BLIP's generated and ranked answers.

use crate::blip::Golden;
use crate::json;
use mm_core::hf::overlay;
use mm_core::nn::Context;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_text::rank::AnswerList;
use mm_vqa::VqaConfig;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
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
}

/// `rank.json`.
#[derive(Deserialize)]
struct Ranks {
    answers: Vec<String>,
    ids: Vec<Vec<u32>>,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    log_likelihoods: Vec<f64>,
    candidates: BTreeMap<usize, Vec<usize>>,
}

fn select(contexts: &Context, rows: &[i64]) -> Context {
    contexts.index_select(&Tensor::from_slice(rows))
}

fn assert_equals(found: &[Hypothesis], expected: &[Output], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.ids, "{name}");
        if let Some(score) = expected.score {
            assert!((found.score - score).abs() <= 1e-4 * score.abs().max(1.0), "{name}: {score}");
        }
    }
}

#[test]
fn generated_answers_are_transformers_alone_and_in_any_batch() {
    let golden = Golden::open();
    let contexts = tch::no_grad(|| golden.contexts());
    let generation: Generation = json("blip/generation.json");
    let batches: [&[i64]; 7] = [&[0], &[1], &[2], &[3], &[0, 1, 2, 3], &[2, 0], &[3, 1, 2]];
    assert!(generation.runs.len() >= 5);
    for run in &generation.runs {
        let config: GenerationConfig = overlay(&GenerationConfig::default(), &run.settings).unwrap();
        for batch in batches {
            let prompt = |&row: &i64| Prompt { tokens: run.prompts[row as usize].clone(), seed: row as u64 };
            let prompts: Vec<Prompt> = batch.iter().map(prompt).collect();
            let contexts = select(&contexts, batch);
            let found =
                golden.model.generate(&contexts, &prompts, &config, &[generation.eos_token_id]).unwrap();
            for (found, &row) in found.iter().zip(batch) {
                let name = format!("{}: question {row} of {batch:?}", run.settings);
                assert_equals(found, &run.outputs[row as usize], &name);
            }
        }
    }
}

#[test]
fn ranked_answers_are_those_of_a_loop_over_the_candidates() {
    let golden = Golden::open();
    let VqaConfig::Blip(config) = &golden.folder.config else { panic!("not a BLIP") };
    let ranks: Ranks = json("blip/rank.json");
    let parts = golden.folder.parts().unwrap();
    let list =
        AnswerList::new(&parts.tokenizer, &ranks.answers, &[config.start()], config.tokens.end).unwrap();
    for (answer, ids) in ranks.answers.iter().zip(&ranks.ids) {
        assert_eq!(parts.tokenizer.encode_words(answer).unwrap(), *ids);
    }
    let contexts = tch::no_grad(|| golden.contexts());
    for (row, item) in (0..).zip(&ranks.items) {
        for (&count, expected) in &item.candidates {
            let in_batch = &golden.model.rank(&contexts, &list, count).unwrap()[row as usize];
            let alone = &golden.model.rank(&select(&contexts, &[row]), &list, count).unwrap()[0];
            for ranking in [in_batch, alone] {
                let found: Vec<usize> = ranking.answers.iter().map(|answer| answer.answer).collect();
                assert_eq!(found, *expected, "question {row}, {count} candidates");
                for answer in &ranking.answers {
                    let difference = answer.log_likelihood - item.log_likelihoods[answer.answer];
                    assert!(difference.abs() <= 1e-4, "question {row}: {answer:?} is off by {difference}");
                }
                let sum: f64 = ranking.answers.iter().map(|answer| answer.probability).sum();
                assert!((sum - 1.0).abs() < 1e-9);
            }
        }
    }
}
