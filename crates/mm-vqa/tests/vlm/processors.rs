//! Pixels and tokens.

use crate::{FOLDERS, golden, json, largest_difference, open, photo, tensors};
use mm_image::RgbImage;
use mm_text::{ChatMessage, ChatPart};
use mm_vqa::vlm::{ImageSplitting, VlmPipeline};
use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

/// A row of `prompts.json`.
#[derive(Deserialize)]
struct Row {
    messages: Vec<Message>,
    images: Vec<String>,
    splits: bool,
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Vec<Value>,
}

impl Message {
    fn chat(&self) -> ChatMessage {
        let part = |part: &Value| match part["text"].as_str() {
            Some(text) => ChatPart::Text(text.to_owned()),
            None => ChatPart::Image,
        };
        ChatMessage::new(self.role.clone(), self.content.iter().map(part).collect())
    }
}

fn splitting(on: bool) -> ImageSplitting {
    if on { ImageSplitting::On } else { ImageSplitting::Off }
}

#[test]
fn prompts_have_transformers_ids() {
    for folder in FOLDERS {
        let (mut pipeline, _vs) = open(&golden(folder));
        let rows: Vec<Row> = json(&golden(folder).join("prompts.json"));
        assert!(rows.len() >= 4);
        for row in rows {
            pipeline.set_splitting(splitting(row.splits));
            let images: Vec<RgbImage> = row.images.iter().map(|name| photo(name)).collect();
            let messages: Vec<ChatMessage> = row.messages.iter().map(Message::chat).collect();
            let from_messages = pipeline.prompt(&messages, &images).unwrap();
            assert_eq!(from_messages.input_ids, row.ids, "{folder}: {}", row.text);
            assert_eq!(pipeline.prompt_text(&row.text, &images).unwrap(), from_messages);
        }
    }
}

/// 8-bit pixels of tiles, `[T, 3, H, W]`.
fn levels(tiles: &[RgbImage]) -> Tensor {
    let tile = |tile: &RgbImage| {
        let (width, height) = tile.dimensions();
        Tensor::from_slice(tile.as_raw()).view([height.into(), width.into(), 3]).permute([2, 0, 1])
    };
    Tensor::stack(&tiles.iter().map(tile).collect::<Vec<_>>(), 0)
}

fn assert_pixels(pipeline: &VlmPipeline, name: &str, expected: &Tensor, largest: f64) {
    let photo = photo(name.split('.').next().unwrap());
    let tiles = pipeline.processor.tiles(&photo).unwrap();
    let difference = largest_difference(&levels(&tiles.tiles), expected);
    assert!(difference <= largest, "{name}: {difference} levels apart");
}

#[test]
fn pixels_equal_transformers_within_a_level() {
    for folder in FOLDERS {
        let (mut pipeline, _vs) = open(&golden(folder));
        let pixels = tensors(&format!("{folder}/pixels.safetensors"));
        for (name, expected) in pixels.iter().filter(|(name, _)| !name.ends_with("padded")) {
            pipeline.set_splitting(splitting(name.ends_with("split")));
            assert_pixels(&pipeline, name, expected, 1.0);
        }
    }
}

#[test]
fn llavas_border_makes_images_square() {
    let folder = tempfile::tempdir().unwrap();
    crate::copied("llava", folder.path());
    std::fs::remove_file(folder.path().join("processor_config.json")).unwrap();
    std::fs::rename(folder.path().join("padded.json"), folder.path().join("preprocessor_config.json"))
        .unwrap();
    let (pipeline, vs) = open(folder.path());
    let pixels = tensors("llava/pixels.safetensors");
    let padded: Vec<_> = pixels.iter().filter(|(name, _)| name.ends_with("padded")).collect();
    assert_eq!(padded.len(), 2);
    for (name, expected) in &padded {
        assert_pixels(&pipeline, name, expected, 1.0);
    }
    // The border is saved.
    let saved = tempfile::tempdir().unwrap();
    let variables = vs.variables().into_iter().collect();
    pipeline.save(variables, saved.path(), mm_core::checkpoint::StoredType::F32).unwrap();
    assert_eq!(open(saved.path()).0.processor, pipeline.processor);
}

#[test]
fn images_are_split_as_the_files_say_only_if_asked() {
    let (mut pipeline, _vs) = open(&golden("smolvlm"));
    let count = |pipeline: &VlmPipeline| pipeline.processor.tiles(&photo("chelsea")).unwrap().tiles.len();
    assert_eq!(count(&pipeline), 1);
    pipeline.set_splitting(ImageSplitting::FromFolder);
    assert!(count(&pipeline) > 4);
    pipeline.set_splitting(ImageSplitting::On);
    assert!(count(&pipeline) > 4);
}
