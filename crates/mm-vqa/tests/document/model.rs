//! States, logits, losses, gradients and attention weights.

use crate::{MODELS, build, expected, largest_difference, pipeline};
use mm_core::Precision;
use mm_core::checkpoint::{TensorLayout, stored};
use mm_core::loss::token_cross_entropy;
use mm_text::decoder::{CaptionTokens, NextTokens};
use std::collections::HashMap;
use tch::Tensor;

#[test]
fn states_and_logits_equal_transformers() {
    for name in MODELS {
        let (expected, (_vs, model)) = (expected(name), build(name));
        let states = model.encode(&expected["pixel_values"]);
        let (rows, columns) = model.encoder.grid();
        assert_eq!(states.size()[1], rows * columns);
        let difference = largest_difference(&states, &expected["states"]);
        assert!(difference <= 1e-4, "{name}, states: {difference}");
        let logits = model.logits(&model.forward(&states, &expected["input_ids"]));
        let difference = largest_difference(&logits, &expected["logits"]);
        assert!(difference <= 1e-4, "{name}, logits: {difference}");
        let alone = tch::no_grad(|| model.encode(&expected["pixel_values"].narrow(0, 2, 1)));
        let difference = largest_difference(&alone, &expected["states"].narrow(0, 2, 1));
        assert!(difference <= 1e-4, "{name}, states of one page without gradients: {difference}");
    }
}

#[test]
fn loss_and_gradients_equal_transformers() {
    for name in MODELS {
        let (expected, (vs, model)) = (expected(name), build(name));
        let row = |row: i64| {
            let ids: Vec<i64> = Vec::try_from(expected["input_ids"].get(row)).unwrap();
            CaptionTokens { token_ids: ids.into_iter().map(|id| id as u32).collect(), prompt_length: 1 }
        };
        let next = NextTokens::new(&(0..4).map(row).collect::<Vec<_>>(), 0);
        let hidden = model.forward(&model.encode(&expected["pixel_values"]), &next.input_ids);
        let logits = model.logits(&next.select(&hidden));
        let loss = token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64;
        let relative = (&loss / &expected["loss"]).double_value(&[]) - 1.0;
        assert!(relative.abs() <= 1e-4, "{name}: {relative}");
        loss.backward();
        let gradients = vs.variables().into_iter().map(|(name, variable)| (name, variable.grad()));
        let gradients: HashMap<String, Tensor> = stored(gradients, &TensorLayout::HF).into_iter().collect();
        let mut compared = 0;
        for (tensor, expected) in &expected {
            let Some(tensor) = tensor.strip_prefix("grad.") else { continue };
            let scale = expected.abs().max().double_value(&[]);
            // Of the keys' biases it is rounding alone: the softmax does not see them.
            let difference = largest_difference(&gradients[tensor], expected);
            assert!(difference <= 1e-3 * scale + 1e-6, "{name}, {tensor}: {difference} of {scale}");
            compared += 1;
        }
        assert_eq!(compared, gradients.len());
    }
}

#[test]
fn attention_weights_equal_transformers() {
    for name in MODELS {
        let (expected, (_vs, model)) = (expected(name), build(name));
        let row = |name: &str| expected[name].narrow(0, 1, 1);
        let (_, weights) = model.forward_with_context_weights(&row("states"), &row("input_ids"));
        for (layer, weights) in weights.iter().enumerate() {
            let difference = largest_difference(weights, &expected[&format!("context_weights.{layer}")]);
            assert!(difference <= 1e-5, "{name}, layer {layer}: {difference}");
        }
    }
}

#[test]
fn a_packed_model_gives_the_same_within_its_precision() {
    for name in MODELS {
        let expected = expected(name);
        for (precision, most) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.1), (Precision::Int8, 0.3)] {
            let (vs, mut model) = build(name);
            model.pack(precision);
            drop(vs);
            let logits = mm_sys::inference_mode(|| {
                let states = model.encode(&expected["pixel_values"]);
                model.logits(&model.forward(&states, &expected["input_ids"])).to_kind(tch::Kind::Float)
            });
            // Relative to the spread of the logits.
            let spread = expected["logits"].std(true).double_value(&[]);
            let error = (logits - &expected["logits"]).std(true).double_value(&[]) / spread;
            assert!(error <= most, "{name} in {precision:?}: {error}");
        }
        let opened = pipeline(name);
        let states = mm_sys::inference_mode(|| opened.model.encode(&expected["pixel_values"]));
        assert!(largest_difference(&states, &expected["states"]) <= 1e-4);
    }
}
