//! What a file is a checkpoint of, by the names and shapes of its tensors.

use std::collections::BTreeMap;

/// The shapes of tensors by name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

pub(super) const UNET: &str = "model.diffusion_model.";
pub(super) const UNET_EMA: &str = "model_ema.";
pub(super) const VAE: &str = "first_stage_model.";
pub(super) const CLIP_SD1: &str = "cond_stage_model.transformer.";
pub(super) const OPEN_CLIP_SD2: &str = "cond_stage_model.model.";
pub(super) const CLIP_SDXL: &str = "conditioner.embedders.0.transformer.";
pub(super) const OPEN_CLIP_SDXL: &str = "conditioner.embedders.1.model.";
const OPEN_CLIP_REFINER: &str = "conditioner.embedders.0.model.";

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// SD 1.1 to 1.5: CLIP ViT-L/14's text model.
    Sd1,
    /// SD 2.0 and 2.1: open_clip ViT-H/14's text model.
    Sd2,
    /// SDXL: both CLIP ViT-L/14's and open_clip ViT-bigG/14's.
    Sdxl,
}

impl Family {
    /// The activation of the (first) text encoder: OpenAI's CLIP has another than open_clip's.
    pub(super) fn activation(self) -> &'static str {
        if self == Self::Sd2 { "gelu" } else { "quick_gelu" }
    }
}

/// What the U-Net reads beside the noisy latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing: 4 channels.
    TextToImage,
    /// A mask and the masked image: 9 channels.
    Inpaint,
    /// The image to edit: 8 channels.
    InstructPix2Pix,
}

/// What a file is a checkpoint of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The family.
    pub family: Family,
    /// The inputs of the U-Net.
    pub variant: Variant,
}

impl Kind {
    pub(super) fn detect(shapes: &Shapes) -> Result<Self, String> {
        let has = |prefix: &str| shapes.keys().any(|name| name.starts_with(prefix));
        if !has(UNET) {
            return Err(match has("down_blocks.") || has("encoder.down_blocks.") {
                true => "it is one part of a diffusers folder: name the folder of the pipeline".to_owned(),
                false => format!("not a checkpoint of Stable Diffusion in one file: it has no {UNET}*"),
            });
        }
        if has(&format!("{UNET}joint_blocks.")) || has(&format!("{UNET}double_blocks.")) {
            return Err("it is of SD3 or Flux: only SD 1, SD 2 and SDXL are read from one file".to_owned());
        }
        let family = if has(OPEN_CLIP_SDXL) {
            Family::Sdxl
        } else if has(OPEN_CLIP_REFINER) {
            return Err("it is SDXL's refiner, which is not supported".to_owned());
        } else if has(OPEN_CLIP_SD2) {
            Family::Sd2
        } else if has(CLIP_SD1) {
            Family::Sd1
        } else {
            // A file with the U-Net alone: by the width of the text.
            match text_width(shapes) {
                Some(768) => Family::Sd1,
                Some(1024) => Family::Sd2,
                Some(2048) => Family::Sdxl,
                width => {
                    return Err(format!(
                        "it has no text encoder, and its U-Net reads texts of width {width:?}: SD 1 has 768, \
                         SD 2 1024, SDXL 2048"
                    ));
                }
            }
        };
        let conv_in = format!("{UNET}input_blocks.0.0.weight");
        let variant = match shapes.get(&conv_in).and_then(|shape| shape.get(1)) {
            Some(4) => Variant::TextToImage,
            Some(8) => Variant::InstructPix2Pix,
            Some(9) => Variant::Inpaint,
            Some(channels) => {
                return Err(format!("its U-Net has {channels} channels: 4, 8 or 9 are supported"));
            }
            None => return Err(format!("{conv_in} is missing")),
        };
        Ok(Self { family, variant })
    }
}

/// The width of the texts that the U-Net reads.
pub(super) fn text_width(shapes: &Shapes) -> Option<usize> {
    let is_key = |name: &str| name.starts_with(UNET) && name.ends_with(".attn2.to_k.weight");
    shapes.iter().find(|(name, _)| is_key(name)).and_then(|(_, shape)| shape.get(1).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(tensors: &[(&str, &[usize])]) -> Result<Kind, String> {
        Kind::detect(&tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect())
    }

    const IN: &str = "model.diffusion_model.input_blocks.0.0.weight";
    const KEY: &str = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight";

    #[test]
    fn the_text_encoders_or_the_width_of_the_text_give_the_family_and_channels_the_variant() {
        let kind = |family, variant| Ok(Kind { family, variant });
        let of = |channels, text, width| {
            detect(&[(IN, &[320, channels, 3, 3]), (text, &[8, 8]), (KEY, &[320, width])])
        };
        let sd1 = "cond_stage_model.transformer.text_model.final_layer_norm.weight";
        assert_eq!(of(4, sd1, 768), kind(Family::Sd1, Variant::TextToImage));
        assert_eq!(
            of(9, "cond_stage_model.model.ln_final.weight", 1024),
            kind(Family::Sd2, Variant::Inpaint)
        );
        assert_eq!(of(8, "x", 768), kind(Family::Sd1, Variant::InstructPix2Pix));
        assert_eq!(of(4, "x", 2048), kind(Family::Sdxl, Variant::TextToImage));
    }

    #[test]
    fn other_files_are_named() {
        let problem = |tensors: &[(&str, &[usize])]| detect(tensors).unwrap_err();
        assert!(problem(&[]).contains("not a checkpoint of Stable Diffusion"));
        assert!(problem(&[("down_blocks.0.x", &[1])]).contains("one part of a diffusers folder"));
        assert!(problem(&[("model.diffusion_model.joint_blocks.0.x", &[1])]).contains("SD3"));
        assert!(problem(&[(IN, &[320, 5, 3, 3]), (KEY, &[320, 1024])]).contains("5 channels"));
        assert!(problem(&[(IN, &[]), (KEY, &[320, 1024])]).contains("is missing"));
        assert!(problem(&[(IN, &[320, 4, 3, 3]), (KEY, &[320])]).contains("width None"));
        let refiner = [(IN, &[384, 4, 3, 3][..]), ("conditioner.embedders.0.model.ln_final.bias", &[8][..])];
        assert!(problem(&refiner).contains("refiner"));
    }
}
