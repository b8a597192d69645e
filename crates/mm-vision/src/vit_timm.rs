//! timm's names of vision transformers, which stand for their sizes.

use crate::error::{Error, Result};
use crate::vit_config::{VitConfig, VitVariant};
use mm_core::nn::Activation;

/// The offered models of timm: those of Dosovitskiy et al. 2021, and the small one of timm's own tests. All
/// have a class token, biases and one norm after the blocks. Every other name stands for another
/// architecture.
const NAMES: [&str; 18] = [
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "vit_small_patch8_224",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch32_384",
    "vit_base_patch8_224",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch32_224",
    "vit_base_patch32_384",
    "vit_large_patch14_224",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "vit_large_patch32_224",
    "vit_large_patch32_384",
    TEST_VIT,
];

/// The ViT of timm's own tests.
const TEST_VIT: &str = "test_vit";

/// The size in a name, with the width and the number of blocks. Heads are 64 wide, and the MLP is four times
/// as wide as the blocks.
const SIZES: [(&str, i64, i64); 4] =
    [("tiny", 192, 12), ("small", 384, 12), ("base", 768, 12), ("large", 1024, 24)];

impl VitConfig {
    /// The ViT that timm creates for `name`, e.g. `vit_base_patch16_224`; the tag of a set of weights
    /// (`.augreg_in21k`) is ignored.
    ///
    /// # Errors
    /// The name is none of the offered ones, which the error lists.
    pub fn from_timm(name: &str) -> Result<Self> {
        let name = name.split('.').next().unwrap_or_default();
        let vit = match name {
            TEST_VIT => Some(test_vit()),
            _ if NAMES.contains(&name) => sized(name),
            _ => None,
        };
        vit.ok_or_else(|| Error::Config(format!("{name} of timm is not offered: {} are", NAMES.join(", "))))
    }

    /// timm's name of this ViT, if it has one.
    pub fn timm_name(&self) -> Option<&'static str> {
        NAMES.into_iter().find(|name| {
            // Settings of training are not in a name.
            let (patch_dropout, gradient_checkpointing) = (self.patch_dropout, self.gradient_checkpointing);
            Self::from_timm(name)
                .is_ok_and(|named| Self { patch_dropout, gradient_checkpointing, ..named } == *self)
        })
    }
}

/// The ViT of a name `vit_SIZE_patchP_S`.
fn sized(name: &str) -> Option<VitConfig> {
    let mut parts = name.strip_prefix("vit_")?.split('_');
    let (size, patch, image) = (parts.next()?, parts.next()?, parts.next()?);
    let (_, width, blocks) = SIZES.into_iter().find(|(name, ..)| *name == size)?;
    Some(VitConfig {
        hidden_size: width,
        intermediate_size: 4 * width,
        num_hidden_layers: blocks,
        num_attention_heads: width / 64,
        image_size: image.parse().ok()?,
        patch_size: patch.strip_prefix("patch")?.parse().ok()?,
        ..timm_defaults()
    })
}

fn test_vit() -> VitConfig {
    VitConfig {
        hidden_size: 64,
        intermediate_size: 192,
        num_hidden_layers: 6,
        num_attention_heads: 2,
        image_size: 160,
        patch_size: 16,
        ..timm_defaults()
    }
}

fn timm_defaults() -> VitConfig {
    VitConfig {
        variant: VitVariant::Vit,
        hidden_act: Activation::Gelu,
        layer_norm_eps: 1e-6,
        ..VitConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_sizes_of_timm_and_the_sizes_give_the_name() {
        for (name, sizes) in [
            ("vit_tiny_patch16_224", (192, 768, 12, 3, 224, 16)),
            ("vit_base_patch32_384", (768, 3072, 12, 12, 384, 32)),
            ("vit_large_patch14_224", (1024, 4096, 24, 16, 224, 14)),
            ("test_vit", (64, 192, 6, 2, 160, 16)),
        ] {
            let vit = VitConfig::from_timm(&format!("{name}.augreg_in1k")).unwrap();
            let found = (
                vit.hidden_size,
                vit.intermediate_size,
                vit.num_hidden_layers,
                vit.num_attention_heads,
                vit.image_size,
                vit.patch_size,
            );
            assert_eq!(found, sizes, "{name}");
        }
        for name in NAMES {
            let vit = VitConfig::from_timm(name).unwrap();
            assert_eq!(VitConfig { patch_dropout: 0.5, ..vit }.timm_name(), Some(name));
        }
        assert_eq!(VitConfig::default().timm_name(), None);
    }

    #[test]
    fn another_vit_of_timm_is_refused_with_those_offered() {
        for name in
            ["vit_base_patch16_siglip_224", "vit_base_patch16_256", "vit_huge_patch14_224", "swin_tiny"]
        {
            let message = VitConfig::from_timm(name).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("vit_base_patch16_224"), "{message}");
        }
    }
}
