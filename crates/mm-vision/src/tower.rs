//! The image towers, behind one interface.

use crate::ImageProcessor;
use crate::error::Result;
use crate::modified_resnet::ModifiedResNetConfig;
use crate::position_table::PositionTable;
use crate::resnet::ResNetConfig;
use crate::vit::VitAttention;
use crate::vit_config::VitConfig;
use mm_core::Precision;
use mm_core::nn::TowerSpec;
use std::fmt::Debug;
use tch::Tensor;
use tch::nn::Path;

mm_core::tower_configs! {
    /// The config of any image tower; in TOML, `kind = "vit"` beside the fields of the tower's own config.
    pub enum ImageTowerConfig: dyn ImageTowerSpec {
        /// A vision transformer.
        Vit(VitConfig) = "vit",
        /// A ResNet, as in torchvision.
        ResNet(ResNetConfig) = "resnet",
        /// CLIP's modified ResNet.
        ModifiedResNet(ModifiedResNetConfig) = "modified_resnet",
    }
}

/// The config of an image tower.
pub trait ImageTowerSpec: TowerSpec {
    /// Creates the tower with its parameters below `path`.
    ///
    /// # Errors
    /// As [`ImageTowerSpec::validate`].
    fn build(&self, path: &Path) -> Result<Box<dyn ImageTower>>;

    /// Checks that the tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    fn validate(&self) -> Result<()>;

    /// Side of the square input, in pixels.
    fn image_size(&self) -> i64;

    /// The regions along a side of the image in [`ImageTower::forward_tokens`], and the tokens before them.
    fn token_grid(&self) -> TokenGrid;

    /// Sets the side of the square input, in pixels.
    fn set_image_size(&mut self, size: i64);

    /// The parameter that holds the tower's positions; none for a tower without positions in its weights.
    fn position_table(&self) -> Option<PositionTable> {
        None
    }

    /// The name of the tower's path in the checkpoint of a pair.
    fn root(&self) -> &'static str {
        "vision_model"
    }

    /// Whether the output is already in the space shared with texts, so that no projection follows.
    fn ends_in_shared_space(&self) -> bool {
        false
    }

    /// The preprocessing of a new tower.
    fn default_processor(&self) -> ImageProcessor {
        ImageProcessor::default_clip(self.image_size() as u32)
    }

    /// transformers' class of the tower's preprocessing.
    fn processor_class(&self) -> &'static str {
        "CLIPImageProcessor"
    }
}

impl ImageTowerConfig {
    /// The same tower for square images of `size` pixels a side. Its table of positions changes with it: see
    /// [`resize_positions`](crate::resize_positions).
    ///
    /// # Errors
    /// As [`ImageTowerSpec::validate`].
    pub fn with_image_size(mut self, size: i64) -> Result<Self> {
        self.set_image_size(size);
        self.validate()?;
        Ok(self)
    }
}

/// How the vectors of [`ImageTower::forward_tokens`] cover the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenGrid {
    /// Tokens before the regions: a ViT's class token.
    pub extra_tokens: i64,
    /// Regions along a side of the image.
    pub side: i64,
}

/// An image tower: `pixel_values` in, one vector an image out.
pub trait ImageTower: Debug + Send {
    /// Maps `pixel_values` `[B, 3, image_size, image_size]` to `[B, output_width]`. `train` turns on what
    /// differs in training: a ViT's patch dropout, a ResNet's batch statistics.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor;

    /// Maps `pixel_values` to one vector for each region of the image, before any pooling: `[B, S,
    /// tokens_width]`, row by row. A ViT's come after its class token, a ResNet's are its last feature map.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    fn forward_tokens(&self, pixel_values: &Tensor, train: bool) -> Tensor;

    /// Maps `pixel_values` to the output of each block, outside training, with one vector for each region of
    /// the image: `[B, S, C]`, of S and C that differ between the blocks of a ResNet.
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    fn forward_blocks(&self, pixel_values: &Tensor) -> Vec<Tensor>;

    /// As [`ImageTower::forward`] outside training, with the activations that a heat map is made from.
    fn forward_with_taps(&self, pixel_values: &Tensor) -> HeatMapTaps;

    /// Width of the output.
    fn output_width(&self) -> i64;

    /// Width of [`ImageTower::forward_tokens`].
    fn tokens_width(&self) -> i64 {
        self.output_width()
    }

    /// Prepares for inference in `precision`; outputs are of its kind. A packed tower cannot be trained.
    fn pack(&mut self, precision: Precision);
}

/// A feature map `[B, C, h, w]` as one vector a region, row by row: `[B, h w, C]`.
pub(crate) fn regions(features: &Tensor) -> Tensor {
    features.flatten(2, 3).transpose(1, 2)
}

/// The activations that a heat map over the image is made from, in one graph with the pooled output.
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

impl HeatMapTaps {
    /// The pooled output, `[B, output_width]`.
    pub fn pooled(&self) -> &Tensor {
        match self {
            Self::Attention(vit) => &vit.pooled,
            Self::Features { pooled, .. } => pooled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{VitVariant, resize_positions};
    use mm_core::nn::{shapes_only, uninitialized};
    use tch::Device;
    use tch::nn::VarStore;

    /// Small towers of every kind.
    fn towers() -> Vec<ImageTowerConfig> {
        let vit = |variant| VitConfig {
            variant,
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 64,
            patch_size: 16,
            ..Default::default()
        };
        let resnet = ResNetConfig { depth: 18, width: 4, image_size: 64, ..Default::default() };
        let modified =
            ModifiedResNetConfig { layers: [1; 4], width: 4, heads: 2, output_dim: 8, image_size: 64 };
        let vits = [VitVariant::Clip, VitVariant::Siglip, VitVariant::Vit, VitVariant::Blip]
            .map(|variant| ImageTowerConfig::Vit(vit(variant)));
        let fewer_stages = ResNetConfig { stages: 3, ..resnet.clone() };
        let resnets = [resnet, fewer_stages].map(ImageTowerConfig::ResNet);
        let others = resnets.into_iter().chain([ImageTowerConfig::ModifiedResNet(modified)]);
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
    fn the_tokens_of_an_image_cover_its_grid() {
        for config in towers() {
            let vs = VarStore::new(Device::Cpu);
            let tower = uninitialized(|| config.build(&vs.root())).unwrap();
            let pixel_values = tch::Tensor::zeros([2, 3, 64, 64], (tch::Kind::Float, Device::Cpu));
            let TokenGrid { extra_tokens, side } = config.token_grid();
            let expected = [2, extra_tokens + side * side, tower.tokens_width()];
            assert_eq!(tower.forward_tokens(&pixel_values, false).size(), expected, "{config:?}");
        }
    }

    #[test]
    fn an_image_size_that_no_tower_can_have_is_an_error() {
        for config in towers() {
            let error = config.with_image_size(15).unwrap_err().to_string();
            assert!(error.contains("image_size 15"), "{error}");
        }
    }

    #[test]
    fn every_parameter_has_a_depth_and_decays_unless_it_is_an_embedding_of_class_or_position() {
        for config in towers() {
            let vs = VarStore::new(Device::Cpu);
            shapes_only(|| config.build(&vs.root())).unwrap();
            let names: Vec<String> = vs.variables().into_keys().collect();
            let depths: Vec<usize> = names.iter().map(|name| config.depth(name)).collect();
            for depth in 0..=config.blocks() {
                assert!(depths.contains(&depth), "{config:?} has no parameter at depth {depth}");
            }
            assert!(depths.iter().all(|&depth| depth <= config.blocks() + 1), "{config:?}");
            let mut exempt: Vec<&str> = names
                .iter()
                .filter(|name| !config.has_weight_decay(name))
                .map(|name| name.as_str())
                .collect();
            exempt.sort_unstable();
            let expected: &[&str] = match &config {
                ImageTowerConfig::Vit(vit) => match vit.variant {
                    VitVariant::Clip => {
                        &["embeddings.class_embedding", "embeddings.position_embedding.weight"]
                    }
                    VitVariant::Siglip => &["embeddings.position_embedding.weight", "head.probe"],
                    VitVariant::Vit => &["embeddings.cls_token", "embeddings.position_embeddings"],
                    VitVariant::Blip => &["embeddings.class_embedding", "embeddings.position_embedding"],
                },
                ImageTowerConfig::ResNet(_) => &[],
                ImageTowerConfig::ModifiedResNet(_) => &["attnpool.positional_embedding"],
            };
            assert_eq!(exempt, expected);
        }
    }

    #[test]
    fn depth_counts_from_the_embeddings_to_the_head() {
        let config = ImageTowerConfig::Vit(VitConfig::default());
        for (name, depth) in [
            ("embeddings.class_embedding", 0),
            ("pre_layrnorm.weight", 0),
            ("encoder.layers.0.mlp.fc1.weight", 1),
            ("encoder.layers.11.mlp.fc1.weight", 12),
            ("post_layernorm.bias", 12),
        ] {
            assert_eq!(config.depth(name), depth, "{name}");
        }
        let config = ImageTowerConfig::ModifiedResNet(ModifiedResNetConfig::default());
        for (name, depth) in [
            ("conv1.weight", 0),
            ("bn3.running_mean", 0),
            ("layer1.0.conv1.weight", 1),
            ("layer4.2.bn1.weight", 4),
            ("attnpool.c_proj.weight", 5),
        ] {
            assert_eq!(config.depth(name), depth, "{name}");
        }
    }
}
