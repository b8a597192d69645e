//! From pixels to the tokens of a Swin transformer's first stage.

use crate::swin_config::{SwinConfig, SwinStem};
use mm_core::Precision;
use mm_core::nn::{Activation, Conv2d, Conv2dConfig, Embedding, PatchEmbedding, channels_last};
use tch::Tensor;
use tch::nn::Path;

/// Standard deviation of the initial positions.
const POSITION_STD: f64 = 0.02;

/// The first layers of a [`Swin`](crate::Swin), by its config's [`SwinStem`].
#[derive(Debug)]
pub(crate) enum Stem {
    Patches(PatchEmbedding),
    Convolutions(ConvolutionalStem),
}

impl Stem {
    /// Creates the layers below `path`.
    pub fn new(path: &Path, config: &SwinConfig) -> Self {
        let width = config.embed_dim;
        match config.stem {
            SwinStem::Patches => {
                let projection = path / "patch_embeddings" / "projection";
                let std = config.init_std(width);
                Self::Patches(PatchEmbedding::new(&projection, config.patch_size, width, true, std))
            }
            SwinStem::Convolutions => Self::Convolutions(ConvolutionalStem::new(path, config)),
        }
    }

    /// Maps `pixel_values` `[B, 3, rows * patch, columns * patch]` to `[B, rows * columns, width]`.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        match self {
            Self::Patches(patches) => patches.forward(pixel_values),
            Self::Convolutions(convolutions) => convolutions.forward(pixel_values),
        }
    }

    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Patches(patches) => patches.pack(precision),
            Self::Convolutions(convolutions) => convolutions.pack(precision),
        }
    }
}

/// 3 x 3 convolutions that halve the image until a pixel is a patch, and one more (Xiao et al. 2021, "Early
/// Convolutions Help Transformers See Better"), and learned positions of rows and columns.
#[derive(Debug)]
pub(crate) struct ConvolutionalStem {
    convolutions: Vec<Conv2d>,
    activation: Activation,
    row_positions: Embedding,
    column_positions: Embedding,
}

impl ConvolutionalStem {
    fn new(path: &Path, config: &SwinConfig) -> Self {
        let halvings = config.patch_size.trailing_zeros() as i64;
        let mut channels = 3;
        let mut configs = Vec::new();
        for halving in 0..halvings {
            let output = (config.embed_dim >> (halvings - 1 - halving)).max(1);
            configs.push(Conv2dConfig { stride: 2, ..Conv2dConfig::same(channels, output, 3) });
            channels = output;
        }
        configs.push(Conv2dConfig::same(channels, config.embed_dim, 3));
        let convolution = |(index, config)| Conv2d::new(&(path / "convolutions" / index), config);
        let (rows, columns) = config.stage_grid(0);
        let positions =
            |name: &str, count: i64| Embedding::new(&(path / name), count, config.embed_dim, POSITION_STD);
        Self {
            convolutions: configs.into_iter().enumerate().map(convolution).collect(),
            activation: config.hidden_act,
            row_positions: positions("row_positions", rows),
            column_positions: positions("column_positions", columns),
        }
    }

    fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let (last, first) = self.convolutions.split_last().expect("there is a last convolution");
        let x = first.iter().fold(channels_last(pixel_values), |x, convolution| {
            self.activation.forward(&convolution.forward(&x))
        });
        let x = last.forward(&x).flatten(2, 3).transpose(1, 2); // [B, rows * columns, width]
        let positions = self.row_positions.weight().unsqueeze(1) + self.column_positions.weight();
        let positions = positions.flatten(0, 1).to_kind(x.kind());
        x + positions
    }

    fn pack(&mut self, precision: Precision) {
        self.convolutions.iter_mut().for_each(|convolution| convolution.pack(precision));
        self.row_positions.pack(precision);
        self.column_positions.pack(precision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Swin;
    use mm_testing::{initialize, normal};
    use tch::Device;
    use tch::nn::VarStore;

    fn config() -> SwinConfig {
        SwinConfig {
            image_size: [32, 24],
            embed_dim: 8,
            depths: vec![1, 1],
            num_heads: vec![2, 2],
            window_size: 3,
            stem: SwinStem::Convolutions,
            ..SwinConfig::default()
        }
    }

    #[test]
    fn convolutions_make_the_tokens_of_patches_and_a_packed_encoder_gives_the_same() {
        let vs = VarStore::new(Device::Cpu);
        let mut encoder = Swin::new(&vs.root(), &config()).unwrap();
        initialize(&vs, 1);
        let pixels = normal(2, &[2, 3, 32, 24]);
        let plain = encoder.forward(&pixels).detach();
        assert_eq!(plain.size(), [2, 4 * 3, 16]);
        encoder.pack(Precision::F32);
        let packed = tch::no_grad(|| encoder.forward(&pixels));
        let difference = (packed - plain).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "{difference}");
    }

    #[test]
    fn equal_pixels_at_other_places_give_other_tokens() {
        let vs = VarStore::new(Device::Cpu);
        let stem = Stem::new(&vs.root(), &config());
        let white = Tensor::ones([1, 3, 32, 24], (tch::Kind::Float, Device::Cpu));
        let tokens = stem.forward(&white).get(0);
        // Inner tokens see no border: positions alone differ.
        let difference = (tokens.get(2 * 6 + 2) - tokens.get(4 * 6 + 3)).abs().max().double_value(&[]);
        assert!(difference > 1e-3, "{difference}");
    }

    #[test]
    fn the_stem_is_written_to_the_config_and_patches_must_be_powers_of_two() {
        let written = config().to_hf();
        assert_eq!(written["stem"], "convolutions");
        assert_eq!(SwinConfig::from_hf(&written).unwrap(), config());
        assert!(SwinConfig::default().to_hf().get("stem").is_none());
        let error = SwinConfig { patch_size: 3, ..config() }.validate().unwrap_err().to_string();
        assert!(error.contains("patch_size is 3"), "{error}");
    }
}
