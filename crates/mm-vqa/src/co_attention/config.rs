//! The config of a co-attention model.

use crate::{Error, Result};
use mm_core::hf::{check_heads, check_layers, check_sizes};
use mm_text::QuestionEncoderConfig;
use mm_vision::ImageTowerConfig;
use serde::{Deserialize, Serialize};

/// The answers of VQA v2's usual vocabulary: those that at least 9 training questions have.
pub const DEFAULT_CLASSES: i64 = 3129;

/// The parts of a co-attention model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoAttentionConfig {
    /// The image tower.
    pub image: ImageTowerConfig,
    /// The question encoder.
    pub question: QuestionEncoderConfig,
    /// How they are joined.
    pub fusion: FusionConfig,
    /// The number of answers.
    #[serde(default = "default_classes")]
    pub classes: i64,
}

fn default_classes() -> i64 {
    DEFAULT_CLASSES
}

/// How image and question are joined; in TOML, `kind` beside the sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FusionConfig {
    /// Question-guided attention over the image.
    Guided(GuidedConfig),
    /// Parallel co-attention.
    Parallel(ParallelConfig),
    /// Deep modular co-attention.
    Mcan(McanConfig),
}

/// The sizes of question-guided attention. Defaults are near Anderson et al. 2018 (section 3.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuidedConfig {
    /// Width of the image's tokens, and of image and question where they are multiplied.
    pub width: i64,
    /// Width of the layer that scores a token.
    pub attention_width: i64,
    /// The layer that scores a token.
    pub score: GuidedScore,
    /// Attention maps over the image, each with a weighted sum of its own.
    pub glimpses: i64,
    /// Width of the classifier's hidden layer.
    pub classifier_width: i64,
    /// Probability of dropout before the classifier's layers.
    pub dropout: f64,
}

/// The layer that scores a token for a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuidedScore {
    /// Gated tanh of both (Teney et al. 2018, section 3.7; Anderson et al. 2018).
    #[default]
    GatedTanh,
    /// tanh of the sum of their projections (Yang et al. 2016, section 3.3).
    Tanh,
}

impl Default for GuidedConfig {
    fn default() -> Self {
        Self {
            width: 512,
            attention_width: 512,
            score: GuidedScore::GatedTanh,
            glimpses: 1,
            classifier_width: 1024,
            dropout: 0.5,
        }
    }
}

/// The sizes of parallel co-attention. Defaults are those of Lu et al. 2016 (section 4.2), which has one
/// width for the image, words, phrases and questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParallelConfig {
    /// Width of the image's tokens. Those of the question encoder's embeddings and states are the same.
    pub width: i64,
    /// Width of the layer that scores a token.
    pub attention_width: i64,
    /// Width of the classifier's last hidden layer.
    pub classifier_width: i64,
    /// Probability of dropout before the classifier's layers.
    pub dropout: f64,
}

impl Default for ParallelConfig {
    fn default() -> Self {
        Self { width: 512, attention_width: 512, classifier_width: 1024, dropout: 0.5 }
    }
}

/// The sizes of deep modular co-attention. Defaults are those of MCAN-small (Yu et al. 2019, section 5.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McanConfig {
    /// Width of the residual stream.
    pub width: i64,
    /// Attention heads; divides `width`.
    pub heads: i64,
    /// Width between the two layers of a block's MLP.
    pub mlp_width: i64,
    /// Blocks of the question's encoder, and as many of the image's decoder.
    pub layers: i64,
    /// Width of the layer that scores a token in the reduction to one vector.
    pub reduction_width: i64,
    /// Weighted sums in the reduction.
    pub glimpses: i64,
    /// Width of the vector that is classified.
    pub output_width: i64,
    /// Probability of dropout.
    pub dropout: f64,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`](mm_core::nn::BlockConfig::gradient_checkpointing). It is not
    /// stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

impl Default for McanConfig {
    fn default() -> Self {
        Self {
            width: 512,
            heads: 8,
            mlp_width: 2048,
            layers: 6,
            reduction_width: 512,
            glimpses: 1,
            output_width: 1024,
            dropout: 0.1,
            gradient_checkpointing: false,
        }
    }
}

impl FusionConfig {
    /// Width of the image's tokens in the fusion.
    pub fn width(&self) -> i64 {
        match self {
            Self::Guided(config) => config.width,
            Self::Parallel(config) => config.width,
            Self::Mcan(config) => config.width,
        }
    }

    /// Checks that it can be built on the states of `question`.
    fn validate(&self, question: &QuestionEncoderConfig) -> std::result::Result<(), String> {
        match self {
            Self::Guided(config) => {
                check_sizes(&[
                    ("width", config.width),
                    ("attention_width", config.attention_width),
                    ("glimpses", config.glimpses),
                    ("classifier_width", config.classifier_width),
                ])?;
                check_dropout(config.dropout)
            }
            Self::Parallel(config) => {
                check_sizes(&[
                    ("width", config.width),
                    ("attention_width", config.attention_width),
                    ("classifier_width", config.classifier_width),
                ])?;
                let (width, words, states) =
                    (config.width, question.embedding_width(), question.output_width());
                if words != width || states != width {
                    return Err(format!(
                        "parallel co-attention has one width: its width is {width}, that of the question's \
                         embeddings {words} and of its states {states}"
                    ));
                }
                check_dropout(config.dropout)
            }
            Self::Mcan(config) => {
                check_sizes(&[
                    ("width", config.width),
                    ("heads", config.heads),
                    ("mlp_width", config.mlp_width),
                    ("reduction_width", config.reduction_width),
                    ("glimpses", config.glimpses),
                    ("output_width", config.output_width),
                ])?;
                check_layers("layers", config.layers)?;
                check_heads(config.width, config.heads)?;
                check_dropout(config.dropout)
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Guided(GuidedConfig { width, glimpses, .. }) => {
                format!("question-guided attention: width {width}, {glimpses} glimpses")
            }
            Self::Parallel(ParallelConfig { width, .. }) => format!("parallel co-attention: width {width}"),
            Self::Mcan(McanConfig { width, heads, layers, .. }) => {
                format!("MCAN: {layers} + {layers} blocks, width {width}, {heads} heads")
            }
        }
    }
}

impl CoAttentionConfig {
    /// Checks that a model can be built.
    ///
    /// # Errors
    /// A part is out of range, or the parts do not go together.
    pub fn validate(&self) -> Result<()> {
        self.image.validate()?;
        self.question.validate()?;
        check_sizes(&[("classes", self.classes)]).map_err(Error::Model)?;
        self.fusion.validate(&self.question).map_err(|reason| Error::Model(format!("fusion: {reason}")))
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        let Self { image, question, fusion, classes } = self;
        format!("{}; {}; {}; {classes} answers", image.describe(), question.describe(), fusion.describe())
    }

    /// Whether training recomputes the activations of blocks in the backward pass.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.image.set_gradient_checkpointing(on);
        self.question.set_gradient_checkpointing(on);
        if let FusionConfig::Mcan(config) = &mut self.fusion {
            config.gradient_checkpointing = on;
        }
    }
}

fn check_dropout(dropout: f64) -> std::result::Result<(), String> {
    if (0.0..1.0).contains(&dropout) {
        Ok(())
    } else {
        Err(format!("dropout is {dropout}: it must be at least 0 and below 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
        [image]
        kind = "resnet"
        depth = 18
        width = 8
        image_size = 64
        [question]
        kind = "lstm"
        vocab_size = 40
        hidden_size = 64
        [fusion]
        kind = "mcan"
        width = 64
        heads = 4
        layers = 2
    "#;

    fn config() -> CoAttentionConfig {
        toml::from_str(TOML).unwrap()
    }

    fn message(change: impl Fn(&mut CoAttentionConfig)) -> String {
        let mut config = config();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_table_gives_the_model_and_absent_keys_the_sizes_of_the_papers() {
        let config = config();
        config.validate().unwrap();
        let mcan = McanConfig { width: 64, heads: 4, layers: 2, ..McanConfig::default() };
        assert_eq!((&config.fusion, config.classes), (&FusionConfig::Mcan(mcan), 3129));
        let described = config.describe();
        assert!(described.contains("MCAN: 2 + 2 blocks, width 64, 4 heads; 3129 answers"), "{described}");
    }

    #[test]
    fn an_unknown_key_or_kind_is_an_error() {
        for (from, to) in [("heads = 4", "haeds = 4"), ("\"mcan\"", "\"ban\""), ("hidden_size", "hidden")] {
            assert!(toml::from_str::<CoAttentionConfig>(&TOML.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_size_out_of_range_is_named() {
        let mcan = |change: fn(&mut McanConfig)| {
            message(|config| {
                let mut mcan = McanConfig { width: 64, ..McanConfig::default() };
                change(&mut mcan);
                config.fusion = FusionConfig::Mcan(mcan);
            })
        };
        assert!(mcan(|config| config.heads = 5).contains("64 is no multiple of num_attention_heads 5"));
        assert!(mcan(|config| config.dropout = 1.0).contains("fusion: dropout is 1"));
        assert!(mcan(|config| config.layers = 0).contains("fusion: layers is 0"));
        assert!(message(|config| config.classes = 0).contains("classes is 0"));
    }

    #[test]
    fn parallel_co_attention_has_one_width() {
        let error = message(|config| config.fusion = FusionConfig::Parallel(ParallelConfig::default()));
        assert!(error.contains("its width is 512, that of the question's embeddings 300"), "{error}");
    }
}
