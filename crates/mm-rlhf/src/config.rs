//! The config of rewards.

use crate::{
    AestheticReward, Brightness, CaptionFactuality, ClipReward, Error, ImageReward, JpegSize, Result, Reward,
    SceneCounts, SceneReward,
};
use mm_core::DeviceConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The rewards of a run: `[[reward]]` tables, whose weighted sum counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardsConfig {
    /// The rewards.
    pub reward: Vec<RewardConfig>,
}

/// A reward with its weight.
///
/// ```
/// let toml = "kind = 'aesthetic'\nmodel = 'openai/clip-vit-large-patch14'\nhead = 'head.safetensors'";
/// let config: mm_rlhf::RewardConfig = toml::from_str(toml)?;
/// assert_eq!((config.kind(), config.weight()), ("aesthetic", 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardConfig {
    /// The cosine of image and prompt by a CLIP: [`ClipReward`]. HPSv2 with its weights.
    Clip(ModelRewardConfig),
    /// The cosine times exp(logit_scale): PickScore with its weights.
    PickScore(ModelRewardConfig),
    /// Aesthetic quality: [`AestheticReward`].
    Aesthetic(AestheticConfig),
    /// Human preference by a BLIP: [`ImageReward`].
    ImageReward(ModelRewardConfig),
    /// Minus the size as a JPEG: [`JpegSize`].
    JpegCompressibility(JpegConfig),
    /// The size as a JPEG: [`JpegSize`].
    JpegIncompressibility(JpegConfig),
    /// The truth of a drawn scene: [`SceneReward`].
    Scene(SceneRewardConfig),
    /// The truth of a drawn scene by a caption of it: [`CaptionFactuality`].
    CaptionFactuality(CaptionFactualityConfig),
    /// The numbers of its objects, with a gradient: [`SceneCounts`].
    SceneCounts(ModelRewardConfig),
    /// The mean of the pixels, to be exploited: [`Brightness`].
    Brightness(BrightnessConfig),
}

/// A reward that is a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRewardConfig {
    /// Its folder or hub name.
    pub model: String,
    /// The factor of its scores.
    #[serde(default = "one")]
    pub weight: f64,
}

/// An aesthetic reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AestheticConfig {
    /// The folder or hub name of the CLIP.
    pub model: String,
    /// The safetensors file of the MLP on its embeddings.
    pub head: PathBuf,
    /// The factor of its scores.
    #[serde(default = "one")]
    pub weight: f64,
}

/// A reward of file size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JpegConfig {
    /// The quality, 1 to 100; DDPO's is 95.
    #[serde(default = "ddpo_quality")]
    pub quality: u8,
    /// The factor of its scores.
    #[serde(default = "one")]
    pub weight: f64,
}

/// The reward of brightness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrightnessConfig {
    /// The factor of its scores.
    #[serde(default = "one")]
    pub weight: f64,
}

/// A reward of scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneRewardConfig {
    /// The folder or hub name of the judge.
    pub model: String,
    /// Whether a scene that is partly right has a part of the score.
    #[serde(default)]
    pub partial_credit: bool,
    /// The factor of its scores.
    #[serde(default = "one")]
    pub weight: f64,
}

/// A reward of captions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionFactualityConfig {
    /// The folder or hub name of the captioner.
    pub model: String,
    /// The largest number of tokens of a caption.
    #[serde(default = "caption_tokens")]
    pub max_new_tokens: usize,
    /// The factor of its scores.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

fn ddpo_quality() -> u8 {
    95
}

/// Enough for the longest caption of a shapes scene of three objects.
fn caption_tokens() -> usize {
    48
}

impl RewardConfig {
    /// The kinds.
    pub const KINDS: [&str; 10] = [
        "clip",
        "pick_score",
        "aesthetic",
        "image_reward",
        "jpeg_compressibility",
        "jpeg_incompressibility",
        "scene",
        "caption_factuality",
        "scene_counts",
        "brightness",
    ];

    /// The kind, as in the TOML.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Clip(_) => "clip",
            Self::PickScore(_) => "pick_score",
            Self::Aesthetic(_) => "aesthetic",
            Self::ImageReward(_) => "image_reward",
            Self::JpegCompressibility(_) => "jpeg_compressibility",
            Self::JpegIncompressibility(_) => "jpeg_incompressibility",
            Self::Scene(_) => "scene",
            Self::CaptionFactuality(_) => "caption_factuality",
            Self::SceneCounts(_) => "scene_counts",
            Self::Brightness(_) => "brightness",
        }
    }

    /// The factor of the scores.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Clip(config) | Self::PickScore(config) | Self::ImageReward(config) => config.weight,
            Self::Aesthetic(config) => config.weight,
            Self::JpegCompressibility(config) | Self::JpegIncompressibility(config) => config.weight,
            Self::Scene(config) => config.weight,
            Self::CaptionFactuality(config) => config.weight,
            Self::SceneCounts(config) => config.weight,
            Self::Brightness(config) => config.weight,
        }
    }

    /// Whether the reward reads the prompt.
    pub fn reads_prompt(&self) -> bool {
        match self {
            Self::Clip(_) | Self::PickScore(_) | Self::ImageReward(_) => true,
            Self::Scene(_) | Self::SceneCounts(_) | Self::CaptionFactuality(_) => true,
            Self::Aesthetic(_)
            | Self::JpegCompressibility(_)
            | Self::JpegIncompressibility(_)
            | Self::Brightness(_) => false,
        }
    }

    /// Opens the reward on `device`.
    ///
    /// # Errors
    /// A setting is out of its range, or a model cannot be opened.
    pub fn open(&self, device: &DeviceConfig) -> Result<Box<dyn Reward>> {
        let jpeg = |&JpegConfig { quality, .. }: &JpegConfig, is_negative| {
            if (1..=100).contains(&quality) {
                return Ok(JpegSize { quality, is_negative });
            }
            Err(Error::Config(format!("quality is {quality}: a JPEG's is from 1 to 100")))
        };
        Ok(match self {
            Self::Clip(config) => Box::new(ClipReward::open(&config.model, device)?),
            Self::PickScore(config) => Box::new(ClipReward::open_scaled(&config.model, device)?),
            Self::Aesthetic(config) => Box::new(AestheticReward::open(&config.model, &config.head, device)?),
            Self::ImageReward(config) => Box::new(ImageReward::open(&config.model, device)?),
            Self::JpegCompressibility(config) => Box::new(jpeg(config, true)?),
            Self::JpegIncompressibility(config) => Box::new(jpeg(config, false)?),
            Self::SceneCounts(config) => Box::new(SceneCounts::open(&config.model, device)?),
            Self::Brightness(_) => Box::new(Brightness),
            Self::Scene(config) => Box::new(SceneReward::open(&config.model, config.partial_credit, device)?),
            Self::CaptionFactuality(config) => {
                Box::new(CaptionFactuality::open(&config.model, config.max_new_tokens, device)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_has_its_name() {
        for kind in RewardConfig::KINDS {
            let fields = match kind {
                "jpeg_compressibility" | "jpeg_incompressibility" => "quality = 80",
                "brightness" => "",
                "aesthetic" => "model = 'a'\nhead = 'b'",
                _ => "model = 'a'",
            };
            let toml = format!("kind = '{kind}'\nweight = 0.5\n{fields}");
            let config: RewardConfig = toml::from_str(&toml).unwrap();
            assert_eq!((config.kind(), config.weight()), (kind, 0.5));
            let written = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<RewardConfig>(&written).unwrap(), config);
        }
    }

    #[test]
    fn unknown_keys_kinds_and_qualities_are_refused() {
        let message = |toml: &str| toml::from_str::<RewardConfig>(toml).unwrap_err().to_string();
        assert!(message("kind = 'clip'\nmodel = 'a'\nhead = 'b'").contains("unknown field `head`"));
        assert!(message("kind = 'aesthetic'\nmodel = 'a'").contains("missing field `head`"));
        assert!(message("kind = 'beauty'\nmodel = 'a'").contains("unknown variant `beauty`"));
        let jpeg: RewardConfig = toml::from_str("kind = 'jpeg_compressibility'\nquality = 0").unwrap();
        let message = jpeg.open(&DeviceConfig::default()).err().unwrap().to_string();
        assert_eq!(message, "quality is 0: a JPEG's is from 1 to 100");
    }
}
