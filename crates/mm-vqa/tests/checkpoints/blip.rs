//! BLIP's states, logits, losses, gradients and attention weights.

use crate::{assert_gradients_equal, expected, largest_difference, open};
use mm_core::loss::token_cross_entropy;
use mm_core::nn::Context;
use mm_text::TokenBatch;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_vqa::{BlipVqa, VqaConfig, VqaFolder};
use std::collections::HashMap;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The model with its goldens.
pub struct Golden {
    pub vs: VarStore,
    pub folder: VqaFolder,
    pub model: BlipVqa,
    pub expected: HashMap<String, Tensor>,
}

impl Golden {
    pub fn open() -> Self {
        let (vs, folder) = (VarStore::new(Device::Cpu), open("blip"));
        let VqaConfig::Blip(config) = &folder.config else { panic!("not a BLIP") };
        let model = folder.build(&vs, |path| BlipVqa::new(path, config)).unwrap();
        Self { vs, folder, model, expected: expected("blip") }
    }

    pub fn get(&self, name: &str) -> &Tensor {
        &self.expected[name]
    }

    pub fn questions(&self) -> TokenBatch {
        TokenBatch {
            input_ids: self.get("input_ids").shallow_clone(),
            attention_mask: self.get("attention_mask").shallow_clone(),
        }
    }

    pub fn images(&self) -> Tensor {
        self.model.encode_images(self.get("pixel_values"))
    }

    pub fn contexts(&self) -> Context {
        self.model.encode_questions(&self.images(), &[0, 1, 2, 3], &self.questions()).unwrap()
    }

    /// The tokens of row `row` of `name`, without padding.
    pub fn row(&self, name: &str, mask: &str, row: i64) -> Vec<i64> {
        let length = self.get(mask).get(row).sum(Kind::Int64).int64_value(&[]);
        Vec::try_from(self.get(name).get(row).narrow(0, 0, length)).unwrap()
    }

    /// The state of question `row` about image `image`, alone and without padding.
    pub fn alone(&self, row: i64, image: i64) -> Context {
        let ids = self.row("input_ids", "attention_mask", row);
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        let states = self.images().narrow(0, image, 1);
        self.model.encode_questions(&states, &[0], &TokenBatch::from_rows(&[ids], 0, 0)).unwrap()
    }
}

#[test]
fn states_and_logits_equal_transformers() {
    let golden = Golden::open();
    let difference = largest_difference(&golden.images(), golden.get("image_embeds"));
    assert!(difference <= 1e-4, "images: {difference}");
    let real = golden.get("attention_mask").unsqueeze(-1);
    let contexts = golden.contexts();
    let difference =
        largest_difference(&(&contexts.states * &real), &(golden.get("question_embeds") * &real));
    assert!(difference <= 1e-4, "questions: {difference}");

    let answers = golden.get("decoder_input_ids");
    let real = golden.get("decoder_attention_mask").unsqueeze(-1);
    let compare = |contexts: &Context, name: &str| {
        let logits = golden.model.logits(contexts, answers) * &real;
        let difference = largest_difference(&logits, &(golden.get(name) * &real));
        assert!(difference <= 1e-4, "{name}: {difference}");
    };
    compare(&contexts, "logits");

    let VqaConfig::Blip(config) = &golden.folder.config else { panic!("not a BLIP") };
    let marked = golden.questions();
    let _ = marked.input_ids.select(1, 0).fill_(i64::from(config.start() + 1));
    let contexts = golden.model.encode_questions(&golden.images(), &[0, 1, 2, 3], &marked).unwrap();
    compare(&contexts, "logits_enc");
}

#[test]
fn loss_and_gradients_equal_transformers() {
    let golden = Golden::open();
    let row = |row: i64| {
        let ids = golden.row("decoder_input_ids", "decoder_attention_mask", row);
        CaptionTokens { token_ids: ids.into_iter().map(|id| id as u32).collect(), prompt_length: 1 }
    };
    let next = NextTokens::new(&(0..4).map(row).collect::<Vec<_>>(), 0);
    let logits = golden.model.next_token_logits(&golden.contexts(), &next);
    let loss = token_cross_entropy(&logits, &next.labels, 0.0) / next.count() as f64;
    let relative = (&loss / golden.get("loss")).double_value(&[]) - 1.0;
    assert!(relative.abs() <= 1e-4, "{relative}");
    loss.backward();
    assert_gradients_equal(&golden.vs, &golden.expected);
}

#[test]
fn attention_weights_equal_transformers() {
    let golden = Golden::open();
    let ids = golden.row("input_ids", "attention_mask", 2);
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let of_image =
        golden.model.question_weights(&golden.images().narrow(0, 2, 1), &TokenBatch::from_rows(&[ids], 0, 0));
    let answer = Tensor::from_slice(&golden.row("decoder_input_ids", "decoder_attention_mask", 2));
    let of_question = golden.model.answer_weights(&golden.alone(2, 2), &answer.unsqueeze(0));
    assert_eq!((of_image.len(), of_question.len()), (2, 2));
    for (layer, (image, question)) in of_image.iter().zip(&of_question).enumerate() {
        let difference = largest_difference(image, golden.get(&format!("question_weights.{layer}")));
        assert!(difference <= 1e-5, "layer {layer}, image: {difference}");
        let difference = largest_difference(question, golden.get(&format!("answer_weights.{layer}")));
        assert!(difference <= 1e-5, "layer {layer}, question: {difference}");
    }
}

#[test]
fn questions_in_a_batch_are_what_they_are_alone_whatever_their_image() {
    let golden = Golden::open();
    let all = golden.questions();
    let answers = Tensor::from_slice(&golden.row("decoder_input_ids", "decoder_attention_mask", 1));
    // Images with three, one and no questions, and out of order.
    for (rows, images) in
        [([0, 1, 2, 3], [2, 2, 0, 2]), ([3, 2, 1, 0], [1, 1, 3, 3]), ([1, 1, 2, 0], [0, 1, 2, 2])]
    {
        let index = Tensor::from_slice(&rows);
        let batch = TokenBatch {
            input_ids: all.input_ids.index_select(0, &index),
            attention_mask: all.attention_mask.index_select(0, &index),
        };
        let contexts = golden.model.encode_questions(&golden.images(), &images, &batch).unwrap();
        let repeated = answers.unsqueeze(0).repeat([4, 1]);
        let found = golden.model.logits(&contexts, &repeated);
        for (place, (row, image)) in (0..).zip(rows.into_iter().zip(images)) {
            let alone = golden.model.logits(&golden.alone(row, image), &answers.unsqueeze(0));
            let difference = largest_difference(&found.narrow(0, place, 1), &alone);
            assert!(difference <= 1e-5, "question {row} about image {image}: {difference}");
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_an_error_with_its_numbers() {
    let golden = Golden::open();
    let error = |images: &[i64], questions: &TokenBatch| {
        golden.model.encode_questions(&golden.images(), images, questions).unwrap_err().to_string()
    };
    assert!(error(&[0, 1, 2], &golden.questions()).contains("4 questions with 3 images"));
    assert!(error(&[0, 1, 2, 4], &golden.questions()).contains("question 3 is about image 4 of 4"));
    let long = TokenBatch::from_rows(&[vec![5; 25]], 0, 0);
    assert!(error(&[0], &long).contains("a question of 25 tokens exceeds the 24 positions"));
    let none = TokenBatch::from_rows(&[], 3, 0);
    let contexts = golden.model.encode_questions(&golden.images(), &[], &none).unwrap();
    assert_eq!(contexts.states.size(), [0, 3, 16]);
}
