//! Writing of a diffusers folder.

use super::{Denoiser, DiffusionPipeline, Family, INDEX_FILE, LATENT_CLASS, PIXEL_CLASS, WEIGHTS};
use crate::sd3::Sd3Transformer;
use crate::unet::UNet;
use crate::vae::Vae;
use crate::{Error, Result};
use mm_core::checkpoint::{TensorLayout, stored, write};
use mm_core::hf::CONFIG_FILE;
use mm_core::write_json;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tch::Tensor;

impl DiffusionPipeline {
    /// Writes everything but weights into the existing folder `folder`: index, configs, tokenizers and
    /// scheduler.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_description(&self, folder: &Path) -> Result<()> {
        let (part, _) = self.family.denoiser();
        write_json(&folder.join(INDEX_FILE), &self.index())?;
        let config = match &self.denoiser {
            Denoiser::UNet(unet) => unet.config().to_hf(),
            Denoiser::Transformer(transformer) => transformer.config().to_hf(),
        };
        write_json(&make_folder(&folder.join(part))?.join(CONFIG_FILE), &config)?;
        if let Some(vae) = &self.vae {
            write_json(&make_folder(&folder.join("vae"))?.join(CONFIG_FILE), &vae.config().to_hf())?;
        }
        let scheduler = make_folder(&folder.join("scheduler"))?.join("scheduler_config.json");
        write_json(&scheduler, &self.scheduler.to_json())?;
        for (part, tokenizer, encoder) in self.text_parts() {
            let (bos, pad) = (encoder.tokenizer.bos_id(), encoder.tokenizer.pad_id());
            let mut config = encoder.config.to_hf(bos, pad);
            let class =
                if encoder.projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
            config["architectures"] = json!([class]);
            if let Some(width) = encoder.projection_dim {
                config["projection_dim"] = json!(width);
            }
            write_json(&make_folder(&folder.join(part))?.join(CONFIG_FILE), &config)?;
            encoder
                .tokenizer
                .save(make_folder(&folder.join(tokenizer))?, &["input_ids", "attention_mask"])?;
        }
        Ok(())
    }

    /// Writes the whole pipeline into the existing folder `folder`, with the weights `variables`, each under
    /// the name of its part.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path) -> Result<()> {
        self.save_description(folder)?;
        let (part, _) = self.family.denoiser();
        let layout = match &self.denoiser {
            Denoiser::UNet(_) => UNet::LAYOUT,
            Denoiser::Transformer(_) => Sd3Transformer::LAYOUT,
        };
        let mut parts = vec![(part, WEIGHTS, layout)];
        parts.extend(self.vae.is_some().then_some(("vae", WEIGHTS, Vae::LAYOUT)));
        parts.extend(self.text_parts().map(|(part, ..)| (part, "model", TensorLayout::HF)));
        for (part, stem, layout) in parts {
            let own = variables.iter().filter_map(|(name, tensor)| {
                let name = name.strip_prefix(part)?.strip_prefix('.')?;
                Some((name.to_owned(), tensor.shallow_clone()))
            });
            write(&folder.join(part).join(format!("{stem}.safetensors")), &stored(own, &layout))?;
        }
        Ok(())
    }

    fn text_parts(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, &crate::text::ClipTextEncoder)> {
        let second = self.text.second.as_ref().map(|encoder| ("text_encoder_2", "tokenizer_2", encoder));
        [("text_encoder", "tokenizer", &self.text.first)].into_iter().chain(second)
    }

    fn index(&self) -> Value {
        let class = match self.family {
            Family::Sd => "StableDiffusionPipeline",
            Family::Pix2Pix => "StableDiffusionInstructPix2PixPipeline",
            Family::Sdxl => "StableDiffusionXLPipeline",
            Family::Sd3 => "StableDiffusion3Pipeline",
            Family::Pixel if self.vae.is_some() => LATENT_CLASS,
            Family::Pixel => PIXEL_CLASS,
        };
        let denoiser = match &self.denoiser {
            Denoiser::UNet(_) => "UNet2DConditionModel",
            Denoiser::Transformer(_) => "SD3Transformer2DModel",
        };
        let mut index = json!({
            "_class_name": class,
            "scheduler": ["diffusers", self.scheduler.kind().class_name()],
            self.family.denoiser().0: ["diffusers", denoiser],
        });
        for (part, tokenizer, encoder) in self.text_parts() {
            let class =
                if encoder.projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
            index[part] = json!(["transformers", class]);
            index[tokenizer] = json!(["transformers", "CLIPTokenizer"]);
        }
        if self.vae.is_some() {
            index["vae"] = json!(["diffusers", "AutoencoderKL"]);
        }
        match self.family {
            Family::Pixel => index["prediction"] = json!(self.prediction),
            Family::Sd | Family::Pix2Pix => {
                for part in ["safety_checker", "feature_extractor"] {
                    index[part] = json!([null, null]);
                }
            }
            Family::Sd3 => {
                for part in ["text_encoder_3", "tokenizer_3"] {
                    index[part] = json!([null, null]);
                }
            }
            Family::Sdxl => {}
        }
        index
    }
}

/// Makes the folder `folder`.
pub(crate) fn make_folder(folder: &Path) -> Result<&Path> {
    fs::create_dir_all(folder).map_err(|source| Error::from(mm_core::Error::io("make", folder, source)))?;
    Ok(folder)
}
