//! CLIP's modified ResNet.

use crate::attention_pool::AttentionPool;
use crate::conv::{ConvNorm, ConvShape};
use crate::error::{Error, Result};
use crate::position_table::PositionTable;
use crate::resnet::{STAGES, stage_of};
use crate::tower::{HeatMapTaps, ImageTower, ImageTowerSpec, TokenGrid, regions};
use mm_core::Precision;
use mm_core::hf::{check_layers, check_sizes};
use mm_core::nn::{TowerSpec, parameter};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};

/// The ratio of a bottleneck's output width to its inner width.
const EXPANSION: i64 = 4;

/// The table of positions.
const POSITIONS: &str = "attnpool.positional_embedding";

/// The sizes of a [`ModifiedResNet`]. The defaults are CLIP's RN50; RN101 has layers `[3, 4, 23, 3]` and
/// output 512, RN50x4 has layers `[4, 6, 10, 6]`, width 80, output 640 and image size 288.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct ModifiedResNetConfig {
    /// Blocks in each of the four stages.
    pub layers: [i64; 4],
    /// Channels after the stem; the features before pooling have 32 times as many.
    pub width: i64,
    /// Heads of the attention pooling; divides `32 width`. When a config is read, 0 or no value means half of
    /// `width`: 64 numbers a head, as in all of CLIP's ResNets.
    pub heads: i64,
    /// Width of the pooled output, which is CLIP's embedding width.
    pub output_dim: i64,
    /// Side of the square input, in pixels; a multiple of 32, by which the network reduces it.
    pub image_size: i64,
}

impl Default for ModifiedResNetConfig {
    fn default() -> Self {
        Self { layers: [3, 4, 6, 3], width: 64, heads: 32, output_dim: 1024, image_size: 224 }
    }
}

/// A [`ModifiedResNetConfig`] as it is written in a file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    layers: [i64; 4],
    width: i64,
    heads: i64,
    output_dim: i64,
    image_size: i64,
}

impl Default for Written {
    fn default() -> Self {
        let ModifiedResNetConfig { layers, width, output_dim, image_size, .. } =
            ModifiedResNetConfig::default();
        Self { layers, width, heads: 0, output_dim, image_size }
    }
}

impl From<Written> for ModifiedResNetConfig {
    fn from(Written { layers, width, heads, output_dim, image_size }: Written) -> Self {
        Self { layers, width, heads: if heads == 0 { width / 2 } else { heads }, output_dim, image_size }
    }
}

impl ModifiedResNetConfig {
    /// Checks that a tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        for (stage, layers) in self.layers.into_iter().enumerate() {
            check_layers(&format!("layers[{stage}]"), layers).map_err(Error::Config)?;
        }
        check_sizes(&[
            ("width", self.width),
            ("heads", self.heads),
            ("output_dim", self.output_dim),
            ("image_size", self.image_size),
        ])
        .map_err(Error::Config)?;
        let wrong = |text: String| Err(Error::Config(text));
        if self.width % 2 != 0 {
            return wrong(format!("width {} is odd: the stem starts with half of it", self.width));
        }
        if (32 * self.width) % self.heads != 0 {
            return wrong(format!("32 times width {} is no multiple of heads {}", self.width, self.heads));
        }
        if self.image_size % 32 != 0 {
            return wrong(format!("image_size {} is no multiple of 32", self.image_size));
        }
        Ok(())
    }

    /// Positions along a side of the features that are pooled.
    pub(crate) fn feature_grid(&self) -> i64 {
        self.image_size / 32
    }
}

impl TowerSpec for ModifiedResNetConfig {
    fn describe(&self) -> String {
        let Self { layers, width, image_size, .. } = self;
        format!("CLIP's ResNet: blocks {layers:?}, width {width}; {image_size} px")
    }

    fn blocks(&self) -> usize {
        STAGES
    }

    fn depth(&self, name: &str) -> usize {
        if name.starts_with("attnpool.") { STAGES + 1 } else { stage_of(name) }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        name != POSITIONS
    }

    fn has_batch_norm(&self) -> bool {
        true
    }
}

impl ImageTowerSpec for ModifiedResNetConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn ImageTower>> {
        Ok(Box::new(ModifiedResNet::new(path, self.clone())?))
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
        TokenGrid { extra_tokens: 0, side: self.feature_grid() }
    }

    fn position_table(&self) -> Option<PositionTable> {
        Some(PositionTable { name: POSITIONS, extra_tokens: 1, grid: self.feature_grid() })
    }

    fn root(&self) -> &'static str {
        "visual" // the names are open_clip's
    }

    fn ends_in_shared_space(&self) -> bool {
        true
    }
}

/// CLIP's modified residual network (Radford et al. 2021, section 2.4): three convolutions as stem, average
/// pooling before every stride, and attention pooling at the end. Parameter names are open_clip's below
/// `visual`.
#[derive(Debug)]
pub struct ModifiedResNet {
    stem: [ConvNorm; 3],
    blocks: Vec<Bottleneck>,
    positional_embedding: Tensor,
    pool: AttentionPool,
    config: ModifiedResNetConfig,
}

impl ModifiedResNet {
    /// Creates the tower's parameters below `path`, initialized as OpenAI does.
    ///
    /// # Errors
    /// As [`ModifiedResNetConfig::validate`].
    pub fn new(path: &Path, config: ModifiedResNetConfig) -> Result<Self> {
        config.validate()?;
        let width = config.width;
        let stem = [(3, width / 2, 2), (width / 2, width / 2, 1), (width / 2, width, 1)];
        let mut number = 0;
        let stem = stem.map(|(input, output, stride)| {
            number += 1;
            conv_norm(path, number, ConvShape { input, output, kernel: 3, stride }, 1.0)
        });
        let mut input = width;
        let mut blocks = Vec::new();
        for (stage, count) in config.layers.into_iter().enumerate() {
            let inner = width << stage;
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Bottleneck::new(
                    &(path / format!("layer{}", stage + 1) / index),
                    input,
                    inner,
                    stride,
                ));
                input = EXPANSION * inner;
            }
        }
        let pool = path / "attnpool";
        let side = config.feature_grid();
        let init = Init::Randn { mean: 0.0, stdev: (input as f64).powf(-0.5) };
        Ok(Self {
            stem,
            blocks,
            positional_embedding: parameter(&pool, "positional_embedding", &[side * side + 1, input], init),
            pool: AttentionPool::clip(&pool, input, config.output_dim, config.heads),
            config,
        })
    }

    /// Maps `pixel_values` `[B, 3, image_size, image_size]` to `[B, output_dim]`. With `train`, the
    /// statistics of the batch are used, and the running statistics are updated.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    pub fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.pool(&self.forward_features(pixel_values, train))
    }

    /// Maps `pixel_values` `[B, 3, image_size, image_size]` to
    /// `[B, 32 width, image_size / 32, image_size / 32]`.
    pub fn forward_features(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.blocks.iter().fold(self.embed(pixel_values, train), |x, block| block.forward(&x, train))
    }

    /// Maps images to the input of the blocks, `[B, width, H / 4, W / 4]`.
    fn embed(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        let x = pixel_values.to_kind(self.stem[0].kind());
        let x = self.stem.iter().fold(x, |x, conv| conv.forward_relu(&x, train)); // [B, width, H / 2, W / 2]
        average_pool(&x, 2)
    }

    /// Pools features `[B, 32 width, h, w]` to `[B, output_dim]`: their mean is the query of attention over
    /// them and itself.
    pub fn pool(&self, features: &Tensor) -> Tensor {
        let places = features.flatten(2, 3).transpose(1, 2); // [B, h w, 32 width]
        let mean = places.mean_dim([1i64].as_slice(), true, None);
        let context = Tensor::cat(&[mean, places], 1) + &self.positional_embedding; // [B, 1 + h w, 32 width]
        self.pool.forward(&context.select(1, 0), &context).0
    }

    /// The config of the tower.
    pub fn config(&self) -> &ModifiedResNetConfig {
        &self.config
    }

    /// Prepares for inference in `precision`, with the batch norms moved into the convolutions; outputs are
    /// of its kind.
    pub fn pack(&mut self, precision: Precision) {
        self.stem.iter_mut().for_each(|conv| conv.pack(precision));
        self.blocks.iter_mut().for_each(|block| block.pack(precision));
        self.positional_embedding = self.positional_embedding.detach().to_kind(precision.kind());
        self.pool.pack(precision);
    }
}

impl ImageTower for ModifiedResNet {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.forward(pixel_values, train)
    }

    fn forward_tokens(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        regions(&self.forward_features(pixel_values, train))
    }

    fn tokens_width(&self) -> i64 {
        32 * self.config.width
    }

    fn forward_blocks(&self, pixel_values: &Tensor) -> Vec<Tensor> {
        let outputs = self.blocks.iter().scan(self.embed(pixel_values, false), |x, block| {
            *x = block.forward(x, false);
            Some(regions(x))
        });
        outputs.collect()
    }

    fn forward_with_taps(&self, pixel_values: &Tensor) -> HeatMapTaps {
        let features = self.forward_features(pixel_values, false);
        HeatMapTaps::Features { pooled: self.pool(&features), features }
    }

    fn output_width(&self) -> i64 {
        self.config.output_dim
    }

    fn pack(&mut self, precision: Precision) {
        self.pack(precision);
    }
}

/// 1 x 1, 3 x 3 and 1 x 1 convolutions of stride 1, with an average pool where the stage halves the size.
#[derive(Debug)]
struct Bottleneck {
    conv1: ConvNorm,
    conv2: ConvNorm,
    conv3: ConvNorm,
    downsample: Option<ConvNorm>,
    stride: i64,
}

impl Bottleneck {
    fn new(path: &Path, input: i64, width: i64, stride: i64) -> Self {
        let output = EXPANSION * width;
        let conv = |number, input, output, kernel, scale| {
            conv_norm(path, number, ConvShape { input, output, kernel, stride: 1 }, scale)
        };
        // With a scale of 0 at its end, a residual block starts as the identity.
        let (conv1, conv2) = (conv(1, input, width, 1, 1.0), conv(2, width, width, 3, 1.0));
        let conv3 = conv(3, width, output, 1, 0.0);
        let downsample = (stride > 1 || input != output).then(|| {
            // The average pool is this sequence's part "-1", so that the other two keep torchvision's names.
            let path = path / "downsample";
            let shape = ConvShape { input, output, kernel: 1, stride: 1 };
            ConvNorm::new(&(&path / 0), &(&path / 1), shape, shape.default_init())
        });
        Self { conv1, conv2, conv3, downsample, stride }
    }

    /// Maps `x` `[B, input, H, W]` to `[B, output, H / stride, W / stride]`.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let inner = self.conv2.forward_relu(&self.conv1.forward_relu(x, train), train);
        let mut y = self.conv3.forward(&average_pool(&inner, self.stride), train);
        match &self.downsample {
            Some(downsample) => y += downsample.forward(&average_pool(x, self.stride), train),
            None => y += x,
        }
        y.relu_()
    }

    fn pack(&mut self, precision: Precision) {
        let convs =
            [&mut self.conv1, &mut self.conv2, &mut self.conv3].into_iter().chain(&mut self.downsample);
        convs.for_each(|conv| conv.pack(precision));
    }
}

/// `conv{number}` with `bn{number}`, whose initial scale is `scale`, below `path`.
fn conv_norm(path: &Path, number: usize, shape: ConvShape, scale: f64) -> ConvNorm {
    let (conv, norm) = (path / format!("conv{number}"), path / format!("bn{number}"));
    ConvNorm::scaled(&conv, &norm, shape, shape.default_init(), scale)
}

/// The mean of each `size` x `size` square; `size` 1 changes nothing.
fn average_pool(x: &Tensor, size: i64) -> Tensor {
    if size == 1 {
        return x.shallow_clone();
    }
    x.avg_pool2d([size; 2], [size; 2], [0, 0], false, true, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_follow_the_width_unless_they_are_given() {
        let heads = |text| toml::from_str::<ModifiedResNetConfig>(text).unwrap().heads;
        assert_eq!(
            ["", "width = 80", "width = 80\nheads = 0", "width = 80\nheads = 20"].map(heads),
            [32, 40, 40, 20]
        );
        assert_eq!(ModifiedResNetConfig::default(), toml::from_str("").unwrap());
        let unknown = toml::from_str::<ModifiedResNetConfig>("head = 4").unwrap_err().to_string();
        assert!(unknown.contains("unknown field `head`"), "{unknown}");
        let narrow =
            toml::from_str::<ModifiedResNetConfig>("width = 1").unwrap().validate().unwrap_err().to_string();
        assert!(narrow.contains("heads is 0"), "{narrow}");
    }
}
