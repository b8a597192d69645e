//! The config of diffusers' `AutoencoderKL`.

use crate::{Error, Result};
use mm_core::hf::{check_sizes, overlay};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The sizes of an autoencoder, named as in diffusers. Defaults are diffusers'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeConfig {
    /// Channels of the input.
    pub in_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Channels of each block of the encoder; each but the last halves the side.
    pub block_out_channels: Vec<i64>,
    /// ResNet blocks of a block of the encoder; one more in the decoder.
    pub layers_per_block: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Groups of the group norms.
    pub norm_num_groups: i64,
    /// Side of the images that the model was trained with, and of a tile.
    pub sample_size: i64,
    /// Latents are multiplied by it for the diffusion model.
    pub scaling_factor: f64,
    /// Subtracted from latents before they are multiplied.
    pub shift_factor: Option<f64>,
    /// The mean of each channel, subtracted in place of `shift_factor`, and its deviation.
    pub latents_mean: Option<Vec<f64>>,
    /// The deviation of each channel, which latents are divided by.
    pub latents_std: Option<Vec<f64>>,
    /// Whether the model must compute in f32: f16 overflows.
    pub force_upcast: bool,
    /// Whether a 1 x 1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1 x 1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle has attention.
    pub mid_block_add_attention: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

const DOWN: &str = "DownEncoderBlock2D";
const UP: &str = "UpDecoderBlock2D";

impl VaeConfig {
    /// Reads the `config.json` of a diffusers autoencoder.
    ///
    /// # Errors
    /// A field has another type, a size is out of range, or a setting needs what is not offered.
    pub fn from_hf(config: &Value) -> Result<Self> {
        let wrong = |problem: String| Error::Model(format!("config of an autoencoder: {problem}"));
        for (name, only) in [("down_block_types", DOWN), ("up_block_types", UP), ("act_fn", "silu")] {
            let given = &config[name];
            let kinds = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice);
            if let Some(other) = kinds.iter().find(|kind| !kind.is_null() && kind.as_str() != Some(only)) {
                return Err(wrong(format!("{name} has {other}: only {only} is offered")));
            }
        }
        let config: Self = overlay(&Self::default(), config).map_err(|error| wrong(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The `config.json` for diffusers.
    pub fn to_hf(&self) -> Value {
        let mut config = serde_json::to_value(self).unwrap_or_default();
        let blocks = self.block_out_channels.len();
        config["_class_name"] = json!("AutoencoderKL");
        config["act_fn"] = json!("silu");
        config["down_block_types"] = json!(vec![DOWN; blocks]);
        config["up_block_types"] = json!(vec![UP; blocks]);
        config
    }

    /// Checks that a model can be built.
    ///
    /// # Errors
    /// Names the first field that does not fit, with its value.
    pub fn validate(&self) -> Result<()> {
        let wrong = |problem: String| Err(Error::Model(format!("config of an autoencoder: {problem}")));
        let mut sizes = vec![
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
            ("sample_size", self.sample_size),
        ];
        sizes.extend(self.block_out_channels.iter().map(|&channels| ("block_out_channels", channels)));
        check_sizes(&sizes).or_else(wrong)?;
        if !(1..=8).contains(&self.block_out_channels.len()) {
            return wrong(format!("block_out_channels has {} entries", self.block_out_channels.len()));
        }
        let groups = self.norm_num_groups;
        if let Some(channels) = self.block_out_channels.iter().find(|&channels| channels % groups != 0) {
            return wrong(format!("{channels} channels are no multiple of {groups} groups"));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return wrong(format!("scaling_factor is {}", self.scaling_factor));
        }
        for (name, numbers) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if let Some(numbers) = numbers.as_ref().filter(|all| all.len() as i64 != self.latent_channels) {
                return wrong(format!(
                    "{name} has {} numbers for {} channels",
                    numbers.len(),
                    self.latent_channels
                ));
            }
        }
        Ok(())
    }

    /// The side of the pixels that one latent stands for: 8 with four blocks.
    pub fn reduction(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_back_as_it_is_written() {
        let config = VaeConfig {
            block_out_channels: vec![32, 64],
            shift_factor: Some(0.0609),
            use_quant_conv: false,
            ..VaeConfig::default()
        };
        assert_eq!(VaeConfig::from_hf(&config.to_hf()).unwrap(), config);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_value() {
        for (change, message) in [
            (json!({"down_block_types": ["AttnDownEncoderBlock2D"]}), "AttnDownEncoderBlock2D"),
            (json!({"block_out_channels": [33]}), "33 channels"),
            (json!({"latents_mean": [0.0]}), "1 numbers for 4"),
            (json!({"scaling_factor": 0.0}), "scaling_factor is 0"),
        ] {
            let error = VaeConfig::from_hf(&change).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
