//! The config of vision transformers.

use crate::ImageProcessor;
use crate::error::{Error, Result};
use crate::position_table::PositionTable;
use crate::tower::{ImageTower, ImageTowerSpec, TokenGrid};
use crate::vit::Vit;
use mm_core::hf::{check_eps, check_heads, check_layers, check_sizes};
use mm_core::nn::{Activation, TowerSpec, transformer_depth};
use serde::{Deserialize, Serialize};
use tch::nn::Path;

/// The family of a ViT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitVariant {
    /// A class token, a layer norm before the encoder, no bias in the patch embedding; the pooled output is
    /// the normalized class token (Radford et al. 2021, section 2.4).
    #[default]
    Clip,
    /// No class token; all tokens are normalized and pooled by a learned query with attention and an MLP
    /// (Zhai et al. 2022, section 3.4; Zhai et al. 2023).
    Siglip,
    /// The original ViT (Dosovitskiy et al. 2021): a class token and a bias in the patch embedding; the
    /// pooled output is the normalized class token, through the `pooler` if there is one.
    Vit,
    /// BLIP's (Li et al. 2022, section 3.1): the original ViT under other names; the pooled output is the
    /// normalized class token, normalized again.
    Blip,
}

impl VitVariant {
    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Siglip => "siglip",
            Self::Vit => "vit",
            Self::Blip => "blip",
        }
    }
}

/// The sizes of a [`Vit`](crate::Vit), with the field names of Hugging Face's `vision_config`. The defaults
/// are CLIP's ViT-B/32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VitConfig {
    /// The family.
    #[serde(alias = "form")]
    pub variant: VitVariant,
    /// Width of the residual stream and of the pooled output.
    pub hidden_size: i64,
    /// Width between the two linear layers of an MLP.
    pub intermediate_size: i64,
    /// Transformer blocks.
    pub num_hidden_layers: i64,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// Side of the square input, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels. Pixels right of and below the last full patch are ignored.
    pub patch_size: i64,
    /// The MLPs' activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Share of the patches dropped at random in training (FLIP, Li et al. 2023), as in open_clip; 0 for
    /// none.
    pub patch_dropout: f64,
    /// Whether the tower ends in a linear layer and tanh; only with [`VitVariant::Vit`].
    pub pooler: bool,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`](mm_core::nn::BlockConfig::gradient_checkpointing). It is not
    /// stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            variant: VitVariant::Clip,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            patch_dropout: 0.0,
            pooler: false,
            gradient_checkpointing: false,
        }
    }
}

impl VitConfig {
    /// Checks that a tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ])
        .and_then(|()| check_layers("num_hidden_layers", self.num_hidden_layers))
        .and_then(|()| check_heads(self.hidden_size, self.num_attention_heads))
        .and_then(|()| check_eps(self.layer_norm_eps))
        .map_err(Error::Config)?;
        let wrong = |text: String| Err(Error::Config(text));
        if self.patch_size > self.image_size {
            let (patch, image) = (self.patch_size, self.image_size);
            return wrong(format!(
                "patch_size {patch} is larger than image_size {image}: there would be no patch"
            ));
        }
        if !(0.0..1.0).contains(&self.patch_dropout) {
            return wrong(format!(
                "patch_dropout is {}: it must be at least 0 and below 1",
                self.patch_dropout
            ));
        }
        if self.pooler && self.variant != VitVariant::Vit {
            return wrong("pooler is true: only a tower of variant = \"vit\" has one".to_owned());
        }
        Ok(())
    }

    /// Patches along a side of the image.
    pub fn patch_grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Tokens before the patches.
    pub(crate) fn class_tokens(&self) -> i64 {
        match self.variant {
            VitVariant::Clip | VitVariant::Vit | VitVariant::Blip => 1,
            VitVariant::Siglip => 0,
        }
    }
}

impl TowerSpec for VitConfig {
    fn describe(&self) -> String {
        format!(
            "ViT ({}): {} blocks, width {}, {} heads, MLP {} ({}); {} px in patches of {}",
            self.variant.name(),
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
            self.intermediate_size,
            self.hidden_act.name(),
            self.image_size,
            self.patch_size
        )
    }

    fn blocks(&self) -> usize {
        self.num_hidden_layers as usize
    }

    fn depth(&self, name: &str) -> usize {
        let layers = match self.variant {
            VitVariant::Clip | VitVariant::Siglip | VitVariant::Blip => "encoder.layers",
            VitVariant::Vit => "encoder.layer",
        };
        transformer_depth(name, layers, self.blocks(), &["embeddings.", "pre_layrnorm."])
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        let embeddings = [
            "embeddings.class_embedding",
            "embeddings.cls_token",
            "embeddings.position_embedding",
            "embeddings.position_embedding.weight",
            "embeddings.position_embeddings",
            "head.probe",
        ];
        !embeddings.contains(&name)
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl ImageTowerSpec for VitConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn ImageTower>> {
        Ok(Box::new(Vit::new(path, self.clone())?))
    }

    fn validate(&self) -> Result<()> {
        self.validate()
    }

    fn image_size(&self) -> i64 {
        self.image_size
    }

    fn set_image_size(&mut self, size: i64) {
        self.image_size = size;
    }

    fn token_grid(&self) -> TokenGrid {
        TokenGrid { extra_tokens: self.class_tokens(), side: self.patch_grid() }
    }

    fn position_table(&self) -> Option<PositionTable> {
        let name = match self.variant {
            VitVariant::Clip | VitVariant::Siglip => "embeddings.position_embedding.weight",
            VitVariant::Vit => "embeddings.position_embeddings",
            VitVariant::Blip => "embeddings.position_embedding",
        };
        Some(PositionTable { name, extra_tokens: self.class_tokens(), grid: self.patch_grid() })
    }

    fn ends_in_shared_space(&self) -> bool {
        self.variant == VitVariant::Siglip
    }

    fn default_processor(&self) -> ImageProcessor {
        let size = self.image_size as u32;
        match self.variant {
            VitVariant::Siglip => ImageProcessor::default_siglip(size),
            VitVariant::Clip | VitVariant::Vit => ImageProcessor::default_clip(size),
            VitVariant::Blip => ImageProcessor::default_blip(size),
        }
    }

    fn processor_class(&self) -> &'static str {
        match self.variant {
            VitVariant::Clip => "CLIPImageProcessor",
            VitVariant::Siglip => "SiglipImageProcessor",
            VitVariant::Vit => "ViTImageProcessor",
            VitVariant::Blip => "BlipImageProcessor",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_errors_name_the_field_and_its_value() {
        let message = |config: VitConfig| config.validate().unwrap_err().to_string();
        let heads = VitConfig { num_attention_heads: 7, ..Default::default() };
        assert!(message(heads).contains("hidden_size 768 is no multiple of num_attention_heads 7"));
        assert!(message(VitConfig { patch_size: 225, ..Default::default() }).contains("patch_size 225"));
        assert!(
            message(VitConfig { num_hidden_layers: -1, ..Default::default() })
                .contains("num_hidden_layers is -1")
        );
        assert!(
            message(VitConfig { num_attention_heads: 0, ..Default::default() })
                .contains("num_attention_heads is 0")
        );
        assert!(message(VitConfig { layer_norm_eps: f64::NAN, ..Default::default() }).contains("NaN"));
        assert!(
            message(VitConfig { patch_dropout: 1.0, ..Default::default() }).contains("patch_dropout is 1")
        );
        assert!(message(VitConfig { pooler: true, ..Default::default() }).contains("pooler is true"));
    }

    #[test]
    fn the_variant_is_also_read_under_its_old_key() {
        for key in ["variant", "form"] {
            let config: VitConfig = toml::from_str(&format!("{key} = \"siglip\"")).unwrap();
            assert_eq!(config.variant, VitVariant::Siglip);
            assert!(toml::to_string(&config).unwrap().contains("variant = \"siglip\""));
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = toml::from_str::<VitConfig>("hidden_sise = 64").unwrap_err().to_string();
        assert!(error.contains("hidden_sise"), "{error}");
    }
}
