//! A model's folder: `config.json`, `model.safetensors`, the tokenizer and `preprocessor_config.json`, as transformers has them.

use crate::{Clip, ClipConfig, ContrastiveLoss, Error, Result};
use mm_core::checkpoint::{self, hf_names, write_atomically};
use mm_core::{DeviceConfig, Precision, upload};
use mm_data::image::RgbImage;
use mm_text::{ClipTextConfig, ClipTextForm, TextTowerConfig, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerConfig, VitConfig, VitForm};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// The `model_type` of towers that transformers has no joint class for.
const OWN_TYPE: &str = "mm-clip";

/// A CLIP and what it needs to read images and texts.
#[derive(Debug)]
pub struct Bundle {
    /// The model.
    pub model: Clip,
    /// What the model was made from.
    pub config: ClipConfig,
    /// Texts to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Images to `pixel_values`.
    pub processor: ImageProcessor,
    /// Where the model computes.
    pub device: Device,
}

impl Bundle {
    /// Opens the model in `folder` for inference on `device`, in `precision`.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not known, or config, weights and tokenizer do not fit each other.
    pub fn open(folder: &Path, device: &DeviceConfig, precision: Precision) -> Result<Self> {
        let device = device.resolve()?;
        let vs = VarStore::new(device);
        let mut bundle = Self::load(folder, &vs)?;
        if precision != Precision::F32 {
            bundle.model.pack(precision);
        }
        Ok(bundle)
    }

    /// Builds the model in `folder` on `vs` and fills it.
    fn load(folder: &Path, vs: &VarStore) -> Result<Self> {
        let config = read_config(folder)?;
        let tokenizer = Tokenizer::from_dir(folder)?.with_context_length(config.text.context_length() as usize)?;
        config.text.check_tokenizer(&tokenizer)?;
        let processor = ImageProcessor::from_file(&folder.join("preprocessor_config.json"))?;
        let model = Clip::new(&vs.root(), &config)?;
        checkpoint::load(vs, &folder.join("model.safetensors"), hf_names)?;
        Ok(Self { model, config, tokenizer: Arc::new(tokenizer), processor, device: vs.device() })
    }

    /// Writes the model, whose variables are those of `vs`, to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, vs: &VarStore, folder: &Path) -> Result<()> {
        checkpoint::save(vs, &folder.join("model.safetensors"), hf_names)?;
        let file = folder.join("config.json");
        let text = format!("{:#}\n", write_config(&self.config, &self.tokenizer)?);
        write_atomically(&file, |to| {
            std::fs::write(to, text).map_err(|source| mm_core::Error::io("write", &file, source))
        })?;
        self.tokenizer.save(folder)?;
        Ok(self.processor.save(&folder.join("preprocessor_config.json"))?)
    }
}

/// Reads `config.json` of a model folder.
///
/// # Errors
/// The file is missing or not JSON, or its architecture is none of those known.
pub fn read_config(folder: &Path) -> Result<ClipConfig> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| mm_core::Error::io("read", &path, source))?;
    let problem = |problem: String| Error::Folder { path: path.clone(), problem };
    let json: Value = serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
    let towers = || -> Result<(ImageTowerConfig, TextTowerConfig)> {
        let image = VitConfig::from_hf(&json["vision_config"])?;
        Ok((ImageTowerConfig::Vit(image), TextTowerConfig::Clip(ClipTextConfig::from_hf(&json["text_config"])?)))
    };
    match json["model_type"].as_str() {
        Some("clip") => {
            let (image, text) = towers()?;
            let embed_dim = json["projection_dim"].as_i64().unwrap_or(512); // transformers' default
            Ok(ClipConfig { embed_dim, loss: ContrastiveLoss::InfoNce, image, text })
        }
        Some("siglip") => {
            let (image, text) = towers()?;
            Ok(ClipConfig { embed_dim: text.output_width(), loss: ContrastiveLoss::Siglip, image, text })
        }
        Some(OWN_TYPE) => serde_json::from_value(json["clip"].clone()).map_err(|error| problem(error.to_string())),
        other => {
            let other = other.unwrap_or("missing");
            Err(problem(format!("model_type is {other}; known are clip, siglip and {OWN_TYPE}")))
        }
    }
}

/// `config.json` for `config`: transformers' own where it has a class for the pair of towers, else this project's.
fn write_config(config: &ClipConfig, tokenizer: &Tokenizer) -> Result<Value> {
    let json =
        |value: std::result::Result<Value, serde_json::Error>| value.map_err(|error| Error::Model(error.to_string()));
    let (ImageTowerConfig::Vit(image), TextTowerConfig::Clip(text)) = (&config.image, &config.text) else {
        return Ok(json!({ "model_type": OWN_TYPE, "clip": json(serde_json::to_value(config))? }));
    };
    let (model_type, class) = match (image.form, text.form, config.loss) {
        (VitForm::Clip, ClipTextForm::Clip, ContrastiveLoss::InfoNce) => ("clip", "CLIPModel"),
        (VitForm::Siglip, ClipTextForm::Siglip, ContrastiveLoss::Siglip) => ("siglip", "SiglipModel"),
        _ => return Ok(json!({ "model_type": OWN_TYPE, "clip": json(serde_json::to_value(config))? })),
    };
    let mut vision_config = json(serde_json::to_value(image))?;
    let mut text_config = json(serde_json::to_value(text))?;
    let tower = |value: &mut Value, kind: &str, more: Vec<(&str, Value)>| {
        let fields = value.as_object_mut().expect("a struct is a JSON object");
        for own in ["form", "patch_dropout"] {
            fields.remove(own);
        }
        fields.insert("model_type".to_owned(), format!("{model_type}_{kind}_model").into());
        fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>());
    };
    tower(&mut vision_config, "vision", vec![("projection_dim", config.embed_dim.into())]);
    let ids = vec![
        ("projection_dim", config.embed_dim.into()),
        ("bos_token_id", tokenizer.bos_id().into()),
        ("pad_token_id", tokenizer.pad_id().into()),
    ];
    tower(&mut text_config, "text", ids);
    Ok(json!({
        "architectures": [class],
        "model_type": model_type,
        "projection_dim": config.embed_dim,
        "text_config": text_config,
        "vision_config": vision_config,
        "dtype": "float32",
    }))
}

impl Bundle {
    /// Unit rows `[N, embed_dim]` f32 of images of any size, in one batch.
    ///
    /// # Errors
    /// An image without pixels.
    pub fn embed_images(&self, images: &[RgbImage]) -> Result<Tensor> {
        let pixel_values = self.processor.process_batch(images)?;
        Ok(self.embed_pixels(&pixel_values))
    }

    /// Unit rows `[N, embed_dim]` f32 of images that the processor has resized, in one batch.
    ///
    /// # Errors
    /// An image of another size than the others.
    pub fn embed_resized(&self, images: &[RgbImage]) -> Result<Tensor> {
        let pixel_values = self.processor.normalize_batch(images)?;
        Ok(self.embed_pixels(&pixel_values))
    }

    fn embed_pixels(&self, pixel_values: &Tensor) -> Tensor {
        let pixel_values = upload(pixel_values, self.device);
        mm_sys::inference_mode(|| self.model.encode_image(&pixel_values, false)).to_device(Device::Cpu)
    }

    /// Unit rows `[N, embed_dim]` f32 of texts, `batch_size` at once. Texts of one length go together, as a batch takes the time
    /// of its longest.
    ///
    /// # Errors
    /// A text that the tokenizer has no tokens for.
    pub fn embed_texts(&self, texts: &[&str], batch_size: usize) -> Result<Tensor> {
        let rows = self.tokenizer.encode_all(texts)?;
        let mut by_length: Vec<usize> = (0..rows.len()).collect();
        by_length.sort_by_key(|&index| rows[index].len());
        let padding = self.config.text.padding();
        let batches = by_length.chunks(batch_size).map(|indices| {
            let rows: Vec<Vec<u32>> = indices.iter().map(|&index| rows[index].clone()).collect();
            let tokens = self.tokenizer.collate(&rows, padding).to_device(self.device);
            mm_sys::inference_mode(|| self.model.encode_text(&tokens)).to_device(Device::Cpu)
        });
        let sorted = stack(batches.collect(), self.config.embed_dim)?;
        let mut place = vec![0i64; rows.len()];
        for (position, &index) in by_length.iter().enumerate() {
            place[index] = position as i64;
        }
        Ok(mm_sys::inference_mode(|| sorted.index_select(0, &Tensor::from_slice(&place))))
    }
}

fn stack(batches: Vec<Tensor>, width: i64) -> Result<Tensor> {
    match batches.is_empty() {
        true => Ok(Tensor::zeros([0, width], (tch::Kind::Float, Device::Cpu))),
        false => Ok(mm_sys::inference_mode(|| Tensor::f_cat(&batches, 0))?),
    }
}
