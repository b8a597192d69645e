//! `[model]` of a CLIP run.

use crate::ContrastiveLoss;
use mm_core::config::{ConfigError, ConfigFile};
use mm_text::TextTowerConfig;
use mm_vision::ImageTowerConfig;
use serde::{Deserialize, Serialize};

/// `[model]`: a new model, one `from` a checkpoint, or a tower of each kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The checkpoint to start from: a folder or a hub name, with towers, tokenizer and preprocessing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Side of the images in pixels, if it differs from the checkpoint's: position embeddings are resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<i64>,
    /// Width of the shared space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_dim: Option<i64>,
    /// The contrastive loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<ContrastiveLoss>,
    /// The checkpoint that the image tower comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_from: Option<String>,
    /// The checkpoint that the text tower and its tokenizer come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_from: Option<String>,
    /// Whether a linear layer projects the image tower's output to the shared space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_projection: Option<bool>,
    /// Whether a linear layer projects the text tower's output to the shared space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_projection: Option<bool>,
    /// Freezes the image tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_image: Option<Lock>,
    /// Freezes the text tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_text: Option<Lock>,
    /// The image tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageTowerConfig>,
    /// The text tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextTowerConfig>,
}

/// A frozen tower (LiT, Zhai et al. 2022), which runs as in inference: no dropped patches, no batch
/// statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lock {
    /// The number of its last layer groups that train. Groups are, as in open_clip: the embeddings; each
    /// block but the last; the last block with the norm and head after it; the projection to the shared
    /// space.
    pub unlocked_groups: usize,
}

impl Lock {
    /// Whether all of the tower is frozen, and at most the projection after it trains.
    pub(crate) fn holds_tower(self) -> bool {
        self.unlocked_groups <= 1
    }
}

impl ModelConfig {
    /// Checks the combination of keys, and each tower that is written out.
    ///
    /// # Errors
    /// A key is missing, or does not go with another; the error names it with its line in `source`.
    pub(crate) fn validate(&self, source: &ConfigFile) -> std::result::Result<(), ConfigError> {
        let error = |key: &str, problem: String| {
            Err(source.error(&format!("model.{key}"), format!("`model.{key}`: {problem}")))
        };
        let written = [
            ("embed_dim", self.embed_dim.is_some()),
            ("loss", self.loss.is_some()),
            ("image_from", self.image_from.is_some()),
            ("text_from", self.text_from.is_some()),
            ("image_projection", self.image_projection.is_some()),
            ("text_projection", self.text_projection.is_some()),
            ("image", self.image.is_some()),
            ("text", self.text.is_some()),
        ];
        if self.from.is_some() {
            return match written.iter().find(|(_, is_written)| *is_written) {
                Some((key, _)) => {
                    error(key, "the checkpoint that `model.from` names has it already".to_owned())
                }
                None => Ok(()),
            };
        }
        match self.embed_dim {
            None => return error("embed_dim", "missing".to_owned()),
            Some(width) if width <= 0 => {
                return error("embed_dim", format!("must be at least 1, is {width}"));
            }
            Some(_) => {}
        }
        for (tower, from, own) in
            [("image", written[2].1, written[6].1), ("text", written[3].1, written[7].1)]
        {
            if from == own {
                let problem =
                    if own { "is written out and taken from a checkpoint: keep one" } else { "missing" };
                return error(tower, format!("{problem} (`[model.{tower}]` or `model.{tower}_from`)"));
            }
        }
        if self.resolution.is_some() && self.image_from.is_none() {
            return error("resolution", "is for checkpoints; set `model.image.image_size`".to_owned());
        }
        if let Some(image) = &self.image {
            image.validate().map_err(|error| source.error("model.image", error.to_string()))?;
        }
        if let Some(text) = &self.text {
            text.validate().map_err(|error| source.error("model.text", error.to_string()))?;
        }
        Ok(())
    }
}
