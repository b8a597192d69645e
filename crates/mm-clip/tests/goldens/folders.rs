//! Golden folders made whole: with a tokenizer and preprocessing, which the peers' random models come
//! without.

use mm_clip::{
    Architecture, CheckpointFormat, ClipPipeline, ImageEmbedder, ModelFolder, OpenOptions, TextEmbedder,
};
use mm_image::image::{Rgb, RgbImage};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The folder `name` of the goldens of this crate.
pub fn golden(name: &str) -> PathBuf {
    goldens().join("clip").join(name)
}

/// data/goldens.
pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens")
}

/// Every golden folder that opens as a model, by its name below the goldens.
pub fn all() -> Vec<String> {
    let mut names = Vec::new();
    for set in ["clip", "sentences", "text", "vision"] {
        for entry in fs::read_dir(goldens().join(set)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && ModelFolder::open(entry.to_str().unwrap()).is_ok() {
                names.push(format!("{set}/{}", entry.file_name().unwrap().to_str().unwrap()));
            }
        }
    }
    names.sort();
    assert!(names.len() >= 19, "{names:?}");
    names
}

/// How a folder is made whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As its form has it by default.
    Plain,
    /// The whole image, with a border: open_clip's `longest`, for which transformers has no name.
    Longest,
    /// Squashed, bilinear.
    Squashed,
    /// With a token behind the end token, in rows of the embedding that were free.
    Added,
    /// Texts are cut before the tower's positions end.
    Short,
}

pub const VARIANTS: [Variant; 5] =
    [Variant::Plain, Variant::Longest, Variant::Squashed, Variant::Added, Variant::Short];

/// A copy of a golden folder that can embed and train.
pub struct Whole {
    pub folder: tempfile::TempDir,
    pub form: CheckpointFormat,
    pub architecture: Architecture,
}

impl Whole {
    /// The golden `name` as `variant`; none where its form has no such variant.
    pub fn new(name: &str, variant: Variant) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        copy(&goldens().join(name), folder.path());
        let _ = fs::remove_file(folder.path().join("expected.safetensors"));
        let opened = ModelFolder::open(folder.path().to_str().unwrap()).unwrap();
        let architecture = opened.architecture.clone();
        let is_open_clip = opened.format == CheckpointFormat::OpenClip;
        let brings_tokenizer = folder.path().join("tokenizer.json").exists();
        let image = match &architecture {
            Architecture::Clip(config) => Some(config.image.image_size()),
            Architecture::Image { tower, .. } => Some(tower.image_size()),
            Architecture::Text { .. } => None,
        };
        let text = match &architecture {
            Architecture::Clip(config) => Some(config.text.clone()),
            Architecture::Text { tower, .. } => Some(tower.clone()),
            Architecture::Image { .. } => None,
        };
        let write = |name: &str, json: &Value| fs::write(folder.path().join(name), json.to_string()).unwrap();
        match (image, variant) {
            (None, Variant::Longest | Variant::Squashed) => return None,
            (Some(size), _) if is_open_clip => {
                let file = folder.path().join("open_clip_config.json");
                let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                config["preprocess_cfg"]["resize_mode"] = match variant {
                    Variant::Longest => "longest".into(),
                    Variant::Squashed => "squash".into(),
                    _ => "shortest".into(),
                };
                assert_eq!(config["preprocess_cfg"]["size"], size);
                if text.is_some() {
                    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "local-dir".into();
                }
                write("open_clip_config.json", &config);
            }
            (Some(_), Variant::Longest) => return None,
            (Some(size), Variant::Squashed) => {
                let square = json!({ "height": size, "width": size });
                write(
                    "preprocessor_config.json",
                    &json!({ "image_processor_type": "ViTImageProcessor", "size": square }),
                );
            }
            (Some(size), _) => {
                write(
                    "preprocessor_config.json",
                    &json!({ "image_processor_type": "CLIPImageProcessor", "size": size, "crop_size": size }),
                );
            }
            (None, _) => {}
        }
        match (text, variant) {
            (None, Variant::Added | Variant::Short) => return None,
            (Some(_), Variant::Added | Variant::Short) if brings_tokenizer => return None,
            // they go by the positions
            (Some(_), Variant::Short) if opened.format != CheckpointFormat::Hf => return None,
            (Some(text), _) if !brings_tokenizer => {
                let pooled = match &text {
                    mm_text::TextTowerConfig::Clip(config) => config.pooled_token(),
                    mm_text::TextTowerConfig::Bert(_) => None,
                };
                let last = text.vocab_size() - 1;
                let eos = match (variant, pooled) {
                    (Variant::Added, Some(_)) => return None, // the last row is its end token's
                    (Variant::Added, None) => last - 1,
                    (_, pooled) => pooled.unwrap_or(last),
                };
                write("tokenizer.json", &tokenizer(eos, (variant == Variant::Added).then_some(last)));
                let length = if variant == Variant::Short { 6 } else { text.context_length() };
                let config = json!({
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "pad_token": "[PAD]",
                    "model_max_length": length,
                });
                write("tokenizer_config.json", &config);
            }
            _ => {}
        }
        Some(Self { folder, form: opened.format, architecture })
    }

    pub fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }
}

/// A tokenizer of a few words whose end token is `eos`, with the token `<new>` of the id `added`.
fn tokenizer(eos: i64, added: Option<i64>) -> Value {
    let words =
        ["[UNK]", "[PAD]", "<start>", "a", "photo", "of", "the", "cat", "dog", "red", "two", "heart", "face"];
    let mut vocab: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), id.into())).collect();
    vocab.extend((words.len() as i64..eos).map(|id| (format!("word{id}"), id.into())));
    vocab.insert("<end>".to_owned(), eos.into());
    let token = |content: &str, id: i64| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true })
    };
    let special = |name: &str, id: i64| json!({ "id": name, "ids": [id], "tokens": [name] });
    let around = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let mut tokens = vec![token("[PAD]", 1), token("<start>", 2), token("<end>", eos)];
    tokens.extend(added.map(|id| token("<new>", id)));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
        "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [around("<start>"), { "Sequence": { "id": "A", "type_id": 0 } }, around("<end>")],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { "<start>": special("<start>", 2), "<end>": special("<end>", eos) },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    })
}

/// Copies the files of `from`, and of the folders in it.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry, &target);
        } else {
            fs::copy(&entry, target).unwrap();
        }
    }
}

/// The rows of a few images and texts by the model in `folder`: odd margins, tall and wide images, texts that
/// are cut, an added token.
pub fn rows(folder: &str) -> Vec<Tensor> {
    let image = |width, height| {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(7 * x + y) as u8, (x * y) as u8, (255 - 3 * y % 256) as u8])
        })
    };
    let images = [image(61, 40), image(40, 83), image(97, 64), image(32, 32)];
    let long = "a red cat of the two red dog face heart ".repeat(3);
    let texts = ["a photo of a cat", "two red dog", "a <new> cat of the dog", "", &long];
    let options = OpenOptions::default();
    let opened = ModelFolder::open(folder).unwrap_or_else(|error| panic!("{error}"));
    match opened.architecture {
        Architecture::Clip(_) => {
            let pipeline = ClipPipeline::open(folder, &options).unwrap_or_else(|error| panic!("{error}"));
            vec![pipeline.image.embed(&images).unwrap(), pipeline.text.embed(&texts, 2).unwrap()]
        }
        Architecture::Image { .. } => {
            vec![ImageEmbedder::open(folder, &options).unwrap().embed(&images).unwrap()]
        }
        Architecture::Text { .. } => {
            vec![TextEmbedder::open(folder, &options).unwrap().embed(&texts, 2).unwrap()]
        }
    }
}

/// Asserts that two models make the same rows, to the rounding of sums in another order.
pub fn assert_same(expected: &[Tensor], found: &[Tensor], what: &str) {
    assert_eq!(expected.len(), found.len(), "{what}");
    for (a, b) in expected.iter().zip(found) {
        let difference = (a - b).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{what}: rows differ by {difference}");
    }
}
