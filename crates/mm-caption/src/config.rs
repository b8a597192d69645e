//! The config of a captioner.

use crate::prefix::MAPPER_HEADS;
use crate::{Error, Result};
use mm_core::hf::check_sizes;
use mm_text::decoder::TextDecoderConfig;
use mm_vision::ImageTowerConfig;
use serde::{Deserialize, Serialize};

/// The parts of a captioner and how they are joined.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaptionerConfig {
    /// The image tower.
    pub image: ImageTowerConfig,
    /// The decoder.
    pub decoder: TextDecoderConfig,
    /// How the decoder reads the image; also the family of checkpoints, which names the parameters.
    pub variant: CaptionerVariant,
}

/// How a decoder reads an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionerVariant {
    /// By cross-attention over the image's tokens; transformers' `BlipForConditionalGeneration` (Li et al.
    /// 2022).
    Blip,
    /// By cross-attention over the image's tokens, projected where the widths differ; transformers'
    /// `VisionEncoderDecoderModel`.
    EncoderDecoder,
    /// As a prefix of vectors made from the image's CLIP embedding (ClipCap, Mokady et al. 2021).
    Prefix(PrefixConfig),
}

/// The mapping network of [`CaptionerVariant::Prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixConfig {
    /// Vectors before the caption.
    pub length: i64,
    /// The network that makes them.
    #[serde(default)]
    pub mapper: PrefixMapperConfig,
    /// Width of the projection of the CLIP embedding.
    pub projection: i64,
    /// Whether the CLIP embedding is scaled to length 1.
    #[serde(default)]
    pub is_normalized: bool,
}

/// A mapping network of ClipCap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PrefixMapperConfig {
    /// Two linear layers with tanh between (Mokady et al. 2021, section 3.2).
    #[default]
    Mlp,
    /// A transformer over vectors from the embedding and learned ones (section 3.3).
    Transformer {
        /// Vectors made from the embedding.
        clip_length: i64,
        /// Blocks.
        layers: i64,
    },
}

impl PrefixConfig {
    /// Checks that the network can be built for a decoder of `width`.
    fn check_sizes(&self, width: i64) -> Result<()> {
        let mut sizes = vec![("prefix.length", self.length), ("prefix.projection", self.projection)];
        if let PrefixMapperConfig::Transformer { clip_length, layers } = self.mapper {
            sizes.extend([("prefix.clip_length", clip_length), ("prefix.layers", layers)]);
            if width % MAPPER_HEADS != 0 {
                return Err(Error::Model(format!(
                    "the mapping transformer has {MAPPER_HEADS} heads, which do not divide the width \
                     {width} of the decoder"
                )));
            }
        }
        check_sizes(&sizes).map_err(Error::Model)
    }
}

impl CaptionerConfig {
    /// Width of the states that cross-attention reads; none for a prefix.
    pub(crate) fn context_width(&self, tokens_width: i64) -> Option<i64> {
        match self.variant {
            CaptionerVariant::Blip => Some(tokens_width),
            // transformers projects to the decoder's width.
            CaptionerVariant::EncoderDecoder => Some(self.decoder.width()),
            CaptionerVariant::Prefix(_) => None,
        }
    }

    /// Vectors before the tokens of a caption.
    pub fn prefix_length(&self) -> usize {
        match self.variant {
            CaptionerVariant::Prefix(prefix) => prefix.length as usize,
            CaptionerVariant::Blip | CaptionerVariant::EncoderDecoder => 0,
        }
    }

    /// The path of the image tower's parameters.
    pub fn image_root(&self) -> &'static str {
        match self.variant {
            CaptionerVariant::Blip | CaptionerVariant::Prefix(_) => "vision_model",
            CaptionerVariant::EncoderDecoder => "encoder",
        }
    }

    /// The path of the decoder's parameters.
    pub fn decoder_root(&self) -> &'static str {
        match self.variant {
            CaptionerVariant::Blip => "text_decoder",
            CaptionerVariant::EncoderDecoder => "decoder",
            CaptionerVariant::Prefix(_) => "gpt",
        }
    }

    /// Checks that a captioner can be built.
    ///
    /// # Errors
    /// A tower, the decoder or the mapping network is out of range, or they do not go together.
    pub fn validate(&self) -> Result<()> {
        self.image.validate()?;
        self.decoder.validate()?;
        let is_bert = matches!(self.decoder, TextDecoderConfig::Bert(_));
        match self.variant {
            CaptionerVariant::Blip if !is_bert => {
                Err(Error::Model("a BLIP captioner has a decoder of kind = \"bert\"".to_owned()))
            }
            CaptionerVariant::Prefix(_) if is_bert => {
                Err(Error::Model("a prefix is read by a decoder of kind = \"gpt2\"".to_owned()))
            }
            CaptionerVariant::Prefix(prefix) => {
                prefix.check_sizes(self.decoder.width())?;
                if prefix.length >= self.decoder.max_length() {
                    let (length, limit) = (prefix.length, self.decoder.max_length());
                    return Err(Error::Model(format!(
                        "a prefix of {length} vectors leaves no room in the {limit} positions of the decoder"
                    )));
                }
                Ok(())
            }
            CaptionerVariant::Blip | CaptionerVariant::EncoderDecoder => Ok(()),
        }
    }

    /// The captioner in a few words.
    pub fn describe(&self) -> String {
        let read = match self.variant {
            CaptionerVariant::Blip => "BLIP: cross-attention over the image's tokens".to_owned(),
            CaptionerVariant::EncoderDecoder => "cross-attention over the image's tokens".to_owned(),
            CaptionerVariant::Prefix(prefix) => format!("a prefix of {} vectors", prefix.length),
        };
        format!("{}; {}; {read}", self.image.describe(), self.decoder.describe())
    }

    /// Whether training recomputes the activations of blocks in the backward pass.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.image.set_gradient_checkpointing(on);
        self.decoder.set_gradient_checkpointing(on);
    }
}
