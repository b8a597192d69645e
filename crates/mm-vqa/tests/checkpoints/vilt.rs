//! ViLT's pixels, logits, loss, gradients and attention weights, on images of several sizes.

use crate::{assert_gradients_equal, expected, json, largest_difference, open};
use mm_image::RgbImage;
use mm_text::TokenBatch;
use mm_vision::{PaddedImages, ViltProcessor};
use mm_vqa::{Vilt, VqaConfig, VqaFolder, VqaProcessor};
use std::collections::HashMap;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The photographs, as `PHOTOS` in the script.
const PHOTOS: [&str; 4] = ["chelsea", "cell", "gravel", "rocket-flame"];

fn opened(vs: &VarStore) -> (VqaFolder, Vilt) {
    let folder = open("vilt");
    let VqaConfig::Vilt(config) = &folder.config else { panic!("not a ViLT") };
    let model = folder.build(vs, |path| Vilt::new(path, config)).unwrap();
    (folder, model)
}

fn processor(folder: &VqaFolder) -> ViltProcessor {
    let VqaProcessor::Padded(processor) = folder.parts().unwrap().processor else { panic!("not a ViLT's") };
    processor
}

fn photos() -> Vec<RgbImage> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/photos");
    let open = |name| mm_image::image::open(folder.join(format!("{name}.png"))).unwrap().to_rgb8();
    PHOTOS.into_iter().map(open).collect()
}

/// The batch of the peer: height and width of each image are in its mask.
fn images(expected: &HashMap<String, Tensor>) -> PaddedImages {
    let mask = &expected["pixel_mask"];
    let side = |image: i64, dim: i64| mask.get(image).select(dim, 0).sum(Kind::Int64).int64_value(&[]);
    PaddedImages {
        pixel_values: expected["pixel_values"].shallow_clone(),
        sizes: (0..mask.size()[0]).map(|image| (side(image, 1), side(image, 0))).collect(),
    }
}

fn questions(expected: &HashMap<String, Tensor>) -> TokenBatch {
    TokenBatch {
        input_ids: expected["input_ids"].shallow_clone(),
        attention_mask: expected["attention_mask"].shallow_clone(),
    }
}

/// Item `item` of the batch, without padding.
fn alone(images: &PaddedImages, questions: &TokenBatch, item: i64) -> (PaddedImages, TokenBatch) {
    let (height, width) = images.sizes[item as usize];
    let pixel_values = images.pixel_values.narrow(0, item, 1).narrow(2, 0, height).narrow(3, 0, width);
    let mask = questions.attention_mask.narrow(0, item, 1);
    let length = mask.sum(Kind::Int64).int64_value(&[]);
    let questions = TokenBatch {
        input_ids: questions.input_ids.narrow(0, item, 1).narrow(1, 0, length),
        attention_mask: mask.narrow(1, 0, length),
    };
    (PaddedImages { pixel_values, sizes: vec![(height, width)] }, questions)
}

#[test]
fn logits_loss_and_gradients_equal_transformers() {
    let (vs, expected) = (VarStore::new(Device::Cpu), expected("vilt"));
    let (_, model) = opened(&vs);
    let logits = model.forward(&images(&expected), &questions(&expected)).unwrap();
    let difference = largest_difference(&logits, &expected["logits"]);
    assert!(difference <= 1e-4, "{difference}");

    let targets = &expected["targets"];
    let bce = logits.binary_cross_entropy_with_logits::<Tensor>(targets, None, None, tch::Reduction::Mean);
    let loss = bce * targets.size()[1];
    let relative = (&loss / &expected["loss"]).double_value(&[]) - 1.0;
    assert!(relative.abs() <= 1e-4, "{relative}");
    loss.backward();
    assert_gradients_equal(&vs, &expected);
}

#[test]
fn items_in_a_batch_are_what_they_are_alone() {
    let (vs, expected) = (VarStore::new(Device::Cpu), expected("vilt"));
    let (_, model) = opened(&vs);
    let (images, questions) = (images(&expected), questions(&expected));
    let batch = model.forward(&images, &questions).unwrap();
    for item in 0..4 {
        let (images, questions) = alone(&images, &questions, item);
        let logits = model.forward(&images, &questions).unwrap();
        let difference = largest_difference(&logits, &batch.narrow(0, item, 1));
        assert!(difference <= 1e-5, "item {item}: {difference}");
    }
}

#[test]
fn attention_weights_equal_transformers() {
    let (vs, expected) = (VarStore::new(Device::Cpu), expected("vilt"));
    let (_, model) = opened(&vs);
    let (images, questions) = alone(&images(&expected), &questions(&expected), 0);
    let (logits, weights) = model.forward_with_weights(&images, &questions).unwrap();
    let difference = largest_difference(&logits, &expected["logits"].narrow(0, 0, 1));
    assert!(difference <= 1e-4, "{difference}");
    assert_eq!(weights.len(), 2);
    for (layer, weights) in weights.iter().enumerate() {
        let difference = largest_difference(&weights.get(0), &expected[&format!("attention.{layer}")]);
        assert!(difference <= 1e-5, "layer {layer}: {difference}");
    }
    let rollout = mm_vqa::attention_rollout(&weights).unwrap();
    let sums = rollout.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn photographs_become_the_pixels_of_transformers_within_one_level() {
    let vs = VarStore::new(Device::Cpu);
    let (folder, _) = opened(&vs);
    let (processor, expected) = (processor(&folder), expected("vilt"));
    let found = processor.process_batch(&photos()).unwrap();
    assert_eq!(found.sizes, images(&expected).sizes);
    let difference = largest_difference(&found.pixel_values, &expected["pixel_values"]);
    assert!(difference <= 1.01 * 2.0 / 255.0, "{difference}");
    for [width, height, new_width, new_height] in json::<Vec<[u32; 4]>>("vilt/sizes.json") {
        assert_eq!(processor.size(width, height), (new_width, new_height), "{width} x {height}");
    }
}

#[test]
fn a_question_over_the_table_of_positions_is_cut_and_counted() {
    let vs = VarStore::new(Device::Cpu);
    let (folder, model) = opened(&vs);
    let tokenizer = folder.parts().unwrap().tokenizer;
    let ids = tokenizer.encode("is there a red circle left of the big blue star or not there?").unwrap();
    assert_eq!((ids.len(), ids.last(), tokenizer.over_long()), (12, Some(&tokenizer.eos_id()), 1));
    let images = processor(&folder).process_batch(&photos()[..1]).unwrap();
    let long = TokenBatch::from_rows(&[vec![5; 13]], 0, 0);
    let error = model.forward(&images, &long).unwrap_err().to_string();
    assert!(error.contains("a question of 13 tokens exceeds the 12 positions"), "{error}");
}

#[test]
fn what_does_not_go_together_is_an_error_with_its_numbers() {
    let vs = VarStore::new(Device::Cpu);
    let (_, model) = opened(&vs);
    let expected = expected("vilt");
    let error = |images: &PaddedImages| model.forward(images, &questions(&expected)).unwrap_err().to_string();
    let PaddedImages { pixel_values, mut sizes } = images(&expected);
    sizes[1].1 = 31;
    let images = PaddedImages { pixel_values, sizes };
    assert!(error(&images).contains("31 x"), "{}", error(&images));
    let images = PaddedImages { sizes: images.sizes[..3].to_vec(), pixel_values: images.pixel_values };
    assert!(error(&images).contains("4 questions about 3 images"));
}
