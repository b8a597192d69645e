//! Rotary positions, logits, losses, gradients and files.

use crate::{FOLDERS, golden, json, largest_difference, load, tensors};
use mm_core::Precision;
use mm_core::checkpoint::{TensorLayout, Weights, stored};
use mm_core::loss::token_cross_entropy;
use mm_core::nn::{Rotary, TowerSpec};
use mm_text::decoder::{CaptionTokens, LlamaConfig, NextTokens, TextDecoder, TextDecoderSpec};
use serde_json::{Value, json};
use std::collections::HashMap;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The rows of a batch of transformers': tokens without padding, and where their labels begin.
fn rows(batch: &HashMap<String, Tensor>) -> Vec<CaptionTokens> {
    let row = |index: i64| {
        let length = batch["attention_mask"].get(index).sum(Kind::Int64).int64_value(&[]);
        let ids: Vec<i64> = Vec::try_from(batch["input_ids"].get(index).narrow(0, 0, length)).unwrap();
        let labels: Vec<i64> = Vec::try_from(batch["labels"].get(index)).unwrap();
        let prompt_length = labels.iter().take_while(|&&label| label == -100).count();
        CaptionTokens { token_ids: ids.into_iter().map(|id| id as u32).collect(), prompt_length }
    };
    (0..batch["input_ids"].size()[0]).map(row).collect()
}

#[test]
fn rotations_equal_transformers_at_near_and_far_positions() {
    let ropes: Value = json(&golden("rotary.json"));
    let expected = tensors(&golden("rotary.safetensors"));
    let head = ropes["head_dim"].as_i64().unwrap();
    let ropes = ropes["rope_parameters"].as_array().unwrap();
    assert_eq!(ropes.len(), 3);
    for (index, rope) in ropes.iter().enumerate() {
        let sizes = json!({"hidden_size": head, "num_attention_heads": 1, "rope_parameters": rope});
        let rope = LlamaConfig::from_hf(&sizes).unwrap().rope();
        let (cos, sin) = Rotary::new(&rope, head, Device::Cpu).table(&expected["positions"]).cos_sin();
        for (name, found) in [("cos", cos), ("sin", sin)] {
            let difference = largest_difference(&found.get(0), &expected[&format!("{name}.{index}")]);
            // An angle of 32,767 has a rounding of 0.002 in f32: the peer's are the same.
            assert!(difference <= 1e-4, "{rope:?}: {name} differs by {difference}");
        }
    }
}

#[test]
fn logits_losses_and_gradients_equal_transformers() {
    for folder in FOLDERS {
        let expected = tensors(&golden(folder).join("expected.safetensors"));
        for gradient_checkpointing in [false, true] {
            let (vs, mut model) = load(folder);
            if gradient_checkpointing {
                model.config.set_gradient_checkpointing(true);
                let fresh = VarStore::new(Device::Cpu);
                let mut weights = Weights::open_folder(&golden(folder), "model").unwrap();
                model
                    .config
                    .drop_copies(&mut weights, "model.embed_tokens.weight", "lm_head.weight")
                    .unwrap();
                let decoder = weights.build(&fresh, &TensorLayout::HF, |path| model.config.build(path, None));
                assert_equals_transformers(folder, &fresh, decoder.unwrap().as_ref(), &expected);
            } else {
                assert_equals_transformers(folder, &vs, &model.decoder, &expected);
            }
        }
    }
}

/// Compares logits, loss and gradients of the decoder on `vs`.
fn assert_equals_transformers(
    folder: &str,
    vs: &VarStore,
    decoder: &dyn TextDecoder,
    expected: &HashMap<String, Tensor>,
) {
    let logits = decoder.logits(&decoder.forward(&expected["input_ids"], None));
    let real = expected["attention_mask"].unsqueeze(-1).to_kind(Kind::Float);
    let difference = largest_difference(&(&logits * &real), &(&expected["logits"] * &real));
    assert!(difference <= 1e-4, "{folder}: logits {difference}");

    let next = NextTokens::new(&rows(expected), 0);
    let hidden = decoder.forward(&next.input_ids, None);
    let loss = token_cross_entropy(&decoder.logits(&next.select(&hidden)), &next.labels, 0.0);
    let loss = loss / next.count() as f64;
    let relative = (&loss / &expected["loss"]).double_value(&[]) - 1.0;
    assert!(relative.abs() <= 1e-4, "{folder}: loss {relative}");
    loss.backward();
    let gradients = vs.variables().into_iter().map(|(name, variable)| (name, variable.grad()));
    let gradients: HashMap<String, Tensor> = stored(gradients, &TensorLayout::HF).into_iter().collect();
    let names = expected.keys().filter(|name| name.starts_with("grad.")).count();
    assert_eq!(names, gradients.len(), "{folder}");
    for (name, gradient) in gradients {
        let expected = &expected[&format!("grad.{name}")];
        let scale = expected.abs().max().double_value(&[]);
        let difference = largest_difference(&gradient, expected);
        assert!(difference <= 1e-3 * scale + 1e-6, "{folder}: {name}: {difference} of {scale}");
    }
}

#[test]
fn packed_decoders_differ_by_the_rounding_of_their_precision() {
    for folder in FOLDERS {
        let expected = tensors(&golden(folder).join("expected.safetensors"));
        let real = expected["attention_mask"].unsqueeze(-1).to_kind(Kind::Float);
        for (precision, bound) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.05), (Precision::Int8, 0.1)] {
            let (_vs, mut model) = load(folder);
            model.decoder.pack(precision);
            let ids = &expected["input_ids"];
            let logits = tch::no_grad(|| model.decoder.logits(&model.decoder.forward(ids, None)));
            let difference = (logits.to_kind(Kind::Float) - &expected["logits"]) * &real;
            let error = (difference.norm() / (&expected["logits"] * &real).norm()).double_value(&[]);
            assert!(error < bound, "{folder}, {precision:?}: off by {error}");
        }
    }
}

#[test]
fn weights_and_configs_are_written_as_they_were_read() {
    for folder in FOLDERS {
        let (vs, model) = load(folder);
        let file = Weights::open_folder(&golden(folder), "model").unwrap();
        let written = stored(vs.variables(), &TensorLayout::HF);
        assert_eq!(written.len(), file.list().len(), "{folder}");
        for (name, tensor) in &written {
            assert_eq!(*tensor, file.tensor(name).unwrap(), "{folder}: {name}");
        }
        let config: Value = json(&golden(folder).join("config.json"));
        let written = model.config.to_hf();
        for (field, value) in written.as_object().unwrap() {
            // These two are for transformers before version 5.
            if !["rope_theta", "rope_scaling"].contains(&field.as_str()) {
                assert_eq!(*value, config[field.as_str()], "{folder}: {field}");
            }
        }
    }
}

#[test]
fn every_parameter_has_a_depth_and_decays() {
    let (vs, model) = load("llama-linear");
    let names: Vec<String> = vs.variables().into_keys().collect();
    for depth in 0..=2 {
        assert!(names.iter().any(|name| model.config.depth(name) == depth), "none at {depth}");
    }
    assert_eq!(model.config.depth("model.layers.1.self_attn.kv_proj.weight"), 2);
    assert_eq!(model.config.depth("layers.0.mlp.up_proj.weight"), 1);
    assert_eq!((model.config.depth("embed_tokens.weight"), model.config.depth("lm_head.weight")), (0, 2));
    assert!(names.iter().all(|name| model.config.has_weight_decay(name)));
    let described = model.config.describe();
    assert!(described.starts_with("Llama: 2 blocks, width 24, 3 heads over 1 of keys"), "{described}");
    let refused = model.config.build(&VarStore::new(Device::Cpu).root(), Some(8)).unwrap_err().to_string();
    assert!(refused.contains("no cross-attention over states of width 8"), "{refused}");
}
