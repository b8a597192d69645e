//! Generated texts do not depend on what else is in the batch, and rules give transformers' distributions.

use mm_core::nn::{AttentionMask, Context};
use mm_testing::{initialize, normal};
use mm_text::decoder::{BertDecoderConfig, Gpt2Config, TextDecoder, TextDecoderConfig};
use mm_text::generate::{
    EarlyStopping, GenerationConfig, History, Hypothesis, Prompt, Rules, generate, generate_stream,
    shape_distribution,
};
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const VOCAB: u32 = 40;
const EOS: u32 = 39;
const CONTEXT_WIDTH: i64 = 12;
const STATES: i64 = 5;

/// A decoder with weights that spread its logits.
fn decoder(config: &TextDecoderConfig, context_width: Option<i64>) -> (VarStore, Box<dyn TextDecoder>) {
    let vs = VarStore::new(Device::Cpu);
    let decoder = config.build(&vs.root(), context_width).unwrap();
    initialize(&vs, 3);
    (vs, decoder)
}

fn gpt2() -> TextDecoderConfig {
    let (vocab_size, n_positions, n_embd, n_layer, n_head) = (i64::from(VOCAB), 24, 16, 2, 2);
    TextDecoderConfig::Gpt2(Gpt2Config {
        vocab_size,
        n_positions,
        n_embd,
        n_layer,
        n_head,
        ..Default::default()
    })
}

fn bert() -> TextDecoderConfig {
    TextDecoderConfig::Bert(BertDecoderConfig {
        vocab_size: i64::from(VOCAB),
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: 24,
        ..Default::default()
    })
}

/// States of `images`, which differ.
fn context(images: &[u64]) -> Context {
    let states: Vec<Tensor> =
        images.iter().map(|&image| normal(image, &[STATES, CONTEXT_WIDTH]) * 3.0).collect();
    Context { states: Tensor::stack(&states, 0), mask: AttentionMask::none() }
}

/// One way to decode, of every kind.
fn ways() -> Vec<GenerationConfig> {
    let base = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
    let beams = GenerationConfig { num_beams: 3, num_return_sequences: 3, ..base.clone() };
    let sampling = GenerationConfig { do_sample: true, top_k: 12, temperature: 1.3, ..base.clone() };
    vec![
        base.clone(),
        GenerationConfig { repetition_penalty: 1.4, no_repeat_ngram_size: 2, min_new_tokens: 3, ..base },
        beams.clone(),
        GenerationConfig { early_stopping: EarlyStopping::Always, length_penalty: 0.0, ..beams.clone() },
        GenerationConfig { early_stopping: EarlyStopping::Never, length_penalty: 2.0, ..beams.clone() },
        GenerationConfig { num_return_sequences: 4, ..sampling.clone() },
        GenerationConfig { top_p: 0.7, ..sampling.clone() },
        GenerationConfig { num_beams: 3, num_return_sequences: 2, ..sampling },
    ]
}

fn assert_same(found: &[Hypothesis], expected: &[Hypothesis], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.tokens, found.finished), (&expected.tokens, expected.finished), "{name}");
        assert!((found.score - expected.score).abs() < 1e-3, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_text_does_not_depend_on_the_batch_its_order_or_its_padding(
        prompts in proptest::collection::vec(proptest::collection::vec(0..EOS, 1..7), 1..6),
        is_bert in any::<bool>(),
    ) {
        let config = if is_bert { bert() } else { gpt2() };
        let (_vs, decoder) = decoder(&config, Some(CONTEXT_WIDTH));
        let images: Vec<u64> = (10..10 + prompts.len() as u64).collect();
        let prompts: Vec<Prompt> = prompts
            .into_iter()
            .zip(&images)
            .map(|(tokens, &seed)| Prompt { tokens, seed })
            .collect();
        for (number, way) in ways().iter().enumerate() {
            let all = context(&images);
            let together = generate(decoder.as_ref(), Some(&all), &prompts, way, &[EOS]).unwrap();
            for (index, prompt) in prompts.iter().enumerate() {
                let alone = [prompt.clone()];
                let alone =
                    generate(decoder.as_ref(), Some(&context(&images[index..=index])), &alone, way, &[EOS]);
                assert_same(&together[index], &alone.unwrap()[0], &format!("way {number}, prompt {index}"));
            }
        }
    }
}

#[test]
fn texts_end_at_the_end_token_or_are_marked_as_cut() {
    let (_vs, decoder) = decoder(&gpt2(), Some(CONTEXT_WIDTH));
    let images: Vec<u64> = (0..40).collect();
    let prompts: Vec<Prompt> = images.iter().map(|&seed| Prompt { tokens: vec![1], seed }).collect();
    let sampling = GenerationConfig {
        do_sample: true,
        temperature: 3.0,
        top_k: 0,
        max_new_tokens: 12,
        ..GenerationConfig::default()
    };
    let texts = generate(decoder.as_ref(), Some(&context(&images)), &prompts, &sampling, &[EOS]).unwrap();
    let texts: Vec<&Hypothesis> = texts.iter().flatten().collect();
    let (finished, cut): (Vec<_>, Vec<_>) = texts.into_iter().partition(|text| text.finished);
    assert!(!finished.is_empty() && !cut.is_empty(), "{} of 40 end", finished.len());
    for text in finished {
        assert_eq!(text.tokens.iter().position(|&token| token == EOS), Some(text.tokens.len() - 1));
        assert_eq!(text.tokens.len(), text.log_probs.len());
    }
    assert!(cut.iter().all(|text| text.tokens.len() == 12 && !text.tokens.contains(&EOS)));
}

#[test]
fn a_stream_gives_the_tokens_of_the_text_and_ends_where_it_is_told_to() {
    for config in [gpt2(), bert()] {
        let (_vs, decoder) = decoder(&config, Some(CONTEXT_WIDTH));
        for (image, way) in (0..).zip(ways()) {
            let (context, prompt) = (context(&[image]), Prompt { tokens: vec![1, 5], seed: image });
            let prompts = std::slice::from_ref(&prompt);
            let stream = |on_token: &mut dyn FnMut(u32) -> ControlFlow<()>| {
                generate_stream(decoder.as_ref(), Some(&context), &prompt, &way, &[EOS], on_token)
            };
            let mut tokens = Vec::new();
            let found = stream(&mut |token| {
                tokens.push(token);
                ControlFlow::Continue(())
            });
            if way.num_beams > 1 || way.num_return_sequences > 1 {
                assert!(found.unwrap_err().to_string().contains("both must be 1"));
                continue;
            }
            let whole = generate(decoder.as_ref(), Some(&context), prompts, &way, &[EOS]).unwrap();
            let found = found.unwrap();
            assert_eq!(([found.clone()].as_slice(), tokens), (whole[0].as_slice(), found.tokens));
            let first = stream(&mut |_| ControlFlow::Break(())).unwrap();
            assert_eq!(first.tokens, whole[0][0].tokens[..1]);
        }
    }
}

#[test]
fn log_probabilities_are_those_of_one_call_over_all_positions() {
    let (_vs, decoder) = decoder(&gpt2(), None);
    let prompts = [Prompt { tokens: vec![3, 4, 5], seed: 0 }];
    let beams = GenerationConfig { num_beams: 4, max_new_tokens: 6, ..GenerationConfig::default() };
    let text = generate(decoder.as_ref(), None, &prompts, &beams, &[EOS]).unwrap().remove(0).remove(0);
    let ids: Vec<i64> = prompts[0].tokens.iter().chain(&text.tokens).map(|&id| i64::from(id)).collect();
    let logits = decoder.logits(&decoder.forward(&Tensor::from_slice(&ids).unsqueeze(0), None));
    let log_probs = logits.log_softmax(-1, Some(Kind::Float)).get(0);
    for (place, (&token, &found)) in text.tokens.iter().zip(&text.log_probs).enumerate() {
        let expected = log_probs.double_value(&[2 + place as i64, i64::from(token)]);
        assert!((f64::from(found) - expected).abs() < 1e-4, "{found} {expected}");
    }
    let sum: f32 = text.log_probs.iter().sum();
    assert!((text.score - sum / text.tokens.len() as f32).abs() < 1e-4);
}

#[test]
fn what_cannot_be_generated_is_refused_with_the_numbers() {
    let (_vs, decoder) = decoder(&gpt2(), Some(CONTEXT_WIDTH));
    let message = |tokens: Vec<u32>, images: &[u64], max_new_tokens: usize| {
        let config = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
        let prompts = [Prompt { tokens, seed: 0 }];
        generate(decoder.as_ref(), Some(&context(images)), &prompts, &config, &[EOS]).unwrap_err().to_string()
    };
    let long = message(vec![1; 20], &[0], 10);
    assert!(
        long.contains("20 tokens") && long.contains("24 positions") && long.contains("at most 5"),
        "{long}"
    );
    assert!(message(vec![], &[0], 5).contains("a prompt is empty"));
    assert!(message(vec![1], &[0, 1], 5).contains("1 prompts for 2 images"));
    assert!(message(vec![VOCAB], &[0], 5).contains("token 40, the decoder 40 embeddings"));
    assert!(message(vec![1], &[0], 0).contains("max_new_tokens is 0"));
    // The last token needs no position.
    let config = GenerationConfig { max_new_tokens: 5, ..GenerationConfig::default() };
    let prompts = [Prompt { tokens: vec![1; 20], seed: 0 }];
    assert!(generate(decoder.as_ref(), Some(&context(&[0])), &prompts, &config, &[EOS]).is_ok());
    assert!(generate(decoder.as_ref(), Some(&context(&[0])), &[], &config, &[EOS]).is_err());
    assert!(generate(decoder.as_ref(), None, &[], &config, &[EOS]).unwrap().is_empty());
}

#[test]
fn rules_and_distributions_equal_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption");
    let runs: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("sampling.json")).unwrap()).unwrap();
    let tensors: std::collections::HashMap<String, Tensor> =
        Tensor::read_safetensors(folder.join("sampling.safetensors")).unwrap().into_iter().collect();
    let rows = |tensor: &Tensor| -> Vec<Vec<f32>> {
        let rows = tensor.size()[0];
        (0..rows).map(|row| Vec::try_from(tensor.get(row)).unwrap()).collect()
    };
    let ids: Vec<Vec<i64>> = (0..tensors["input_ids"].size()[0])
        .map(|row| Vec::try_from(tensors["input_ids"].get(row)).unwrap())
        .collect();
    let mut compared = 0;
    for (number, run) in runs.as_array().unwrap().iter().enumerate() {
        let settings = run["settings"].as_object().unwrap();
        if settings.keys().any(|key| ["min_p", "min_length"].contains(&key.as_str())) {
            continue; // not offered
        }
        let all = GenerationConfig { do_sample: true, top_k: 50, ..GenerationConfig::default() };
        let mut config: GenerationConfig = mm_core::hf::overlay(&all, &run["settings"]).unwrap();
        let prompt_length = run["prompt_length"].as_u64().unwrap() as usize;
        if let Some(max_length) = run["settings"]["max_length"].as_u64() {
            config.max_new_tokens = max_length as usize - prompt_length; // transformers' counts the prompt
        }
        let eos = [run["eos_token_id"].as_u64().unwrap() as u32];
        let min_kept = if run["num_beams"] == 1 { 1 } else { 2 };
        let expected = rows(&tensors[&format!("scores.{number}")]);
        for ((logits, ids), expected) in rows(&tensors["logits"]).iter().zip(&ids).zip(&expected) {
            let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
            let (prompt, generated) = ids.split_at(prompt_length);
            let mut found = logits.clone();
            Rules::new(&config, &eos).apply(&mut found, History { prompt, generated });
            shape_distribution(&mut found, &config, min_kept);
            for (token, (found, expected)) in found.iter().zip(expected).enumerate() {
                let is_same = found == expected || (found - expected).abs() < 1e-4;
                assert!(is_same, "{settings:?}: token {token} is {found}, the peer's {expected}");
            }
        }
        compared += 1;
    }
    assert!(compared > 20, "{compared} settings");
}
