//! The configs of a file's parts, as diffusers and transformers write them.
//!
//! Sizes are those of the tensors. Heads, activations, groups of norms and the scale of the latents are not
//! in any shape: they are those of the published models.

use super::kind::{UNET, VAE, text_width};
use super::{Family, SingleFile, Variant};
use crate::{Error, Result};
use mm_core::checkpoint::Weights;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The width of an attention head, but for SD 1's U-Net.
pub(super) const HEAD: usize = 64;

/// The activation of SDXL's second text encoder.
pub(super) const SECOND_ACTIVATION: &str = "gelu";

/// SD 1's U-Net has this number of heads at every width.
const SD1_HEADS: usize = 8;

impl SingleFile {
    /// The config of the folder `unet`. The resolution of SD 2 is that of its 768-pixel models.
    ///
    /// # Errors
    /// Tensors that give a size are missing.
    pub fn unet_config(&self) -> Result<Value> {
        let names = self.unet_names();
        let step = names.layers_per_block + 1;
        let first = |block: usize| format!("{UNET}input_blocks.{}.", 1 + block * step);
        let has_attention =
            |block: usize| self.shapes.contains_key(&format!("{}1.norm.weight", first(block)));
        let mut channels = Vec::new();
        for block in 0..names.blocks {
            channels.push(self.size(&format!("{}0.out_layers.3.weight", first(block)), 0)?);
        }
        let attention: Vec<bool> = (0..names.blocks).map(has_attention).collect();
        let types =
            |plain: &str, with_attention: &str, attention: &mut dyn Iterator<Item = &bool>| -> Vec<String> {
                attention.map(|&has| if has { with_attention } else { plain }.to_owned()).collect()
            };
        let depths: Vec<usize> = (0..names.blocks)
            .map(|block| self.numbers(&format!("{}1.transformer_blocks.", first(block))).max(1))
            .collect();
        let depths = if depths.iter().all(|&depth| depth == 1) { json!(1) } else { json!(depths) };
        let family = self.kind.family;
        let heads = match family {
            Family::Sd1 => json!(SD1_HEADS),
            Family::Sd2 | Family::Sdxl => {
                json!(channels.iter().map(|channels| (channels / HEAD).max(1)).collect::<Vec<_>>())
            }
        };
        let proj_in = format!("{UNET}middle_block.1.proj_in.weight");
        let text_width = text_width(&self.shapes).ok_or_else(|| self.bad("no attention reads a text"))?;
        let mut config = json!({
            "_class_name": "UNet2DConditionModel",
            "sample_size": match family { Family::Sd1 => 64, Family::Sd2 => 96, Family::Sdxl => 128 },
            "in_channels": self.size(&format!("{UNET}input_blocks.0.0.weight"), 1)?,
            "out_channels": self.size(&format!("{UNET}out.2.weight"), 0)?,
            "center_input_sample": false,
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "down_block_types": types("DownBlock2D", "CrossAttnDownBlock2D", &mut attention.iter()),
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "up_block_types": types("UpBlock2D", "CrossAttnUpBlock2D", &mut attention.iter().rev()),
            "only_cross_attention": false,
            "block_out_channels": channels,
            "layers_per_block": names.layers_per_block,
            "downsample_padding": 1,
            "mid_block_scale_factor": 1,
            "act_fn": "silu",
            "norm_num_groups": 32,
            "norm_eps": 1e-5,
            "cross_attention_dim": text_width,
            "transformer_layers_per_block": depths,
            "attention_head_dim": heads,
            "use_linear_projection": self.shapes.get(&proj_in).is_some_and(|shape| shape.len() == 2),
        });
        if family == Family::Sdxl {
            config["addition_embed_type"] = json!("text_time");
            config["addition_time_embed_dim"] = json!(256);
            let width = self.size(&format!("{UNET}label_emb.0.0.weight"), 1)?;
            config["projection_class_embeddings_input_dim"] = json!(width);
        }
        Ok(config)
    }

    /// The config of the folder `vae`.
    ///
    /// # Errors
    /// As [`SingleFile::unet_config`].
    pub fn vae_config(&self) -> Result<Value> {
        let names = self.vae_names();
        let mut channels = Vec::new();
        for block in 0..names.blocks {
            channels.push(self.size(&format!("{VAE}encoder.down.{block}.block.0.conv1.weight"), 0)?);
        }
        let family = self.kind.family;
        let is_sdxl = family == Family::Sdxl;
        Ok(json!({
            "_class_name": "AutoencoderKL",
            "in_channels": self.size(&format!("{VAE}encoder.conv_in.weight"), 1)?,
            "out_channels": self.size(&format!("{VAE}decoder.conv_out.weight"), 0)?,
            "latent_channels": self.size(&format!("{VAE}decoder.conv_in.weight"), 1)?,
            "block_out_channels": channels,
            "down_block_types": vec!["DownEncoderBlock2D"; names.blocks],
            "up_block_types": vec!["UpDecoderBlock2D"; names.blocks],
            "layers_per_block": names.layers_per_block,
            "act_fn": "silu",
            "norm_num_groups": 32,
            "sample_size": match family { Family::Sd1 => 512, Family::Sd2 => 768, Family::Sdxl => 1024 },
            "scaling_factor": if is_sdxl { 0.13025 } else { 0.18215 },
            "force_upcast": is_sdxl,
        }))
    }

    /// The config of the folder `text_encoder`.
    ///
    /// # Errors
    /// As [`SingleFile::text_encoder`].
    pub fn text_encoder_config(&self) -> Result<Value> {
        let act = self.kind.family.activation();
        text_config(&self.text_encoder()?, "CLIPTextModel", act).map_err(|problem| self.bad(problem))
    }

    /// The config of the folder `text_encoder_2`.
    ///
    /// # Errors
    /// As [`SingleFile::text_encoder_2`].
    pub fn text_encoder_2_config(&self) -> Result<Value> {
        let weights = self.text_encoder_2()?;
        text_config(&weights, "CLIPTextModelWithProjection", SECOND_ACTIVATION)
            .map_err(|problem| self.bad(problem))
    }

    /// The config of the folder `scheduler`, with `prediction_type` "epsilon" or "v_prediction". SD 1 and
    /// SDXL predict the noise unless it is given; SD 2 comes in both kinds, whose weights look the same.
    ///
    /// # Errors
    /// `prediction_type` is another, or is missing for SD 2.
    pub fn scheduler_config(&self, prediction_type: Option<&str>) -> Result<Value> {
        let (family, ask) = (self.kind.family, "epsilon (512-base) or v_prediction (768)");
        let prediction_type = match prediction_type {
            Some(given @ ("epsilon" | "v_prediction")) => given,
            Some(given) => return Err(Error::Scheduler(format!("prediction_type {given:?}: it is {ask}"))),
            None if family == Family::Sd2 => {
                let say = format!("say {ask}, as mm convert does by --prediction");
                return Err(self.bad(format!("the weights of SD 2 do not show what they predict: {say}")));
            }
            None => "epsilon",
        };
        Ok(json!({
            "_class_name": self.scheduler_class(),
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": false,
            "set_alpha_to_one": false,
            "skip_prk_steps": true,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "prediction_type": prediction_type,
        }))
    }

    /// The class of diffusers' scheduler.
    pub(super) fn scheduler_class(&self) -> &'static str {
        match self.kind.family {
            Family::Sd1 => "PNDMScheduler",
            Family::Sd2 => "DDIMScheduler",
            Family::Sdxl => "EulerDiscreteScheduler",
        }
    }

    /// The class of diffusers' pipeline.
    pub fn pipeline_class(&self) -> &'static str {
        match (self.kind.family, self.kind.variant) {
            (Family::Sdxl, Variant::TextToImage) => "StableDiffusionXLPipeline",
            (Family::Sdxl, Variant::Inpaint) => "StableDiffusionXLInpaintPipeline",
            (Family::Sdxl, Variant::InstructPix2Pix) => "StableDiffusionXLInstructPix2PixPipeline",
            (_, Variant::TextToImage) => "StableDiffusionPipeline",
            (_, Variant::Inpaint) => "StableDiffusionInpaintPipeline",
            (_, Variant::InstructPix2Pix) => "StableDiffusionInstructPix2PixPipeline",
        }
    }

    /// Size `dim` of the tensor `name`.
    fn size(&self, name: &str, dim: usize) -> Result<usize> {
        let size = self.shapes.get(name).and_then(|shape| shape.get(dim));
        size.copied().ok_or_else(|| self.bad(format!("{name} is missing or has no size {dim}")))
    }

    /// The number of different numbers that follow `prefix`.
    fn numbers(&self, prefix: &str) -> usize {
        self.below(prefix).filter_map(|rest| rest.split('.').next()).collect::<BTreeSet<_>>().len()
    }
}

/// The config of transformers' text model with `weights`.
fn text_config(weights: &Weights, class: &str, act: &str) -> Result<Value, String> {
    let size = |name: &str, dim: usize| {
        let size = weights.shape(name).and_then(|shape| shape.get(dim)).copied();
        size.ok_or_else(|| format!("the text encoder has no {name}"))
    };
    let layers: BTreeSet<String> = weights
        .list()
        .iter()
        .filter_map(|tensor| {
            tensor.name.strip_prefix("text_model.encoder.layers.")?.split('.').next().map(str::to_owned)
        })
        .collect();
    let width = size("text_model.embeddings.token_embedding.weight", 1)?;
    Ok(json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": size("text_model.embeddings.token_embedding.weight", 0)?,
        "hidden_size": width,
        "intermediate_size": size("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "projection_dim": size("text_projection.weight", 0).unwrap_or(width),
        "num_hidden_layers": layers.len(),
        "num_attention_heads": (width / HEAD).max(1),
        "max_position_embeddings": size("text_model.embeddings.position_embedding.weight", 0)?,
        "hidden_act": act,
        "layer_norm_eps": 1e-5,
        // The published configs have these, though the tokenizers' are others: 2 means the largest id.
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }))
}
