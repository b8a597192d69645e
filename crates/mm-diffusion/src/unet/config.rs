//! The config of diffusers' `UNet2DConditionModel`.

use crate::{Error, Result};
use mm_core::hf::{check_sizes, overlay};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The sizes of a U-Net, named as in diffusers. Defaults are diffusers'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UNetConfig {
    /// Side of the latents that the model is made for; others may be given.
    pub sample_size: i64,
    /// Channels of the input: 4, 9 for inpainting (with a mask and the masked image), 8 for InstructPix2Pix.
    pub in_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// The blocks on the way down: `CrossAttnDownBlock2D` or `DownBlock2D`.
    pub down_block_types: Vec<String>,
    /// The blocks on the way up: `CrossAttnUpBlock2D` or `UpBlock2D`.
    pub up_block_types: Vec<String>,
    /// Channels of each block on the way down.
    pub block_out_channels: Vec<i64>,
    /// ResNet blocks of a block on the way down; one more on the way up.
    pub layers_per_block: PerBlock,
    /// Heads of the attention, in spite of its name.
    pub attention_head_dim: PerBlock,
    /// Heads of the attention, where it is given.
    pub num_attention_heads: Option<PerBlock>,
    /// Width of the text's states.
    pub cross_attention_dim: PerBlock,
    /// Transformer blocks of each attention.
    pub transformer_layers_per_block: PerBlock,
    /// Whether the projections of a transformer are linear layers instead of 1 x 1 convolutions.
    pub use_linear_projection: bool,
    /// Groups of the group norms.
    pub norm_num_groups: i64,
    /// Epsilon of the group norms in ResNet blocks.
    pub norm_eps: f64,
    /// Whether cosines come first in the timestep's embedding.
    pub flip_sin_to_cos: bool,
    /// See the embedding of timesteps.
    pub freq_shift: f64,
    /// `text_time` for SDXL: a pooled text and sizes are added to the timestep's embedding.
    pub addition_embed_type: Option<String>,
    /// Width of the embedding of each size.
    pub addition_time_embed_dim: Option<i64>,
    /// Width of the pooled text and the embedded sizes.
    pub projection_class_embeddings_input_dim: Option<i64>,
    /// Width of the embedded guidance scale of a distilled model (Luo et al. 2023).
    pub time_cond_proj_dim: Option<i64>,
}

/// A number for all blocks, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same for all.
    All(i64),
    /// One for each block on the way down.
    Each(Vec<i64>),
}

impl PerBlock {
    /// The number of block `index`.
    pub(super) fn get(&self, index: usize) -> i64 {
        match self {
            Self::All(number) => *number,
            Self::Each(numbers) => numbers[index.min(numbers.len() - 1)],
        }
    }

    fn values(&self) -> &[i64] {
        match self {
            Self::All(number) => std::slice::from_ref(number),
            Self::Each(numbers) => numbers,
        }
    }
}

/// The widths of what SDXL adds to the timestep's embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedConditions {
    /// Width of the embedding of each of the six sizes.
    pub time_width: i64,
    /// Width of the pooled text and all embedded sizes.
    pub width: i64,
}

/// The name of a setting and its value.
type Setting = (&'static str, fn() -> Value);

/// Settings of diffusers that change the model, with the only value that is offered.
const FIXED: [Setting; 17] = [
    ("act_fn", || json!("silu")),
    ("attention_type", || json!("default")),
    ("center_input_sample", || json!(false)),
    ("class_embed_type", || Value::Null),
    ("class_embeddings_concat", || json!(false)),
    ("cross_attention_norm", || Value::Null),
    ("conv_in_kernel", || json!(3)),
    ("conv_out_kernel", || json!(3)),
    ("downsample_padding", || json!(1)),
    ("dual_cross_attention", || json!(false)),
    ("encoder_hid_dim_type", || Value::Null),
    ("mid_block_scale_factor", || json!(1)),
    ("mid_block_type", || json!("UNetMidBlock2DCrossAttn")),
    ("num_class_embeds", || Value::Null),
    ("only_cross_attention", || json!(false)),
    ("resnet_time_scale_shift", || json!("default")),
    ("time_embedding_type", || json!("positional")),
];

impl Default for UNetConfig {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Self {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            down_block_types: names([down, down, down, "DownBlock2D"]),
            up_block_types: names(["UpBlock2D", up, up, up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::All(2),
            attention_head_dim: PerBlock::All(8),
            num_attention_heads: None,
            cross_attention_dim: PerBlock::All(1280),
            transformer_layers_per_block: PerBlock::All(1),
            use_linear_projection: false,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_cond_proj_dim: None,
        }
    }
}

impl UNetConfig {
    /// Reads the `config.json` of a diffusers U-Net.
    ///
    /// # Errors
    /// A field has another type, a size is out of range, or a setting needs what is not offered.
    pub fn from_hf(config: &Value) -> Result<Self> {
        for (name, only) in FIXED {
            let (given, only) = (&config[name], only());
            let is_same =
                given.is_null() || *given == only || given.as_f64().is_some_and(|n| Some(n) == only.as_f64());
            if !is_same {
                return Err(Error::Model(format!("the U-Net's {name} is {given}: only {only} is offered")));
            }
        }
        let mut config = config.clone();
        // An old config may have a square's side as two numbers, and null where the default is meant.
        if let Some([Value::Number(side), _]) = config["sample_size"].as_array().map(Vec::as_slice) {
            config["sample_size"] = Value::Number(side.clone());
        }
        let config: Self = overlay(&Self::default(), &config)
            .map_err(|error| Error::Model(format!("config of a U-Net: {error}")))?;
        config.validate()?;
        Ok(config)
    }

    /// The `config.json` for diffusers.
    pub fn to_hf(&self) -> Value {
        let mut config = serde_json::to_value(self).unwrap_or_default();
        config["_class_name"] = json!("UNet2DConditionModel");
        for (name, value) in FIXED {
            config[name] = value();
        }
        config
    }

    /// Checks that a model can be built.
    ///
    /// # Errors
    /// Names the first field that does not fit, with its value.
    pub fn validate(&self) -> Result<()> {
        let wrong = |problem: String| Err(Error::Model(format!("config of a U-Net: {problem}")));
        let blocks = self.block_out_channels.len();
        if blocks == 0 || self.down_block_types.len() != blocks || self.up_block_types.len() != blocks {
            let (down, up) = (self.down_block_types.len(), self.up_block_types.len());
            return wrong(format!(
                "block_out_channels has {blocks} entries, down_block_types {down} and up_block_types {up}: \
                 they must have the same number"
            ));
        }
        for (kinds, known) in [
            (&self.down_block_types, ["CrossAttnDownBlock2D", "DownBlock2D"]),
            (&self.up_block_types, ["CrossAttnUpBlock2D", "UpBlock2D"]),
        ] {
            if let Some(unknown) = kinds.iter().find(|kind| !known.contains(&kind.as_str())) {
                return wrong(format!("block {unknown} is not offered: {} are", known.join(" and ")));
            }
        }
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        let per_block = [
            ("layers_per_block", &self.layers_per_block),
            ("attention_head_dim", heads),
            ("cross_attention_dim", &self.cross_attention_dim),
            ("transformer_layers_per_block", &self.transformer_layers_per_block),
        ];
        let mut sizes = vec![
            ("sample_size", self.sample_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("norm_num_groups", self.norm_num_groups),
            ("time_cond_proj_dim", self.time_cond_proj_dim.unwrap_or(1)),
        ];
        sizes.extend(self.block_out_channels.iter().map(|&channels| ("block_out_channels", channels)));
        for (name, numbers) in per_block {
            let values = numbers.values();
            if matches!(numbers, PerBlock::Each(_)) && values.len() != blocks {
                return wrong(format!("{name} has {} entries for {blocks} blocks", values.len()));
            }
            sizes.extend(values.iter().map(|&value| (name, value)));
        }
        check_sizes(&sizes).or_else(wrong)?;
        mm_core::hf::check_eps(self.norm_eps).or_else(wrong)?;
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            let (groups, heads) = (self.norm_num_groups, self.heads(index));
            if channels % groups != 0 || channels % heads != 0 || channels % 2 != 0 {
                return wrong(format!(
                    "{channels} channels are no multiple of {groups} groups and {heads} heads"
                ));
            }
        }
        match self.addition_embed_type.as_deref() {
            None => Ok(()),
            Some("text_time") if self.added().is_some() => Ok(()),
            Some("text_time") => wrong(
                "addition_embed_type text_time needs addition_time_embed_dim and \
                 projection_class_embeddings_input_dim above six times that"
                    .to_owned(),
            ),
            Some(other) => wrong(format!("addition_embed_type is {other}: only text_time is offered")),
        }
    }

    /// Heads of the attention in block `index`.
    pub(super) fn heads(&self, index: usize) -> i64 {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).get(index)
    }

    /// What is added to the timestep's embedding.
    pub fn added(&self) -> Option<AddedConditions> {
        self.addition_embed_type.as_ref()?;
        let time_width = self.addition_time_embed_dim?;
        let width = self.projection_class_embeddings_input_dim?;
        (time_width > 0 && width > 6 * time_width).then_some(AddedConditions { time_width, width })
    }

    /// Width of the text's states.
    pub fn context_width(&self) -> i64 {
        self.cross_attention_dim.get(0)
    }

    /// The factor by which the innermost block is smaller than the latents.
    pub fn reduction(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_back_as_it_is_written() {
        let config = UNetConfig {
            attention_head_dim: PerBlock::Each(vec![5, 10, 20, 20]),
            addition_embed_type: Some("text_time".to_owned()),
            addition_time_embed_dim: Some(8),
            projection_class_embeddings_input_dim: Some(80),
            ..UNetConfig::default()
        };
        assert_eq!(UNetConfig::from_hf(&config.to_hf()).unwrap(), config);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_value() {
        for (change, message) in [
            (json!({"class_embed_type": "timestep"}), "class_embed_type is \"timestep\""),
            (json!({"block_out_channels": [32, 64]}), "has 2 entries"),
            (json!({"block_out_channels": [33, 64, 64, 64]}), "33 channels"),
            (json!({"down_block_types": ["A", "DownBlock2D", "DownBlock2D", "DownBlock2D"]}), "block A"),
            (json!({"attention_head_dim": [8, 8]}), "attention_head_dim has 2 entries for 4"),
            (json!({"addition_embed_type": "image"}), "image"),
            (json!({"addition_embed_type": "text_time"}), "addition_time_embed_dim"),
            (json!({"layers_per_block": 0}), "layers_per_block is 0"),
        ] {
            let error = UNetConfig::from_hf(&change).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
