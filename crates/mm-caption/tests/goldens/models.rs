//! Logits, losses and gradients.

use crate::{expected, golden, largest_difference};
use mm_caption::{CaptionPipeline, CaptionerFolder, CaptionerVariant};
use mm_core::checkpoint::{StoredType, stored};
use mm_core::loss::token_cross_entropy;
use mm_text::decoder::{CaptionTokens, GPT2_LAYOUT, NextTokens};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The rows of a batch of transformers': tokens without padding, and where their labels begin. Labels that
/// `are_aligned` with the logits bring the last token.
fn rows(
    input_ids: &Tensor,
    attention_mask: &Tensor,
    labels: &Tensor,
    are_aligned: bool,
) -> Vec<CaptionTokens> {
    let row = |index: i64| {
        let length = attention_mask.get(index).sum(Kind::Int64).int64_value(&[]);
        let mut ids: Vec<i64> = Vec::try_from(input_ids.get(index).narrow(0, 0, length)).unwrap();
        let labels: Vec<i64> = Vec::try_from(labels.get(index)).unwrap();
        let mut prompt_length = labels.iter().take_while(|&&label| label == -100).count();
        if are_aligned {
            prompt_length += 1;
            ids.extend(labels.get(length as usize - 1).filter(|&&label| label != -100));
        }
        CaptionTokens { token_ids: ids.into_iter().map(|id| id as u32).collect(), prompt_length }
    };
    (0..input_ids.size()[0]).map(row).collect()
}

/// Compares encoder, logits, loss and gradients of the captioner in `folder`.
fn assert_equals_transformers(folder: &str) {
    let mut expected = expected(folder);
    let mut take = |name: &str| expected.remove(name);
    let vs = VarStore::new(Device::Cpu);
    let name = golden(folder);
    let opened = CaptionerFolder::open(name.to_str().unwrap()).unwrap();
    let captioner = opened.build(&vs).unwrap();
    let pixel_values = take("pixel_values").unwrap();
    // An encoder-decoder's labels stand in the places of the logits, BLIP's in those of their tokens.
    let is_aligned = opened.description.model.variant == CaptionerVariant::EncoderDecoder;
    let own = if is_aligned { "decoder_" } else { "" };
    let mut take_own = |name: &str| take(&format!("{own}{name}")).unwrap();
    let (input_ids, mask) = (take_own("input_ids"), take_own("attention_mask"));
    let labels = take("labels").unwrap();

    let tokens = captioner.tower_outputs(&pixel_values, false);
    if let Some(expected) = take("last_hidden_state") {
        let difference = largest_difference(&tokens, &expected);
        assert!(difference <= 1e-4, "{folder}: encoder {difference}");
    }
    let states = captioner.connect(&tokens);
    let logits = captioner.logits(&states, &input_ids);
    let real = mask.unsqueeze(-1).to_kind(Kind::Float); // of padding only the peer's are masked
    let difference = largest_difference(&(&logits * &real), &(take("logits").unwrap() * &real));
    assert!(difference <= 1e-4, "{folder}: logits {difference}");

    let next = NextTokens::new(&rows(&input_ids, &mask, &labels, is_aligned), 0);
    let count = next.count() as f64;
    let loss = |label_smoothing: f64| {
        let logits = captioner.next_token_logits(&states, &next);
        token_cross_entropy(&logits, &next.labels, label_smoothing) / count
    };
    for (name, label_smoothing) in [("loss", 0.0), ("loss_smoothed", 0.1)] {
        let Some(expected) = take(name) else { continue };
        let relative = (loss(label_smoothing) / expected).double_value(&[]) - 1.0;
        assert!(relative.abs() <= 1e-4, "{folder}: {name} {relative}");
    }
    loss(0.0).backward();
    let with_gradient = vs.variables().into_iter().filter(|(_, variable)| variable.grad().defined());
    let gradients = with_gradient.map(|(name, variable)| (name, variable.grad()));
    let gradients: std::collections::HashMap<String, Tensor> =
        stored(gradients, &GPT2_LAYOUT).into_iter().collect();
    let mut compared = 0;
    for (name, expected) in
        expected.iter().filter_map(|(name, value)| Some((name.strip_prefix("grad.")?, value)))
    {
        let scale = expected.abs().max().double_value(&[]);
        let Some(gradient) = gradients.get(name) else {
            assert!(scale == 0.0, "{folder}: no gradient for {name}");
            continue;
        };
        // Of the keys' biases it is rounding alone: the softmax does not see them.
        let difference = largest_difference(gradient, expected);
        assert!(difference <= 1e-3 * scale + 1e-6, "{folder}: {name}: {difference} of {scale}");
        compared += 1;
    }
    assert!(compared >= 8, "{folder}: {compared} gradients");
}

#[test]
fn blip_equals_transformers() {
    assert_equals_transformers("blip");
    assert_equals_transformers("blip-large");
}

#[test]
fn vit_gpt2_equals_transformers() {
    assert_equals_transformers("vit-gpt2");
    assert_equals_transformers("vit-gpt2-projected");
}

#[test]
fn what_is_saved_reads_back_the_same() {
    for folder in ["blip", "blip-large", "vit-gpt2", "vit-gpt2-projected"] {
        let name = golden(folder);
        let vs = VarStore::new(Device::Cpu);
        let folder = CaptionerFolder::open(name.to_str().unwrap()).unwrap();
        let pipeline = CaptionPipeline::load(&folder, &vs).unwrap();
        let to = tempfile::tempdir().unwrap();
        pipeline.save(vs.variables().into_iter().collect(), to.path(), StoredType::F32).unwrap();

        let copy = VarStore::new(Device::Cpu);
        let folder = CaptionerFolder::open(to.path().to_str().unwrap()).unwrap();
        let again = CaptionPipeline::load(&folder, &copy).unwrap();
        assert_eq!(again.description, pipeline.description);
        assert_eq!(again.generation, pipeline.generation);
        assert_eq!(again.processor, pipeline.processor);
        let (own, copy) = (vs.variables(), copy.variables());
        assert_eq!(own.len(), copy.len());
        assert!(own.iter().all(|(name, variable)| copy[name] == *variable));
        assert_eq!(
            again.tokenizer.encode_words("two red circles").unwrap(),
            pipeline.tokenizer.encode_words("two red circles").unwrap()
        );
    }
}
