//! Whole models and lone towers against their peers: what `xtask/goldens/clip.py` saved, in every form of
//! folder.

use crate::folders::golden;
use mm_clip::{Clip, ImageEncoder, ModelFolder, Probability, TextEncoder};
use mm_core::Precision;
use mm_core::checkpoint::stored;
use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
use mm_text::TokenBatch;
use std::collections::HashMap;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

pub fn open(name: &str) -> ModelFolder {
    ModelFolder::open(golden(name).to_str().unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn expected(name: &str) -> HashMap<String, Tensor> {
    let file = golden(name).join("expected.safetensors");
    let mut tensors: HashMap<String, Tensor> = Tensor::read_safetensors(file).unwrap().into_iter().collect();
    if let (Some(rows), Some(columns)) = (tensors.get("rows"), tensors.get("columns")) {
        let images = rows.unsqueeze(-1) * columns.unsqueeze(-2);
        tensors.insert("pixel_values".to_owned(), images);
    }
    tensors
}

fn load(name: &str) -> (VarStore, Clip) {
    let folder = open(name);
    let vs = VarStore::new(Device::Cpu);
    let clip = Clip::new(&vs.root(), folder.clip().unwrap()).unwrap();
    folder.fill(&vs, None).unwrap_or_else(|error| panic!("{name}: {error}"));
    (vs, clip)
}

pub fn tokens(expected: &HashMap<String, Tensor>) -> TokenBatch {
    let input_ids = expected["input_ids"].shallow_clone();
    let attention_mask =
        expected.get("attention_mask").map_or_else(|| input_ids.ones_like(), Tensor::shallow_clone);
    TokenBatch { input_ids, attention_mask }
}

pub fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.reshape(-1) - b.reshape(-1)).abs().max().double_value(&[])
}

fn assert_pair_equals_peer(name: &str) {
    let (vs, clip) = load(name);
    let expected = expected(name);
    let image_embeds = clip.image.encode(&expected["pixel_values"], false);
    let text_embeds = clip.text.encode(&tokens(&expected));
    let logits = clip.head.logits(&image_embeds, &text_embeds);
    let contrastive = Contrastive::new(&ProcessGroup::alone(), ContrastiveConfig::default());
    let loss = clip.head.loss(&contrastive, &image_embeds, &text_embeds).unwrap();
    for (what, value) in [
        ("image_embeds", &image_embeds),
        ("text_embeds", &text_embeds),
        ("logits_per_image", &logits),
        ("loss", &loss),
    ] {
        let difference = largest_difference(value, &expected[what]);
        assert!(difference <= 1e-4, "{name}: {what} differs by {difference}");
    }

    loss.backward();
    let form = open(name).layout();
    let gradients = vs.variables().into_iter().filter(|(_, variable)| variable.grad().defined());
    let gradients: HashMap<String, Tensor> =
        stored(gradients.map(|(name, variable)| (name, variable.grad())), &form).into_iter().collect();
    for (variable, gradient) in
        expected.iter().filter_map(|(key, value)| Some((key.strip_prefix("gradient.")?, value)))
    {
        let ours =
            gradients.get(variable).or(variable.strip_prefix("text.").and_then(|own| gradients.get(own)));
        let ours = ours.unwrap_or_else(|| panic!("{name}: no gradient of {variable}"));
        let scale = gradient.abs().max().double_value(&[]).max(1e-6);
        let difference = largest_difference(ours, gradient) / scale;
        assert!(
            difference <= 1e-3,
            "{name}: the gradient of {variable} differs by {difference} of its largest value"
        );
    }
}

#[test]
fn clip_and_siglip_equal_transformers() {
    for name in ["clip", "clip-gelu-14", "clip-legacy-eos", "clip-sharded", "siglip"] {
        assert_pair_equals_peer(name);
    }
}

#[test]
fn models_of_open_clip_equal_open_clip() {
    for name in ["open-clip-vit", "open-clip-resnet", "open-clip-siglip-loss", "open-clip-biomed"] {
        assert_pair_equals_peer(name);
    }
}

#[test]
fn state_dicts_of_openai_equal_open_clips_reading_of_them() {
    for name in ["openai-vit", "openai-resnet"] {
        assert_pair_equals_peer(name);
    }
}

#[test]
fn probabilities_are_sigmoids_of_a_sigmoid_loss_and_shares_of_a_softmax() {
    // transformers' pipeline for zero-shot classification applies these to the peer's logits.
    for (name, kind) in [
        ("clip", Probability::Softmax),
        ("open-clip-vit", Probability::Softmax),
        ("siglip", Probability::Sigmoid),
        ("open-clip-siglip-loss", Probability::Sigmoid),
    ] {
        let ((_vs, clip), expected) = (load(name), expected(name));
        let logits = &expected["logits_per_image"];
        let peers = match kind {
            Probability::Softmax => logits.softmax(-1, Kind::Float),
            Probability::Sigmoid => logits.sigmoid(),
        };
        let logits = clip.head.logits(&expected["image_embeds"], &expected["text_embeds"]);
        let difference = largest_difference(&clip.head.probabilities(&logits), &peers);
        assert_eq!(clip.head.probability(), kind, "{name}");
        assert!(difference <= 1e-5, "{name} differs by {difference}");
    }
}

#[test]
fn lone_image_towers_equal_transformers() {
    for name in ["clip-vision", "siglip-vision", "vit", "vit-without-pooler"] {
        let (folder, expected) = (open(name), expected(name));
        let vs = VarStore::new(Device::Cpu);
        let (tower, projection) = folder.image().unwrap();
        let encoder = ImageEncoder::new(&vs.root(), &tower, projection).unwrap();
        assert!(folder.text().unwrap_err().to_string().contains("image tower alone"));
        folder.fill(&vs, None).unwrap();
        let difference =
            largest_difference(&encoder.forward(&expected["pixel_values"], false), &expected["output"]);
        assert!(difference <= 1e-4, "{name} differs by {difference}");
    }
}

#[test]
fn lone_text_towers_equal_transformers() {
    for name in ["clip-text", "siglip-text", "bert"] {
        let (folder, expected) = (open(name), expected(name));
        let vs = VarStore::new(Device::Cpu);
        let (tower, projection) = folder.text().unwrap();
        let encoder = TextEncoder::new(&vs.root(), &tower, projection).unwrap();
        folder.fill(&vs, None).unwrap();
        let difference = largest_difference(&encoder.forward(&tokens(&expected)), &expected["output"]);
        assert!(difference <= 1e-4, "{name} differs by {difference}");
    }
}

#[test]
fn one_side_of_a_pair_loads_alone() {
    for name in ["clip", "siglip", "open-clip-vit", "open-clip-biomed", "openai-resnet"] {
        let (folder, expected) = (open(name), expected(name));
        let vs = VarStore::new(Device::Cpu);
        let (tower, projection) = folder.image().unwrap();
        let encoder = ImageEncoder::new(&vs.root(), &tower, projection).unwrap();
        folder.fill(&vs, None).unwrap();
        let difference =
            largest_difference(&encoder.encode(&expected["pixel_values"], false), &expected["image_embeds"]);
        assert!(difference <= 1e-4, "{name} differs by {difference}");
    }
}

#[test]
fn narrow_models_stay_close_to_f32() {
    let expected = expected("clip");
    let embed = |clip: &Clip| {
        tch::no_grad(|| {
            (clip.image.encode(&expected["pixel_values"], false), clip.text.encode(&tokens(&expected)))
        })
    };
    // In int8 a processor without VNNI has 7 bits for inputs.
    for (precision, least) in [(Precision::Bf16, 0.999), (Precision::Int8, 0.998)] {
        let (_vs, mut clip) = load("clip");
        let (images, texts) = embed(&clip);
        clip.pack(precision);
        let (packed_images, packed_texts) = embed(&clip);
        for (exact, packed) in [(images, packed_images), (texts, packed_texts)] {
            let cosine = (exact * packed)
                .sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
                .min()
                .double_value(&[]);
            assert!(cosine >= least, "{precision:?}: cosine {cosine}");
        }
    }
}
