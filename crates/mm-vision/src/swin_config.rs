//! The config of Swin transformers.

use crate::error::{Error, Result};
use crate::window_attention::{relative_positions, shift};
use crate::windows::Windows;
use mm_core::hf::{check_eps, check_layers, check_sizes};
use mm_core::nn::{Activation, TowerSpec};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// The most stages: with more, no page has tokens left.
const MAX_STAGES: usize = 4;

/// The most tokens along a side of a window: the scores of a window grow with its fourth power.
const MAX_WINDOW: i64 = 32;

/// Standard deviation of Swin's initial weights, and the width that it is for.
const INIT_STD: f64 = 0.02;
const INIT_WIDTH: f64 = 768.0;

/// The sizes of a [`Swin`](crate::Swin), named as in a Hugging Face `config.json`. The defaults are those of
/// Donut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwinConfig {
    /// Height and width of the input, in pixels.
    pub image_size: [i64; 2],
    /// Side of a patch, in pixels. Where it does not divide a side of the image, black is appended.
    pub patch_size: i64,
    /// What makes the first tokens of pixels.
    pub stem: SwinStem,
    /// Width of the tokens of the first stage; each stage doubles it.
    pub embed_dim: i64,
    /// Blocks of each stage, for 1 to 4 stages.
    pub depths: Vec<i64>,
    /// Attention heads of each stage; they divide its width.
    pub num_heads: Vec<i64>,
    /// Tokens along a side of a window; at most the shorter side of the smallest stage.
    pub window_size: i64,
    /// Width between the two linear layers of an MLP, over that of the tokens.
    pub mlp_ratio: f64,
    /// Whether the projections to queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// The MLPs' activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms in blocks.
    pub layer_norm_eps: f64,
}

/// What makes the first tokens of pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwinStem {
    /// One matrix for each patch, without positions: transformers' form.
    #[default]
    Patches,
    /// Convolutions, and learned positions: for training from scratch on few pages. transformers has no such
    /// model.
    Convolutions,
}

impl Default for SwinConfig {
    fn default() -> Self {
        Self {
            image_size: [2560, 1920],
            patch_size: 4,
            stem: SwinStem::Patches,
            embed_dim: 128,
            depths: vec![2, 2, 14, 2],
            num_heads: vec![4, 8, 16, 32],
            window_size: 10,
            mlp_ratio: 4.0,
            qkv_bias: true,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl SwinConfig {
    /// Checks that an encoder can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        let [height, width] = self.image_size;
        check_sizes(&[
            ("image_size", height),
            ("image_size", width),
            ("patch_size", self.patch_size),
            ("embed_dim", self.embed_dim),
            ("window_size", self.window_size),
        ])
        .and_then(|()| check_eps(self.layer_norm_eps))
        .map_err(Error::Config)?;
        let wrong = |text: String| Err(Error::Config(text));
        if self.stem == SwinStem::Convolutions && !(self.patch_size as u64).is_power_of_two() {
            let patch = self.patch_size;
            return wrong(format!("patch_size is {patch}: stem = \"convolutions\" needs a power of two"));
        }
        if self.window_size > MAX_WINDOW {
            return wrong(format!("window_size is {}: it must be from 1 to {MAX_WINDOW}", self.window_size));
        }
        if !(self.mlp_ratio.is_finite() && (0.1..=100.0).contains(&self.mlp_ratio)) {
            return wrong(format!("mlp_ratio is {}: it must be from 0.1 to 100", self.mlp_ratio));
        }
        let (stages, heads) = (self.depths.len(), self.num_heads.len());
        if !(1..=MAX_STAGES).contains(&stages) || stages != heads {
            return wrong(format!(
                "depths has {stages} stages and num_heads {heads}: both must have the same, from 1 to \
                 {MAX_STAGES}"
            ));
        }
        (0..stages).try_for_each(|stage| self.validate_stage(stage))
    }

    fn validate_stage(&self, stage: usize) -> Result<()> {
        let (depth, heads, width) = (self.depths[stage], self.num_heads[stage], self.width(stage));
        let of_stage = |problem: String| Error::Config(format!("stage {stage}: {problem}"));
        check_layers("depths", depth)
            .and_then(|()| check_sizes(&[("num_heads", heads), ("width", width)]))
            .map_err(of_stage)?;
        if width % heads != 0 {
            return Err(of_stage(format!("the width {width} is no multiple of num_heads {heads}")));
        }
        let (rows, columns) = self.stage_grid(stage);
        if rows.min(columns) < self.window_size {
            return Err(of_stage(format!(
                "its grid of {rows} x {columns} tokens is smaller than window_size {}: take a larger \
                 image_size or a smaller window",
                self.window_size
            )));
        }
        Ok(())
    }

    /// Width of the output.
    pub fn hidden_size(&self) -> i64 {
        self.width(self.depths.len().saturating_sub(1))
    }

    /// Rows and columns of the output's tokens.
    pub fn grid(&self) -> (i64, i64) {
        self.stage_grid(self.depths.len().saturating_sub(1))
    }

    /// The tensors that transformers stores beside the weights, by name: of each block, where in its table
    /// the bias of two tokens is. They follow from the sizes, so that a [`Swin`](crate::Swin) has none.
    pub fn stored_buffers(&self) -> Vec<(String, Tensor)> {
        let index = relative_positions(self.window_size, Device::Cpu);
        let of_stage = |(stage, &depth): (usize, &i64)| {
            let path = format!("encoder.layers.{stage}.blocks");
            (0..depth).map(move |block| format!("{path}.{block}.attention.self.relative_position_index"))
        };
        let names = self.depths.iter().enumerate().flat_map(of_stage);
        names.map(|name| (name, index.shallow_clone())).collect()
    }

    /// Width of the tokens of a stage, counted from 0.
    pub(crate) fn width(&self, stage: usize) -> i64 {
        self.embed_dim << stage
    }

    /// Rows and columns of the tokens of a stage.
    pub(crate) fn stage_grid(&self, stage: usize) -> (i64, i64) {
        let [rows, columns] = self.image_size.map(|side| {
            let patches = (side + self.patch_size - 1) / self.patch_size;
            (0..stage).fold(patches, |tokens, _| (tokens + 1) / 2)
        });
        (rows, columns)
    }

    /// Width between the two linear layers of the MLPs of a stage.
    pub(crate) fn mlp_width(&self, stage: usize) -> i64 {
        ((self.mlp_ratio * self.width(stage) as f64) as i64).max(1)
    }

    /// The windows of a block of a stage. They are shifted in every other block, where there are several in
    /// each direction.
    pub(crate) fn windows(&self, stage: usize, block: i64) -> Windows {
        let (rows, columns) = self.stage_grid(stage);
        let side = self.window_size;
        let is_shifted = block % 2 == 1 && rows.min(columns) > side;
        Windows { rows, columns, side, shift: if is_shifted { shift(side) } else { 0 } }
    }

    /// Standard deviation of the initial weights of a layer of `inputs`: Swin's at the width it is for, and
    /// larger in narrower layers, which would otherwise begin almost at zero.
    pub(crate) fn init_std(&self, inputs: i64) -> f64 {
        INIT_STD * (INIT_WIDTH / inputs as f64).sqrt()
    }

    /// The number of blocks before `stage`.
    fn blocks_before(&self, stage: usize) -> usize {
        self.depths.iter().take(stage).map(|&depth| depth as usize).sum()
    }
}

impl TowerSpec for SwinConfig {
    fn describe(&self) -> String {
        let [height, width] = self.image_size;
        let list = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join("/");
        format!(
            "Swin: {} blocks, width {} to {}, {} heads, windows of {}; {height} x {width} px in patches of \
             {}",
            list(&self.depths),
            self.embed_dim,
            self.hidden_size(),
            list(&self.num_heads),
            self.window_size,
            self.patch_size
        )
    }

    fn blocks(&self) -> usize {
        self.blocks_before(self.depths.len())
    }

    fn depth(&self, name: &str) -> usize {
        let Some(layer) = name.strip_prefix("encoder.layers.") else { return 0 };
        let mut parts = layer.split('.');
        let stage: usize = parts.next().and_then(|stage| stage.parse().ok()).unwrap_or(0);
        let block = match parts.next() {
            Some("blocks") => parts.next().and_then(|block| block.parse::<usize>().ok()),
            _ => None, // what follows the blocks of the stage counts with the last
        };
        match block {
            Some(block) => self.blocks_before(stage) + block + 1,
            None => self.blocks_before(stage + 1),
        }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        !name.ends_with("relative_position_bias_table") && !name.ends_with("_positions.weight")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> SwinConfig {
        SwinConfig {
            image_size: [52, 44],
            embed_dim: 16,
            depths: vec![2, 1, 1],
            num_heads: vec![2, 2, 4],
            window_size: 3,
            ..SwinConfig::default()
        }
    }

    #[test]
    fn grids_halve_from_stage_to_stage_and_are_rounded_up() {
        let config = small();
        let grids: Vec<_> = (0..3).map(|stage| config.stage_grid(stage)).collect();
        assert_eq!(grids, [(13, 11), (7, 6), (4, 3)]);
        assert_eq!((config.grid(), config.hidden_size()), ((4, 3), 64));
        let donut = SwinConfig::default();
        assert_eq!((donut.grid(), donut.hidden_size(), donut.blocks()), ((80, 60), 1024, 20));
    }

    #[test]
    fn windows_are_shifted_in_odd_blocks_where_there_are_several() {
        let config = small();
        let shifts = |stage: usize| [0, 1].map(|block| config.windows(stage, block).shift);
        assert_eq!([shifts(0), shifts(1), shifts(2)], [[0, 1], [0, 1], [0, 0]]);
    }

    #[test]
    fn config_errors_name_the_field_and_its_value() {
        let base = small;
        let cases = [
            (SwinConfig { image_size: [52, 0], ..base() }, "image_size is 0"),
            (SwinConfig { window_size: 33, ..base() }, "window_size is 33"),
            (SwinConfig { window_size: 4, ..base() }, "stage 2: its grid of 4 x 3 tokens is smaller than"),
            (SwinConfig { num_heads: vec![2, 2], ..base() }, "depths has 3 stages and num_heads 2"),
            (SwinConfig { depths: vec![], num_heads: vec![], ..base() }, "depths has 0 stages"),
            (SwinConfig { num_heads: vec![2, 3, 4], ..base() }, "stage 1: the width 32 is no multiple of"),
            (SwinConfig { num_heads: vec![2, 0, 4], ..base() }, "stage 1: num_heads is 0"),
            (SwinConfig { depths: vec![2, 0, 1], ..base() }, "stage 1: depths is 0"),
            (SwinConfig { mlp_ratio: f64::NAN, ..base() }, "mlp_ratio is NaN"),
            (SwinConfig { layer_norm_eps: 0.0, ..base() }, "layer_norm_eps is 0"),
            (SwinConfig { embed_dim: 1 << 19, ..base() }, "stage 2: width is 2097152"),
        ];
        for (config, expected) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(base().validate().is_ok() && SwinConfig::default().validate().is_ok());
        assert!(toml::from_str::<SwinConfig>("embed_dims = 64").is_err());
    }

    #[test]
    fn the_depth_of_a_parameter_counts_blocks_over_all_stages() {
        let config = small();
        for (name, depth) in [
            ("embeddings.norm.weight", 0),
            ("encoder.layers.0.blocks.1.output.dense.weight", 2),
            ("encoder.layers.0.downsample.reduction.weight", 2),
            ("encoder.layers.1.blocks.0.attention.self.relative_position_bias_table", 3),
            ("encoder.layers.2.blocks.0.layernorm_after.bias", 4),
        ] {
            assert_eq!(config.depth(name), depth, "{name}");
        }
        assert!(
            !config.has_weight_decay("encoder.layers.1.blocks.0.attention.self.relative_position_bias_table")
        );
    }
}
