//! T5's encoder equals transformers' (`data/goldens/diffusion-sd3`, written by
//! `xtask/goldens/diffusion-sd3.py`).

use mm_core::Precision;
use mm_core::checkpoint::{Weights, stored};
use mm_text::{T5Config, T5Encoder};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion-sd3").join(name)
}

fn open(name: &str) -> (VarStore, T5Encoder, HashMap<String, Tensor>) {
    let config: Value = mm_core::read_json(&golden(name).join("config.json")).unwrap();
    let config = T5Config::from_hf(&config).unwrap();
    let vs = VarStore::new(Device::Cpu);
    let weights = Weights::open_folder(&golden(name), "model").unwrap();
    let encoder = T5Encoder::from_weights(&vs, &config, weights).unwrap();
    let expected = Tensor::read_safetensors(golden(name).join("expected.safetensors")).unwrap();
    (vs, encoder, expected.into_iter().collect())
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn states_equal_transformers_with_and_without_a_mask() {
    for name in ["t5-gated", "t5-relu"] {
        let (_vs, mut encoder, expected) = open(name);
        let (ids, mask) = (&expected["input_ids"], &expected["attention_mask"]);
        for precision in [None, Some(Precision::F32)] {
            precision.into_iter().for_each(|precision| encoder.pack(precision));
            let found = tch::no_grad(|| [encoder.forward(ids, None), encoder.forward(ids, Some(mask))]);
            for (found, expected) in found.iter().zip([&expected["output"], &expected["masked"]]) {
                let difference = largest_difference(found, expected);
                assert!(difference <= 1e-4, "{name}, packed {precision:?}: differs by {difference}");
            }
        }
    }
}

#[test]
fn a_masked_batch_equals_its_single_texts() {
    let (_vs, encoder, expected) = open("t5-gated");
    let (ids, mask) = (&expected["input_ids"], &expected["attention_mask"]);
    let batch = encoder.forward(ids, Some(mask));
    let ends = mask.size()[1];
    for (row, (start, end)) in [(0, (0, ends)), (1, (0, 7)), (2, (4, ends))] {
        let cut = |x: &Tensor| x.narrow(0, row, 1).narrow(1, start, end - start);
        let alone = encoder.forward(&cut(ids), None);
        let difference = largest_difference(&alone, &cut(&batch));
        assert!(difference <= 1e-5, "text {row} differs by {difference}");
    }
    let nothing = encoder.forward(ids, Some(&mask.zeros_like()));
    assert!(nothing.isfinite().all().int64_value(&[]) == 1, "a text without tokens is no number");
}

#[test]
fn bf16_is_near_and_the_weights_are_trained_through_the_bias_of_distances() {
    let (vs, mut encoder, expected) = open("t5-gated");
    let ids = &expected["input_ids"];
    encoder.forward(ids, None).square().sum(Kind::Float).backward();
    for (name, variable) in vs.variables() {
        assert!(variable.grad().defined(), "{name} has no gradient");
        assert!(variable.grad().abs().max().double_value(&[]) > 0.0, "{name} has a gradient of zero");
    }
    encoder.pack(Precision::Bf16);
    let found = tch::no_grad(|| encoder.forward(ids, None));
    assert_eq!(found.kind(), Kind::BFloat16);
    let output = &expected["output"];
    let error = (found.to_kind(Kind::Float) - output).norm() / output.norm();
    assert!(error.double_value(&[]) < 0.05, "bf16 is off by {error}");
}

#[test]
fn weights_and_configs_are_written_as_they_were_read() {
    for name in ["t5-gated", "t5-relu"] {
        let (vs, _, _) = open(name);
        let file = Weights::open_folder(&golden(name), "model").unwrap();
        let written = stored(vs.variables(), &T5Encoder::LAYOUT);
        assert_eq!(written.len(), file.list().len());
        for (name, tensor) in &written {
            assert_eq!(*tensor, file.tensor(name).unwrap(), "{name}");
        }
        let config: Value = mm_core::read_json(&golden(name).join("config.json")).unwrap();
        let read = T5Config::from_hf(&config).unwrap();
        assert_eq!(T5Config::from_hf(&read.to_hf()).unwrap(), read);
        for (field, value) in read.to_hf().as_object().unwrap() {
            assert_eq!(*value, config[field.as_str()], "{field}");
        }
    }
}

#[test]
fn the_encoder_of_a_whole_t5_is_read_under_either_name_of_its_words() {
    let (vs, _, _) = open("t5-relu");
    let dir = tempfile::tempdir().unwrap();
    let config: Value = mm_core::read_json(&golden("t5-relu").join("config.json")).unwrap();
    let config = T5Config::from_hf(&config).unwrap();
    let layers = stored(vs.variables(), &T5Encoder::LAYOUT);
    let words = layers.iter().find(|(name, _)| name == "shared.weight").unwrap().1.shallow_clone();
    for names in [&["shared.weight", "encoder.embed_tokens.weight"][..], &["encoder.embed_tokens.weight"]] {
        let layers = layers.iter().filter(|(name, _)| name != "shared.weight");
        let mut tensors: Vec<(String, Tensor)> =
            layers.map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        tensors.extend(names.iter().map(|name| (name.to_string(), words.copy())));
        tensors.extend(["decoder.final_layer_norm.weight", "lm_head.weight"].map(|name| {
            (name.to_owned(), Tensor::ones([3], (Kind::Float, Device::Cpu))) // of any shape
        }));
        let file = dir.path().join("model.safetensors");
        mm_core::checkpoint::write(&file, &tensors).unwrap();
        let vs = VarStore::new(Device::Cpu);
        T5Encoder::from_weights(&vs, &config, Weights::open(&file).unwrap()).unwrap();
        assert_eq!(vs.variables()["shared.weight"], words);
    }
}

#[test]
fn configs_that_are_not_offered_are_named() {
    for (config, problem) in [
        (json!({"d_kv": 0}), "d_kv is 0: it must be from 1"),
        (json!({"num_heads": 6}), "d_model is 512: only num_heads 6 times d_kv 64 is offered"),
        (json!({"num_layers": 2000}), "num_layers is 2000"),
        (json!({"layer_norm_epsilon": 0.0}), "is 0: it must lie between 0 and 1"),
        (json!({"relative_attention_num_buckets": 6}), "relative_attention_num_buckets is 6"),
        (json!({"relative_attention_max_distance": 8}), "relative_attention_max_distance 8"),
        (json!({"feed_forward_proj": "gated-silu"}), "feed_forward_proj is \"gated-silu\""),
        (json!({"feed_forward_proj": 1}), "invalid type"),
        (json!({"is_decoder": true}), "is_decoder is true"),
        (json!({"model_type": "umt5"}), "model_type is \"umt5\""),
    ] {
        let error = T5Config::from_hf(&config).unwrap_err().to_string();
        assert!(error.contains(problem), "{config}: {error}");
    }
}
