//! The format of a model folder, and the model in it.

use crate::ClipConfig;
use mm_text::TextTowerConfig;
use mm_vision::ImageTowerConfig;
use serde::Serialize;

/// The format of the config and the weights in a model folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointFormat {
    /// transformers: `config.json`, `model.safetensors`.
    Hf,
    /// open_clip: `open_clip_config.json`, `open_clip_model.safetensors`.
    OpenClip,
    /// OpenAI's state dict alone: `model.safetensors`.
    Openai,
    /// This project's own, for pairs of towers that no other format holds: the files of transformers, with
    /// config and preprocessing of our own. It is read as [`CheckpointFormat::Hf`].
    Own,
    /// A checkpoint of a training run of this project: `config.json`, and `model.safetensors` or
    /// `ema.safetensors` with the names of the variables in memory.
    Checkpoint,
}

impl std::fmt::Display for CheckpointFormat {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(match self {
            Self::Hf => "transformers' format",
            Self::OpenClip => "open_clip's format",
            Self::Openai => "OpenAI's format",
            Self::Own => "this project's own format",
            Self::Checkpoint => "the format of a checkpoint",
        })
    }
}

/// The model in a folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Both towers.
    Clip(ClipConfig),
    /// An image tower alone.
    Image {
        /// The tower.
        tower: ImageTowerConfig,
        /// The width of the linear projection of its output.
        projection: Option<i64>,
    },
    /// A text tower alone.
    Text {
        /// The tower.
        tower: TextTowerConfig,
        /// The width of the linear projection of its output.
        projection: Option<i64>,
    },
}
