//! Bad input: one clear error with its numbers.

use crate::{copied, golden, json, open, photo};
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;
use mm_text::{ChatMessage, ChatPart};
use mm_vqa::vlm::{VlmFolder, VlmInputs, VlmPipeline};
use serde_json::{Value, json};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn pipeline(name: &str) -> VlmPipeline {
    open(&golden(name)).0
}

fn text(text: &str) -> ChatPart {
    ChatPart::Text(text.to_owned())
}

#[test]
fn an_image_without_a_placeholder_and_the_reverse_are_refused() {
    let pipeline = pipeline("smolvlm");
    let message = |content: Vec<ChatPart>, images: &[RgbImage]| {
        pipeline.prompt(&[ChatMessage::new("user", content)], images).unwrap_err().to_string()
    };
    let without = message(vec![text("What is this?")], &[photo("cell")]);
    assert!(without.contains("has 0 image tokens (<image>) for 1 images"), "{without}");
    let missing = message(vec![ChatPart::Image, ChatPart::Image, text("?")], &[photo("cell")]);
    assert!(missing.contains("has 2 image tokens (<image>) for 1 images"), "{missing}");
    // A placeholder that is written in a text counts as one.
    let written = message(vec![ChatPart::Image, text("<image>")], &[photo("cell")]);
    assert!(written.contains("has 2 image tokens"), "{written}");
}

#[test]
fn tokens_and_tiles_that_do_not_fit_are_refused_with_both_numbers() {
    let pipeline = pipeline("smolvlm");
    let inputs = pipeline.prompt_text("<image>?", &[photo("cell")]).unwrap();
    let config = GenerationConfig::default();
    let cut = VlmInputs { input_ids: inputs.input_ids[..8].to_vec(), ..inputs.clone() };
    let error = pipeline.generate(&[cut], &config).unwrap_err().to_string();
    assert!(
        error.contains("a prompt has 6 image tokens for 1 tiles of images, which need 9 each"),
        "{error}"
    );
    let blind = VlmInputs { tiles: Vec::new(), ..inputs.clone() };
    // An image more elsewhere does not make up for it.
    let twice = VlmInputs { tiles: vec![inputs.tiles[0].clone(); 2], ..inputs.clone() };
    let error = pipeline.generate(&[blind, twice], &config).unwrap_err().to_string();
    assert!(error.contains("a prompt has 9 image tokens for 0 tiles"), "{error}");

    let ids = Tensor::from_slice(&inputs.input_ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
    let features = Tensor::zeros([2, 9, 16], (Kind::Float, Device::Cpu));
    let error = pipeline.model.merge(&ids.unsqueeze(0), Some(&features)).unwrap_err().to_string();
    assert!(error.contains("9 image tokens, but 2 tiles of images have 18 vectors, 9 each"), "{error}");
    let error = pipeline.model.merge(&ids.unsqueeze(0), None).unwrap_err().to_string();
    assert!(error.contains("9 image tokens, but 0 tiles"), "{error}");
}

#[test]
fn a_prompt_beyond_the_positions_is_refused_and_not_cut() {
    let pipeline = pipeline("smolvlm");
    let text = format!("{}<image>", "a ".repeat(300));
    let inputs = pipeline.prompt_text(&text, &[photo("cell")]).unwrap();
    assert!(inputs.input_ids.len() > 300);
    let error = pipeline.generate(&[inputs], &GenerationConfig::default()).unwrap_err().to_string();
    assert!(error.contains("256 positions"), "{error}");
}

#[test]
fn an_empty_image_is_refused() {
    for name in ["smolvlm", "llava"] {
        let error = pipeline(name).prompt_text("<image>", &[RgbImage::new(3, 0)]).unwrap_err().to_string();
        assert!(error.contains("is 3 x 0 pixels"), "{error}");
    }
}

#[test]
fn a_model_without_a_template_says_how_to_write_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    copied("llava", folder.path());
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let (pipeline, _vs) = open(folder.path());
    let error = pipeline.prompt(&[ChatMessage::text("user", "hi")], &[]).unwrap_err().to_string();
    assert!(error.contains("has no chat template") && error.contains("<image>"), "{error}");
    assert!(pipeline.prompt_text("hi", &[]).is_ok());
}

/// The error of the golden `name` whose file `file` is changed.
fn broken(name: &str, file: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = tempfile::tempdir().unwrap();
    copied(name, folder.path());
    let path = folder.path().join(file);
    let mut config: Value = json(&path);
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    error_of(folder.path())
}

fn error_of(folder: &Path) -> String {
    let vs = VarStore::new(Device::Cpu);
    let opened = VlmFolder::open(folder.to_str().unwrap());
    opened.and_then(|folder| VlmPipeline::load(&folder, &vs)).unwrap_err().to_string()
}

#[test]
fn a_folder_that_does_not_fit_together_is_refused_with_the_file() {
    let config = "config.json";
    for (error, expected) in [
        (
            broken("llava", config, |json| json["model_type"] = "fuyu".into()),
            "config.json: model_type is fuyu",
        ),
        (
            broken("llava", config, |json| {
                json["image_token_index"] = 85.into();
                json["text_config"]["vocab_size"] = 90.into();
            }),
            "has no token 85, the image token",
        ),
        (
            broken("llava", config, |json| json["text_config"]["vocab_size"] = 40.into()),
            "image_token_id is 81: it must be from 1 to 39",
        ),
        (
            broken("llava", config, |json| json["vision_config"]["image_size"] = 32.into()),
            "images become 24 x 24 pixels, but the tower takes 32 x 32",
        ),
        (
            broken("smolvlm", "processor_config.json", |json| {
                json["image_processor"]["max_image_size"] = json!({"longest_edge": 20});
            }),
            "images of 20 pixels have 5 patches of 4 pixels a side, which is no multiple of scale_factor 2",
        ),
        (
            broken("smolvlm", "processor_config.json", |json| {
                json["image_processor"]["image_processor_type"] = "CLIPImageProcessor".into();
            }),
            "processor_config.json: image processor: image_processor_type is CLIPImageProcessor",
        ),
        (
            broken("smolvlm", "generation_config.json", |json| json["eos_token_id"] = 500.into()),
            "has no token 500",
        ),
        (broken("smolvlm", config, |json| json["vision_config"]["hidden_size"] = 14.into()), "vision_model"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_folder_of_another_kind_is_no_vision_language_model() {
    assert!(VlmFolder::is_vlm(golden("smolvlm").to_str().unwrap()));
    assert!(VlmFolder::is_vlm(golden("llava").to_str().unwrap()));
    let blip = golden("../vqa/blip");
    assert!(!VlmFolder::is_vlm(blip.to_str().unwrap()));
    assert!(error_of(&blip).contains("vision-language models are of smolvlm, idefics3, llava"));
}
