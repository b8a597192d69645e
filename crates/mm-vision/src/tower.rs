use crate::error::Result;
use crate::modified_resnet::{ModifiedResNet, ModifiedResNetConfig};
use crate::position_table::PositionTable;
use crate::resnet::{ResNet, ResNetConfig};
use crate::vit::{Vit, VitAttention};
use crate::vit_config::{VitConfig, VitVariant};
use mm_core::Precision;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

/// Which image tower, with its sizes; in TOML, `kind = "vit"` beside the fields of the tower's own config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImageTowerConfig {
    /// A vision transformer.
    Vit(VitConfig),
    /// A ResNet in torchvision's form.
    #[serde(rename = "resnet")]
    ResNet(ResNetConfig),
    /// CLIP's modified ResNet.
    #[serde(rename = "modified_resnet")]
    ModifiedResNet(ModifiedResNetConfig),
}

impl ImageTowerConfig {
    /// Creates the tower with its parameters below `path`.
    ///
    /// # Errors
    /// The config's own: see the `validate` of each.
    pub fn build(&self, path: &Path) -> Result<ImageTower> {
        Ok(match self {
            Self::Vit(config) => ImageTower::Vit(Vit::new(path, config.clone())?),
            Self::ResNet(config) => ImageTower::ResNet(ResNet::new(path, config.clone())?),
            Self::ModifiedResNet(config) => {
                ImageTower::ModifiedResNet(Box::new(ModifiedResNet::new(path, config.clone())?))
            }
        })
    }

    /// Checks that the tower can be built.
    ///
    /// # Errors
    /// The config's own: see the `validate` of each.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Vit(config) => config.validate(),
            Self::ResNet(config) => config.validate(),
            Self::ModifiedResNet(config) => config.validate(),
        }
    }

    /// Side of the square input, in pixels.
    pub fn image_size(&self) -> i64 {
        match self {
            Self::Vit(config) => config.image_size,
            Self::ResNet(config) => config.image_size,
            Self::ModifiedResNet(config) => config.image_size,
        }
    }

    /// The same tower for square images of `size` pixels a side. Its table of positions changes with it: see
    /// [`resize_positions`](crate::resize_positions).
    ///
    /// # Errors
    /// The config's own: see the `validate` of each.
    pub fn with_image_size(mut self, size: i64) -> Result<Self> {
        match &mut self {
            Self::Vit(config) => config.image_size = size,
            Self::ResNet(config) => config.image_size = size,
            Self::ModifiedResNet(config) => config.image_size = size,
        }
        self.validate()?;
        Ok(self)
    }

    /// Whether training computes the activations inside of a transformer's blocks again in the backward pass:
    /// less memory, more time, the same gradients. A ResNet has no such blocks and trains as before.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        match self {
            Self::Vit(config) => config.gradient_checkpointing = on,
            Self::ResNet(_) | Self::ModifiedResNet(_) => {}
        }
    }

    /// Where the tower keeps its positions; none for a ResNet, which has no place in its weights.
    pub fn position_table(&self) -> Option<PositionTable> {
        match self {
            Self::Vit(config) => {
                let name = match config.form {
                    VitVariant::Clip | VitVariant::Siglip => "embeddings.position_embedding.weight",
                    VitVariant::Vit => "embeddings.position_embeddings",
                };
                Some(PositionTable { name, extra_tokens: config.class_tokens(), grid: config.patch_grid() })
            }
            Self::ResNet(_) => None,
            Self::ModifiedResNet(config) => {
                let (name, grid) = ("attnpool.positional_embedding", config.feature_grid());
                Some(PositionTable { name, extra_tokens: 1, grid })
            }
        }
    }
}

/// An image tower: `pixel_values` in, one vector an image out.
#[derive(Debug)]
pub enum ImageTower {
    /// A vision transformer.
    Vit(Vit),
    /// A ResNet in torchvision's form.
    ResNet(ResNet),
    /// CLIP's modified ResNet.
    ModifiedResNet(Box<ModifiedResNet>),
}

/// What a heat map over the image is made from, in one graph with the pooled output.
#[derive(Debug)]
pub enum HeatMapTaps {
    /// Of a ViT: the attention weights (for relevance propagation, Chefer et al. 2021).
    Attention(VitAttention),
    /// Of a ResNet: the last feature map (for Grad-CAM, Selvaraju et al. 2017).
    Features {
        /// `[B, output_width]`.
        pooled: Tensor,
        /// `[B, C, h, w]`.
        features: Tensor,
    },
}

impl ImageTower {
    /// Maps `pixel_values` `[B, 3, image_size, image_size]` to `[B, output_width]`. `train` turns on what
    /// differs in training: a ViT's patch dropout, a ResNet's batch statistics.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    pub fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        match self {
            Self::Vit(vit) if train => vit.forward_train(pixel_values, 1.0 - vit.config().patch_dropout),
            Self::Vit(vit) => vit.forward(pixel_values),
            Self::ResNet(resnet) => resnet.forward(pixel_values, train),
            Self::ModifiedResNet(resnet) => resnet.forward(pixel_values, train),
        }
    }

    /// As [`ImageTower::forward`] outside training, with what a heat map is made from.
    pub fn forward_with_taps(&self, pixel_values: &Tensor) -> HeatMapTaps {
        let (features, pooled) = match self {
            Self::Vit(vit) => return HeatMapTaps::Attention(vit.forward_with_attention(pixel_values)),
            Self::ResNet(resnet) => {
                let features = resnet.forward_features(pixel_values, false);
                let pooled = resnet.pool(&features);
                (features, pooled)
            }
            Self::ModifiedResNet(resnet) => {
                let features = resnet.forward_features(pixel_values, false);
                let pooled = resnet.pool(&features);
                (features, pooled)
            }
        };
        HeatMapTaps::Features { pooled, features }
    }

    /// Width of the output.
    pub fn output_width(&self) -> i64 {
        match self {
            Self::Vit(vit) => vit.config().hidden_size,
            Self::ResNet(resnet) => resnet.output_width(),
            Self::ModifiedResNet(resnet) => resnet.config().output_dim,
        }
    }

    /// Side of the square input, in pixels.
    pub fn image_size(&self) -> i64 {
        match self {
            Self::Vit(vit) => vit.config().image_size,
            Self::ResNet(resnet) => resnet.config().image_size,
            Self::ModifiedResNet(resnet) => resnet.config().image_size,
        }
    }

    /// Readies for inference in `precision`; outputs are of its kind. A packed tower cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Vit(vit) => vit.pack(precision),
            Self::ResNet(resnet) => resnet.pack(precision),
            Self::ModifiedResNet(resnet) => resnet.pack(precision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize_positions;
    use mm_core::nn::shapes_only;
    use tch::Device;
    use tch::nn::VarStore;

    /// Small towers of every kind.
    fn towers() -> Vec<ImageTowerConfig> {
        let vit = |form| VitConfig {
            form,
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 64,
            patch_size: 16,
            ..Default::default()
        };
        let resnet = ResNetConfig { depth: 18, width: 4, image_size: 64 };
        let modified =
            ModifiedResNetConfig { layers: [1; 4], width: 4, heads: 2, output_dim: 8, image_size: 64 };
        let vits = [VitVariant::Clip, VitVariant::Siglip, VitVariant::Vit]
            .map(|form| ImageTowerConfig::Vit(vit(form)));
        let others = [ImageTowerConfig::ResNet(resnet), ImageTowerConfig::ModifiedResNet(modified)];
        vits.into_iter().chain(others).collect()
    }

    #[test]
    fn a_resized_table_of_positions_fits_the_tower_of_that_resolution() {
        for config in towers() {
            let other = config.clone().with_image_size(96).unwrap();
            assert_eq!(other.image_size(), 96);
            let tables = [&config, &other].map(|config| {
                let vs = VarStore::new(Device::Cpu);
                // values would be drawn, while other tests draw
                shapes_only(|| config.build(&vs.root())).unwrap();
                config.position_table().map(|table| vs.variables().remove(table.name).unwrap())
            });
            let Some(place) = other.position_table() else {
                assert!(matches!(config, ImageTowerConfig::ResNet(_)));
                continue;
            };
            let resized =
                resize_positions(tables[0].as_ref().unwrap(), place.extra_tokens, place.grid).unwrap();
            assert_eq!(resized.size(), tables[1].as_ref().unwrap().size(), "{config:?}");
        }
    }

    #[test]
    fn an_image_size_that_no_tower_can_have_is_an_error() {
        for config in towers() {
            let error = config.with_image_size(15).unwrap_err().to_string();
            assert!(error.contains("image_size 15"), "{error}");
        }
    }
}
