//! The architecture of a CLIP.

use crate::TextProjection;
use mm_text::TextTowerConfig;
use mm_vision::ImageTowerConfig;
use serde::{Deserialize, Serialize};

/// A CLIP: any image tower and any text tower with outputs in one space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// Width of the shared space.
    pub embed_dim: i64,
    /// The contrastive loss.
    #[serde(default)]
    pub loss: ContrastiveLoss,
    /// The image tower.
    pub image: ImageTowerConfig,
    /// The text tower.
    pub text: TextTowerConfig,
    /// Whether a linear layer projects the image tower's output to the shared space; false: the output is in
    /// the shared space, as it always is for SigLIP and the modified ResNet.
    #[serde(default = "yes")]
    pub image_projection: bool,
    /// The same for the text tower.
    #[serde(default = "yes")]
    pub text_projection: bool,
    /// The hidden width of a text projection of two layers; see [`TextProjection::hidden_size`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_projection_hidden_size: Option<i64>,
}

fn yes() -> bool {
    true
}

impl ClipConfig {
    /// Two towers with CLIP's loss, projected where they do not end in the shared space themselves.
    pub fn new(embed_dim: i64, image: ImageTowerConfig, text: TextTowerConfig) -> Self {
        let loss = ContrastiveLoss::InfoNce;
        Self {
            embed_dim,
            loss,
            image,
            text,
            image_projection: true,
            text_projection: true,
            text_projection_hidden_size: None,
        }
    }

    /// Whether training computes the activations inside of the towers' transformer blocks again in the
    /// backward pass: less memory, more time, the same gradients.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.image.set_gradient_checkpointing(on);
        self.text.set_gradient_checkpointing(on);
    }

    /// The width that the image tower's output is projected to, if it is.
    pub fn image_projection_to(&self) -> Option<i64> {
        (self.image_projection && !self.image.ends_in_shared_space()).then_some(self.embed_dim)
    }

    /// The projection of the text tower's output to the shared space, if there is one.
    pub fn text_projection_to(&self) -> Option<TextProjection> {
        (self.text_projection && !self.text.ends_in_shared_space()).then_some(TextProjection {
            hidden_size: self.text_projection_hidden_size,
            output_size: self.embed_dim,
        })
    }
}

/// The contrastive losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastiveLoss {
    /// Which text belongs to this image, and the reverse (Radford et al. 2021).
    #[default]
    InfoNce,
    /// Do this image and this text belong together (Zhai et al. 2023).
    Siglip,
}
