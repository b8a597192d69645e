//! Whole models against transformers: embeddings, logits, loss and gradients of what `xtask/goldens/clip.py` saved.

use mm_clip::{Clip, read_config};
use mm_core::Precision;
use mm_core::checkpoint::{self, hf_names};
use mm_text::TokenBatch;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/clip").join(name)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.view(-1) - b.view(-1)).abs().max().double_value(&[])
}

fn check(name: &str) {
    let folder = golden(name);
    let vs = VarStore::new(Device::Cpu);
    let model = Clip::new(&vs.root(), &read_config(&folder).unwrap()).unwrap();
    checkpoint::load(&vs, &folder.join("model.safetensors"), hf_names).unwrap();
    let expected: HashMap<String, Tensor> =
        Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap().into_iter().collect();

    let input_ids = expected["input_ids"].shallow_clone();
    let tokens = TokenBatch { attention_mask: input_ids.ones_like(), input_ids };
    let image_embeds = model.encode_image(&expected["pixel_values"], true);
    let text_embeds = model.encode_text(&tokens);
    let logits = model.logits(&image_embeds, &text_embeds);
    let loss = model.loss(&image_embeds, &text_embeds);
    for (what, value) in
        [("image_embeds", &image_embeds), ("text_embeds", &text_embeds), ("logits_per_image", &logits), ("loss", &loss)]
    {
        let difference = largest_difference(value, &expected[what]);
        assert!(difference <= 1e-4, "{name}: {what} differs by {difference}");
    }

    loss.backward();
    let variables = vs.variables();
    let gradients = expected.iter().filter_map(|(key, value)| Some((key.strip_prefix("gradient.")?, value)));
    let mut compared = 0;
    for (variable, gradient) in gradients {
        let ours = variables[variable].grad().to_kind(Kind::Float);
        let scale = gradient.abs().max().double_value(&[]).max(1e-6);
        let difference = largest_difference(&ours, gradient) / scale;
        assert!(difference <= 1e-3, "{name}: the gradient of {variable} differs by {difference} of its largest value");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn clip_equals_transformers() {
    check("clip");
}

#[test]
fn siglip_equals_transformers() {
    check("siglip");
}

#[test]
fn bf16_models_stay_close_to_f32() {
    let folder = golden("clip");
    let vs = VarStore::new(Device::Cpu);
    let mut model = Clip::new(&vs.root(), &read_config(&folder).unwrap()).unwrap();
    checkpoint::load(&vs, &folder.join("model.safetensors"), hf_names).unwrap();
    let pixel_values = Tensor::rand([4, 3, 32, 32], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    let tokens = TokenBatch::from_rows(&[vec![97, 5, 98], vec![97, 60, 31, 7, 98]], 0, 98);
    let embed = |model: &Clip| tch::no_grad(|| (model.encode_image(&pixel_values, false), model.encode_text(&tokens)));
    let (images, texts) = embed(&model);
    model.pack(Precision::Bf16);
    let (packed_images, packed_texts) = embed(&model);
    for (exact, packed) in [(images, packed_images), (texts, packed_texts)] {
        let cosine = (exact * packed).sum_dim_intlist([1i64].as_slice(), false, Kind::Float).min().double_value(&[]);
        assert!(cosine >= 0.9995, "cosine {cosine}");
    }
}
