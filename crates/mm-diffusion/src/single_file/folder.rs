//! A file as a diffusers folder.

use super::{Family, SingleFile};
use crate::Result;
use crate::pipeline::{INDEX_FILE, WEIGHTS, make_folder};
use mm_core::checkpoint::{StoredType, Weights, write};
use mm_core::hf::CONFIG_FILE;
use mm_core::write_json;
use mm_text::Tokenizer;
use serde_json::{Value, json};
use std::path::Path;

/// The padding token of open_clip's text encoders; OpenAI's pads with the end token.
const OPEN_CLIP_PAD: &str = "!";

impl SingleFile {
    /// `model_index.json`, for diffusers.
    pub(crate) fn index(&self) -> Value {
        let (unet, vae) = ("UNet2DConditionModel", "AutoencoderKL");
        let mut index = json!({
            "_class_name": self.pipeline_class(),
            "scheduler": ["diffusers", self.scheduler_class()],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", unet],
            "vae": ["diffusers", vae],
        });
        if self.kind.family == Family::Sdxl {
            index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
            index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"]);
            index["force_zeros_for_empty_prompt"] = json!(true);
        } else {
            index["safety_checker"] = json!([null, null]);
            index["feature_extractor"] = json!([null, null]);
            index["requires_safety_checker"] = json!(false);
        }
        index
    }

    /// The config of the folder `part`.
    pub(crate) fn config(&self, part: &str) -> Result<Value> {
        match part {
            "unet" => self.unet_config(),
            "vae" => self.vae_config(),
            "text_encoder" => self.text_encoder_config(),
            "text_encoder_2" => self.text_encoder_2_config(),
            part => Err(self.bad(format!("it has no {part}"))),
        }
    }

    /// The weights of the folder `part`.
    pub(crate) fn weights(&self, part: &str) -> Result<Weights> {
        match part {
            "unet" => self.unet(),
            "vae" => self.vae(),
            "text_encoder" => self.text_encoder(),
            "text_encoder_2" => self.text_encoder_2(),
            part => Err(self.bad(format!("it has no {part}"))),
        }
    }

    /// The tokenizer of the folder `name`: OpenAI's, as no file has its own.
    pub(crate) fn tokenizer(&self, name: &str) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::openai_clip()?;
        let of_open_clip = match self.kind.family {
            Family::Sd1 => false,
            Family::Sd2 => true,
            Family::Sdxl => name == "tokenizer_2",
        };
        Ok(if of_open_clip { tokenizer.with_pad_token(OPEN_CLIP_PAD)? } else { tokenizer })
    }

    /// Writes the diffusers folder of the model into the existing folder `folder`: index, configs, weights in
    /// numbers of `dtype`, tokenizers, and the scheduler of [`SingleFile::scheduler_config`] with
    /// `prediction_type`. Of a U-Net and its moving average it is the U-Net.
    ///
    /// # Errors
    /// As [`SingleFile::scheduler_config`]; a part is missing or has numbers that are not finite, a text
    /// encoder is not for OpenAI's tokenizer, or a file cannot be written.
    pub fn write_folder(
        &self,
        folder: &Path,
        prediction_type: Option<&str>,
        dtype: StoredType,
    ) -> Result<()> {
        let scheduler = self.scheduler_config(prediction_type)?;
        write_json(&folder.join(INDEX_FILE), &self.index())?;
        write_json(&make_folder(&folder.join("scheduler"))?.join("scheduler_config.json"), &scheduler)?;
        let has_two = self.kind.family == Family::Sdxl;
        let texts = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];
        for &(part, name) in &texts[..if has_two { 2 } else { 1 }] {
            let (tokenizer, config) = (self.tokenizer(name)?, self.config(part)?);
            let (ids, rows) = (tokenizer.vocab_size(), &config["vocab_size"]);
            if rows.as_u64() < Some(ids as u64) {
                return Err(self.bad(format!(
                    "{part} has {rows} tokens, and OpenAI's tokenizer {ids}: it is for another tokenizer, \
                     which no file has"
                )));
            }
            tokenizer.save(make_folder(&folder.join(name))?, &["input_ids", "attention_mask"])?;
            self.write_part(folder, part, "model", config, dtype)?;
        }
        for part in ["unet", "vae"] {
            self.write_part(folder, part, WEIGHTS, self.config(part)?, dtype)?;
        }
        Ok(())
    }

    fn write_part(
        &self,
        folder: &Path,
        part: &str,
        stem: &str,
        mut config: Value,
        dtype: StoredType,
    ) -> Result<()> {
        let (folder, weights) = (folder.join(part), self.weights(part)?);
        if part.starts_with("text") {
            config["dtype"] = dtype.hf_name().into();
        }
        write_json(&make_folder(&folder)?.join(CONFIG_FILE), &config)?;
        let tensors =
            weights.list().into_iter().map(|info| Ok((info.name.clone(), weights.tensor(&info.name)?)));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        Ok(write(&folder.join(format!("{stem}.safetensors")), &dtype.convert(tensors))?)
    }
}
