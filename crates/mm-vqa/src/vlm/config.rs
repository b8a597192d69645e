//! The config of a vision-language model.

use crate::{Error, Result};
use mm_core::nn::{Activation, TowerSpec};
use mm_text::decoder::{LlamaConfig, TextDecoderSpec};
use mm_vision::{VitConfig, VitVariant};
use serde::{Deserialize, Serialize};

/// The family of a vision-language model: the names of its parameters and the form of its prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VlmFamily {
    /// SmolVLM (Marafioti et al. 2025).
    SmolVlm,
    /// Idefics3 (Laurençon et al. 2024), of which SmolVLM is a small one under another name.
    Idefics3,
    /// LLaVA-1.5 (Liu et al. 2023) and models of its form.
    Llava,
}

impl VlmFamily {
    /// transformers' `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::SmolVlm => "smolvlm",
            Self::Idefics3 => "idefics3",
            Self::Llava => "llava",
        }
    }

    /// The path of the image tower's parameters.
    pub fn tower_root(self) -> &'static str {
        match self {
            Self::SmolVlm | Self::Idefics3 => "model.vision_model",
            Self::Llava => "vision_tower",
        }
    }

    /// The path of the connector's parameters.
    pub fn connector_root(self) -> &'static str {
        match self {
            Self::SmolVlm | Self::Idefics3 => "model.connector",
            Self::Llava => "multi_modal_projector",
        }
    }

    /// The path of the decoder's embeddings, blocks and norm.
    pub fn body_root(self) -> &'static str {
        match self {
            Self::SmolVlm | Self::Idefics3 => "model.text_model",
            Self::Llava => "language_model.model",
        }
    }

    /// The path of the decoder's output layer.
    pub fn head_root(self) -> &'static str {
        match self {
            Self::SmolVlm | Self::Idefics3 => "lm_head",
            Self::Llava => "language_model.lm_head",
        }
    }
}

/// Which of the tower's vectors the connector reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSelection {
    /// All but the first, CLIP's class token.
    #[default]
    Default,
    /// All.
    Full,
}

/// How the tower's vectors become vectors of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConnectorConfig {
    /// Idefics3's: the normalized outputs of `scale_factor` x `scale_factor` patches are one vector (pixel
    /// shuffle, Shi et al. 2016), and a linear layer follows.
    PixelShuffle {
        /// Patches along a side of what becomes one vector.
        scale_factor: i64,
    },
    /// LLaVA's: two linear layers with an activation between, for each vector of a block of the tower.
    Mlp {
        /// The activation.
        activation: Activation,
        /// Whether the layers have biases.
        bias: bool,
        /// The block whose outputs are read, as a place in the list of the input of the first block and the
        /// outputs of all: -1 is the last block, -2 the one before, 1 the first.
        layer: i64,
        /// Which of its vectors are read.
        selection: FeatureSelection,
    },
}

/// The parts of a [`Vlm`](super::Vlm).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlmConfig {
    /// The family.
    pub family: VlmFamily,
    /// The image tower.
    pub vision: VitConfig,
    /// Whether SigLIP's tower has its pooling head, which is not used here.
    #[serde(default)]
    pub vision_use_head: bool,
    /// The decoder.
    pub text: LlamaConfig,
    /// What stands between.
    pub connector: ConnectorConfig,
    /// The placeholder token.
    pub image_token_id: u32,
}

impl VlmConfig {
    /// Checks that a model can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        TextDecoderSpec::validate(&self.text)?;
        let wrong = |problem: String| Err(Error::Model(problem));
        let variant = self.vision.variant;
        if variant != VitVariant::Siglip && (variant != VitVariant::Clip || self.family != VlmFamily::Llava) {
            return wrong(format!(
                "the image tower is of the variant {}: it must be siglip, or clip with llava",
                variant.name()
            ));
        }
        match self.connector {
            ConnectorConfig::PixelShuffle { scale_factor } if self.family != VlmFamily::Llava => {
                self.check_scale(scale_factor, self.vision.image_size)?;
            }
            ConnectorConfig::Mlp { layer, .. } if self.family == VlmFamily::Llava => {
                let layers = self.vision.num_hidden_layers;
                if !(-layers - 1..=layers).contains(&layer) {
                    return wrong(format!(
                        "vision_feature_layer is {layer}: it must be from {} to {layers}",
                        -layers - 1
                    ));
                }
            }
            _ => {
                let family = self.family.model_type();
                return wrong(format!(
                    "the connector is not that of {family}: llava has mlp, the others have pixel_shuffle"
                ));
            }
        }
        let (id, rows) = (self.image_token_id, self.text.vocab_size);
        if !(1..rows).contains(&i64::from(id)) {
            return wrong(format!("image_token_id is {id}: it must be from 1 to {}", rows - 1));
        }
        Ok(())
    }

    /// Checks that tiles of `side` pixels are whole vectors of the connector.
    fn check_scale(&self, scale_factor: i64, side: i64) -> Result<()> {
        let patch = self.vision.patch_size;
        let patches = side / patch;
        if scale_factor < 1 || scale_factor > patches || patches % scale_factor != 0 {
            return Err(Error::Model(format!(
                "images of {side} pixels have {patches} patches of {patch} pixels a side, which is no \
                 multiple of scale_factor {scale_factor}"
            )));
        }
        Ok(())
    }

    /// The number of vectors that a tile of `side` pixels becomes.
    ///
    /// # Errors
    /// The tower does not take such tiles.
    pub fn tile_tokens(&self, side: i64) -> Result<usize> {
        match self.connector {
            ConnectorConfig::PixelShuffle { scale_factor } => {
                self.check_scale(scale_factor, side)?;
                Ok((side / self.vision.patch_size / scale_factor).pow(2) as usize)
            }
            ConnectorConfig::Mlp { selection, .. } => {
                let size = self.vision.image_size;
                if side != size {
                    return Err(Error::Model(format!(
                        "images become {side} x {side} pixels, but the tower takes {size} x {size}"
                    )));
                }
                let class = i64::from(self.vision.variant == VitVariant::Clip);
                let dropped = i64::from(selection == FeatureSelection::Default);
                Ok((self.vision.patch_grid().pow(2) + class - dropped) as usize)
            }
        }
    }

    /// The place of the connector's input among the tower's states, the input of its first block being 0.
    pub(super) fn feature_layer(&self) -> usize {
        let layers = self.vision.num_hidden_layers;
        let layer = match self.connector {
            ConnectorConfig::PixelShuffle { .. } => layers,
            ConnectorConfig::Mlp { layer, .. } if layer < 0 => layers + 1 + layer,
            ConnectorConfig::Mlp { layer, .. } => layer,
        };
        layer.clamp(0, layers) as usize
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        let connector = match self.connector {
            ConnectorConfig::PixelShuffle { scale_factor } => {
                format!("{scale_factor} x {scale_factor} patches are one token")
            }
            ConnectorConfig::Mlp { layer, .. } => format!("the vectors of layer {layer} are tokens"),
        };
        format!(
            "{}: {}; {connector}; {}",
            self.family.model_type(),
            self.vision.describe(),
            self.text.describe()
        )
    }

    /// The number of layer groups between a parameter and the output of its tower; 0 for those that are in no
    /// tower.
    pub fn depth(&self, name: &str) -> usize {
        let below = |root: &str| name.strip_prefix(root)?.strip_prefix('.');
        let behind =
            |tower: &dyn TowerSpec, name: &str| (tower.blocks() + 1).saturating_sub(tower.depth(name));
        match (below(self.family.tower_root()), below(self.family.body_root())) {
            (Some(name), _) => behind(&self.vision, name),
            (_, Some(name)) => behind(&self.text, name),
            _ => 0,
        }
    }

    /// Whether weight decay applies to a parameter of two dimensions or more.
    pub fn has_weight_decay(&self, name: &str) -> bool {
        let below = |root: &str| name.strip_prefix(root)?.strip_prefix('.');
        match below(self.family.tower_root()) {
            Some(name) => self.vision.has_weight_decay(name),
            None => true,
        }
    }

    /// Whether training recomputes the activations of blocks in the backward pass.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.vision.gradient_checkpointing = on;
        self.text.gradient_checkpointing = on;
    }
}
