//! ResNets, as in torchvision.

use crate::conv::{ConvNorm, ConvShape};
use crate::error::{Error, Result};
use crate::tower::{HeatMapTaps, ImageTower, ImageTowerSpec, TokenGrid, regions};
use mm_core::Precision;
use mm_core::hf::check_sizes;
use mm_core::nn::TowerSpec;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use tch::nn::{Init, Path};

/// The stages of a ResNet, of any depth.
pub(crate) const STAGES: usize = 4;

/// The sizes of a [`ResNet`]. The defaults are ResNet-50's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResNetConfig {
    /// Layers: 18, 34 (basic blocks), 50 or 101 (bottlenecks).
    pub depth: i64,
    /// Channels of the stem and of the first stage; each later stage has twice the last one's.
    pub width: i64,
    /// Stages of blocks, from 1 to 4, which is He et al.'s. Each but the first halves the side of the
    /// features: after 3 it is a sixteenth of the image's, as in models of CLEVR (Johnson et al. 2017,
    /// "Inferring and executing programs for visual reasoning").
    pub stages: usize,
    /// Side of the square input, in pixels; a multiple of [`ResNetConfig::stride`].
    pub image_size: i64,
}

impl Default for ResNetConfig {
    fn default() -> Self {
        Self { depth: 50, width: 64, stages: STAGES, image_size: 224 }
    }
}

impl ResNetConfig {
    /// Checks that a tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        self.blocks_of_stages()?;
        check_sizes(&[("width", self.width), ("image_size", self.image_size)]).map_err(Error::Config)?;
        if !(1..=STAGES).contains(&self.stages) {
            return Err(Error::Config(format!("stages is {}: it must be from 1 to {STAGES}", self.stages)));
        }
        let (size, stride) = (self.image_size, self.stride());
        if size % stride != 0 {
            return Err(Error::Config(format!("image_size {size} is no multiple of {stride}")));
        }
        Ok(())
    }

    /// The factor by which the network reduces the side of an image: 32 with all stages.
    pub fn stride(&self) -> i64 {
        2 << self.stages
    }

    /// The block and how many of it each stage has (He et al. 2016, table 1).
    fn blocks_of_stages(&self) -> Result<(BlockKind, [i64; STAGES])> {
        match self.depth {
            18 => Ok((BlockKind::Basic, [2, 2, 2, 2])),
            34 => Ok((BlockKind::Basic, [3, 4, 6, 3])),
            50 => Ok((BlockKind::Bottleneck, [3, 4, 6, 3])),
            101 => Ok((BlockKind::Bottleneck, [3, 4, 23, 3])),
            other => Err(Error::Config(format!("depth is {other}: it must be 18, 34, 50 or 101"))),
        }
    }
}

impl TowerSpec for ResNetConfig {
    fn describe(&self) -> String {
        let Self { depth, width, stages, image_size } = self;
        let stages = if *stages < STAGES { format!(", {stages} of {STAGES} stages") } else { String::new() };
        format!("ResNet of {depth} layers, width {width}{stages}; {image_size} px")
    }

    fn blocks(&self) -> usize {
        self.stages
    }

    fn depth(&self, name: &str) -> usize {
        stage_of(name).min(self.stages)
    }

    fn has_weight_decay(&self, _name: &str) -> bool {
        true
    }

    fn has_batch_norm(&self) -> bool {
        true
    }
}

impl ImageTowerSpec for ResNetConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn ImageTower>> {
        Ok(Box::new(ResNet::new(path, self.clone())?))
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
        TokenGrid { extra_tokens: 0, side: self.image_size / self.stride() }
    }
}

/// The stage of the parameter `name`, counted from 1: 0 for the stem, the last for parameters after it.
pub(crate) fn stage_of(name: &str) -> usize {
    let stage = name.strip_prefix("layer").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    match stage {
        Some(stage) => stage.min(STAGES),
        None if name.starts_with("conv") || name.starts_with("bn") => 0,
        None => STAGES,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockKind {
    Basic,
    Bottleneck,
}

/// A residual network (He et al. 2016) without the classifier, as in torchvision: the stride is in the
/// bottleneck's 3 x 3 convolution. Parameter names are torchvision's.
#[derive(Debug)]
pub struct ResNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    output_width: i64,
    config: ResNetConfig,
}

impl ResNet {
    /// Creates the tower's parameters below `path`, initialized as torchvision does (He et al. 2015, by
    /// fan-out).
    ///
    /// # Errors
    /// As [`ResNetConfig::validate`].
    pub fn new(path: &Path, config: ResNetConfig) -> Result<Self> {
        config.validate()?;
        let (kind, stages) = config.blocks_of_stages()?;
        let shape = ConvShape { input: 3, output: config.width, kernel: 7, stride: 2 };
        let stem = ConvNorm::new(&(path / "conv1"), &(path / "bn1"), shape, he_init());
        let mut input = config.width;
        let mut blocks = Vec::new();
        for (stage, count) in stages.into_iter().take(config.stages).enumerate() {
            let width = config.width << stage;
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let block =
                    Block::new(&(path / format!("layer{}", stage + 1) / index), kind, input, width, stride);
                input = block.output;
                blocks.push(block);
            }
        }
        Ok(Self { stem, blocks, output_width: input, config })
    }

    /// Maps `pixel_values` `[B, 3, H, W]` to `[B, C]`, the mean of [`ResNet::forward_features`] over all
    /// positions. With `train`, the statistics of the batch are used, and the running statistics are updated.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    pub fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.pool(&self.forward_features(pixel_values, train))
    }

    /// Maps `pixel_values` `[B, 3, H, W]` to `[B, C, H / stride, W / stride]`.
    pub fn forward_features(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.blocks.iter().fold(self.embed(pixel_values, train), |x, block| block.forward(&x, train))
    }

    /// Maps images to the input of the blocks, `[B, width, H / 4, W / 4]`.
    fn embed(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        // [B, width, H / 2, W / 2]
        let x = self.stem.forward_relu(&pixel_values.to_kind(self.stem.kind()), train);
        x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)
    }

    /// Pools features `[B, C, h, w]` to `[B, C]`.
    pub fn pool(&self, features: &Tensor) -> Tensor {
        features.mean_dim([2i64, 3].as_slice(), false, None)
    }

    /// C, the width of the pooled output.
    pub fn output_width(&self) -> i64 {
        self.output_width
    }

    /// The config of the tower.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// Prepares for inference in `precision`, with the batch norms moved into the convolutions; outputs are
    /// of its kind.
    pub fn pack(&mut self, precision: Precision) {
        self.stem.pack(precision);
        self.blocks.iter_mut().for_each(|block| block.pack(precision));
    }
}

impl ImageTower for ResNet {
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.forward(pixel_values, train)
    }

    fn forward_tokens(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        regions(&self.forward_features(pixel_values, train))
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
        self.output_width
    }

    fn pack(&mut self, precision: Precision) {
        self.pack(precision);
    }
}

/// A residual block: two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 with four times the width at the end.
#[derive(Debug)]
struct Block {
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
    output: i64,
}

impl Block {
    fn new(path: &Path, kind: BlockKind, input: i64, width: i64, stride: i64) -> Self {
        let shape = |input, output, kernel, stride| ConvShape { input, output, kernel, stride };
        let (shapes, output) = match kind {
            BlockKind::Basic => (vec![shape(input, width, 3, stride), shape(width, width, 3, 1)], width),
            BlockKind::Bottleneck => {
                let output = 4 * width;
                (
                    vec![
                        shape(input, width, 1, 1),
                        shape(width, width, 3, stride),
                        shape(width, output, 1, 1),
                    ],
                    output,
                )
            }
        };
        let convs = (1..)
            .zip(shapes)
            .map(|(n, shape)| {
                ConvNorm::new(&(path / format!("conv{n}")), &(path / format!("bn{n}")), shape, he_init())
            })
            .collect();
        let downsample = (stride > 1 || input != output).then(|| {
            let path = path / "downsample";
            ConvNorm::new(&(&path / 0), &(&path / 1), shape(input, output, 1, stride), he_init())
        });
        Self { convs, downsample, output }
    }

    /// Maps `x` `[B, input, H, W]` to `[B, output, H / stride, W / stride]`.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let (last, first) = self.convs.split_last().expect("a block has two or three convolutions");
        let inner = first.iter().fold(x.shallow_clone(), |x, conv| conv.forward_relu(&x, train));
        let mut y = last.forward(&inner, train);
        match &self.downsample {
            Some(downsample) => y += downsample.forward(x, train),
            None => y += x,
        }
        y.relu_()
    }

    fn pack(&mut self, precision: Precision) {
        self.convs.iter_mut().chain(&mut self.downsample).for_each(|conv| conv.pack(precision));
    }
}

fn he_init() -> Init {
    Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::nn::uninitialized;
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    #[test]
    fn features_of_fewer_stages_are_finer() {
        for (stages, channels, side) in [(4, 32, 2), (3, 16, 4), (1, 4, 16)] {
            let config = ResNetConfig { depth: 18, width: 4, stages, image_size: 64 };
            let vs = VarStore::new(Device::Cpu);
            let resnet = uninitialized(|| ResNet::new(&vs.root(), config.clone())).unwrap();
            let images = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
            assert_eq!(resnet.forward_features(&images, false).size(), [1, channels, side, side]);
            assert_eq!((resnet.output_width(), config.token_grid().side), (channels, side));
        }
        for (stages, image_size, message) in
            [(0, 64, "stages is 0"), (5, 64, "from 1 to 4"), (3, 40, "of 16")]
        {
            let config = ResNetConfig { stages, image_size, ..ResNetConfig::default() };
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
