//! The config of the transformer, as in diffusers' folders.

use crate::{Error, Result};
use mm_core::hf::{check_layers, check_sizes, overlay};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// diffusers' name of the model.
const CLASS: &str = "SD3Transformer2DModel";

/// The normalization of queries and keys before their product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    /// By the root mean square of each head, as in Stable Diffusion 3.5.
    RmsNorm,
}

/// The sizes of an [`Sd3Transformer`](super::Sd3Transformer), named as in diffusers' `config.json`. Defaults
/// are diffusers'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sd3Config {
    /// Side of the square input that the positions are scaled to; other sizes are cut from the same table.
    pub sample_size: i64,
    /// Side of a patch.
    pub patch_size: i64,
    /// Channels of the input.
    pub in_channels: i64,
    /// Number of blocks.
    pub num_layers: i64,
    /// Width of a head.
    pub attention_head_dim: i64,
    /// Attention heads. Their number times their width is the width of both streams, a multiple of 4.
    pub num_attention_heads: i64,
    /// Width of the text states.
    pub joint_attention_dim: i64,
    /// Width that text states are projected to: that of both streams.
    pub caption_projection_dim: i64,
    /// Width of the pooled text vector.
    pub pooled_projection_dim: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Side of the table of positions, in patches: the most that an input may have.
    pub pos_embed_max_size: i64,
    /// Blocks, counted from 0, whose patches also attend to themselves alone.
    pub dual_attention_layers: Vec<i64>,
    /// The normalization of queries and keys, if any.
    pub qk_norm: Option<QkNorm>,
    /// Whether training computes the activations of blocks again in the backward pass: less memory, more
    /// time. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

impl Default for Sd3Config {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: 16,
            pos_embed_max_size: 96,
            dual_attention_layers: Vec::new(),
            qk_norm: None,
            gradient_checkpointing: false,
        }
    }
}

impl Sd3Config {
    /// Reads the `config.json` of diffusers. Absent fields have diffusers' defaults; null means as many
    /// `out_channels` as `in_channels`, and no `qk_norm`.
    ///
    /// # Errors
    /// The config of another model, a field of another type, or those of [`Sd3Config::validate`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        let invalid = |problem: String| Error::Model(format!("SD3 config: {problem}"));
        match &config["_class_name"] {
            Value::Null => {}
            name if name == CLASS => {}
            other => return Err(invalid(format!("_class_name is {other}, not {CLASS:?}"))),
        }
        if !matches!(config["qk_norm"].as_str(), None | Some("rms_norm")) {
            let given = &config["qk_norm"];
            return Err(invalid(format!("qk_norm is {given}: only null and \"rms_norm\" are offered")));
        }
        let mut read: Self = overlay(&Self::default(), config).map_err(|error| invalid(error.to_string()))?;
        let nulls = config.as_object().into_iter().flatten().filter(|(_, value)| value.is_null());
        for (name, _) in nulls {
            match name.as_str() {
                "out_channels" => read.out_channels = read.in_channels,
                "qk_norm" => {}
                name if read.to_hf().get(name).is_some() => return Err(invalid(format!("{name} is null"))),
                _ => {}
            }
        }
        read.validate()?;
        Ok(read)
    }

    /// The `config.json` of diffusers.
    pub fn to_hf(&self) -> Value {
        json!({
            "_class_name": CLASS,
            "sample_size": self.sample_size,
            "patch_size": self.patch_size,
            "in_channels": self.in_channels,
            "num_layers": self.num_layers,
            "attention_head_dim": self.attention_head_dim,
            "num_attention_heads": self.num_attention_heads,
            "joint_attention_dim": self.joint_attention_dim,
            "caption_projection_dim": self.caption_projection_dim,
            "pooled_projection_dim": self.pooled_projection_dim,
            "out_channels": self.out_channels,
            "pos_embed_max_size": self.pos_embed_max_size,
            "dual_attention_layers": self.dual_attention_layers,
            "qk_norm": self.qk_norm,
        })
    }

    /// Checks that a model can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        self.problem().map_err(|problem| Error::Model(format!("SD3 config: {problem}")))
    }

    fn problem(&self) -> std::result::Result<(), String> {
        check_sizes(&[
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("caption_projection_dim", self.caption_projection_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
            ("out_channels", self.out_channels),
            ("pos_embed_max_size", self.pos_embed_max_size),
        ])?;
        check_layers("num_layers", self.num_layers)?;
        let (patch, channels) = (self.patch_size, self.in_channels.max(self.out_channels));
        check_sizes(&[
            ("num_attention_heads times attention_head_dim", self.width()),
            ("pos_embed_max_size squared", self.pos_embed_max_size.pow(2)),
            ("patch_size squared", patch.pow(2)),
            ("the number of values in a patch", patch.pow(2).saturating_mul(channels)),
        ])?;
        let (width, caption) = (self.width(), self.caption_projection_dim);
        if width % 4 != 0 {
            return Err(format!(
                "{} heads of width {} are {width} wide: sines and cosines of rows and columns need a \
                 multiple of 4",
                self.num_attention_heads, self.attention_head_dim
            ));
        }
        if caption != width {
            return Err(format!(
                "caption_projection_dim is {caption}: it must be {width}, the width of {} heads of {}",
                self.num_attention_heads, self.attention_head_dim
            ));
        }
        if self.sample_size < patch {
            return Err(format!("sample_size {} is smaller than patch_size {patch}", self.sample_size));
        }
        let is_outside = |layer: &&i64| !(0..self.num_layers).contains(*layer);
        if let Some(layer) = self.dual_attention_layers.iter().find(is_outside) {
            return Err(format!(
                "dual_attention_layers has {layer}: num_layers is {}, counted from 0",
                self.num_layers
            ));
        }
        Ok(())
    }

    /// The width of both streams.
    pub fn width(&self) -> i64 {
        self.num_attention_heads * self.attention_head_dim
    }
}
