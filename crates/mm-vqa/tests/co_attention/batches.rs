//! An answer does not depend on the batch, on padding, or on how often its image is asked about.

use crate::{FOLDERS, config, expected, head, largest_difference, logits};
use mm_core::Precision;
use mm_testing::{initialize, normal};
use mm_text::{BertConfig, QuestionEncoderConfig};
use mm_vision::{ImageTowerConfig, VitConfig};
use mm_vqa::co_attention::{CoAttention, CoAttentionConfig, CoAttentionHead, FusionConfig};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The largest difference between all questions in one batch and each alone, without padding.
fn difference_to_single(
    head: &CoAttentionHead,
    tokens: &Tensor,
    index: &Tensor,
    ids: &Tensor,
    lengths: &Tensor,
) -> f64 {
    let image_tokens = head.project(tokens);
    let together = head.forward(&image_tokens, index, ids, lengths);
    let mut largest: f64 = 0.0;
    for question in 0..ids.size()[0] {
        let (image, length) = (index.int64_value(&[question]), lengths.int64_value(&[question]));
        let alone = head.forward(
            &image_tokens.narrow(0, image, 1),
            &Tensor::from_slice(&[0i64]),
            &ids.narrow(0, question, 1).narrow(1, 0, length),
            &lengths.narrow(0, question, 1),
        );
        largest = largest.max(largest_difference(&together.narrow(0, question, 1), &alone));
    }
    largest
}

#[test]
fn a_batch_gives_each_question_the_logits_that_it_has_alone() {
    for folder in FOLDERS {
        let (_vs, head) = head(folder);
        let e = expected(folder);
        let (tokens, index) = (&e["image_tokens"], &e["image_index"]);
        let difference = difference_to_single(&head, tokens, index, &e["input_ids"], &e["lengths"]);
        assert!(difference < 1e-5, "{folder}: {difference}");
        let longer = e["input_ids"].constant_pad_nd([0i64, 4]);
        let padded = head.forward(&head.project(tokens), index, &longer, &e["lengths"]);
        assert!(largest_difference(&padded, &e["logits"]) < 1e-4, "{folder}: padding changes the logits");
    }
}

#[test]
fn bert_reads_questions_for_every_fusion_without_a_trace_of_padding() {
    let width = 16;
    for folder in FOLDERS {
        let (tokens, mut config) = config(folder);
        config.question = QuestionEncoderConfig::Bert(BertConfig {
            vocab_size: 20,
            hidden_size: width,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 8,
            ..BertConfig::default()
        });
        let vs = VarStore::new(Device::Cpu);
        let head = CoAttentionHead::new(&vs.root(), tokens, &config).unwrap();
        initialize(&vs, 3);
        let e = expected(folder);
        let (tokens, index) = (&e["image_tokens"], &e["image_index"]);
        let difference = difference_to_single(&head, tokens, index, &e["input_ids"], &e["lengths"]);
        assert!(difference < 1e-5, "{folder}: {difference}");
    }
}

#[test]
fn a_blind_answer_is_that_of_an_image_of_zeros() {
    for folder in FOLDERS {
        let (_vs, head) = head(folder);
        let e = expected(folder);
        let zeros = head.project(&e["image_tokens"]).zeros_like();
        let of_zeros = head.forward(&zeros, &e["image_index"], &e["input_ids"], &e["lengths"]);
        let blind = head.forward_blind(&e["input_ids"], &e["lengths"]);
        assert!(largest_difference(&blind, &of_zeros) < 1e-5, "{folder}");
        assert!(largest_difference(&blind, &e["logits"]) > 1e-2, "{folder}: the image has no effect");
    }
}

#[test]
fn a_packed_model_answers_as_before_up_to_its_precision() {
    for folder in FOLDERS {
        for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.1), (Precision::Int8, 0.3)]
        {
            let (_vs, mut head) = head(folder);
            head.pack(precision);
            let mut e = expected(folder);
            let tokens = e["image_tokens"].to_kind(precision.kind());
            e.insert("image_tokens".to_owned(), tokens);
            let logits = tch::no_grad(|| logits(&head, &e)).to_kind(Kind::Float);
            let difference = largest_difference(&logits, &e["logits"]);
            assert!(difference < tolerance, "{folder} in {precision:?}: {difference}");
        }
    }
}

#[test]
fn a_model_with_a_tower_answers_questions_about_its_images() {
    let image = VitConfig {
        hidden_size: 16,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 32,
        patch_size: 16,
        ..VitConfig::default()
    };
    for folder in FOLDERS {
        let (_, config) = config(folder);
        let towers = [config.image.clone(), ImageTowerConfig::Vit(image.clone())];
        for (image, positions) in towers.into_iter().zip([true, false]) {
            let config = CoAttentionConfig { image, ..config.clone() };
            let vs = VarStore::new(Device::Cpu);
            let model = CoAttention::new(&vs.root(), &config).unwrap();
            initialize(&vs, 3);
            assert_eq!(vs.variables().contains_key("image_positions.weight"), positions);
            let side = config.image.image_size();
            let e = expected(folder);
            let image_tokens = model.encode_images(&normal(1, &[2, 3, side, side]), false);
            let (logits, attention) =
                model.forward_with_weights(&image_tokens, &e["image_index"], &e["input_ids"], &e["lengths"]);
            assert_eq!(logits.size(), [5, 7]);
            let grid = config.image.token_grid();
            let tokens = grid.extra_tokens + grid.side * grid.side;
            assert_eq!(attention.rolled_out.size(), [5, tokens], "{}", config.describe());
            if let FusionConfig::Mcan(mcan) = &config.fusion {
                assert_eq!(attention.layers.len() as i64, mcan.layers + 1);
                assert_eq!(attention.layers[0].size(), [5, mcan.heads, tokens]);
            }
        }
    }
}
