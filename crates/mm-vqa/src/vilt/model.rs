//! The model: one transformer over words and patches, and a classifier of answers.

use super::ViltConfig;
use super::config::INIT_STD;
use super::embeddings::ViltEmbeddings;
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::nn::{Activation, AttentionMask, BlockNames, LayerNorm, Linear, Transformer};
use mm_text::TokenBatch;
use mm_vision::PaddedImages;
use tch::nn::Path;
use tch::{Kind, Tensor};

/// ViLT (Kim et al. 2021) with a classifier of answers. Parameters have the names of transformers'
/// `ViltForQuestionAnswering`, whose random order of patches is their natural order here: outputs differ by
/// rounding alone.
#[derive(Debug)]
pub struct Vilt {
    embeddings: ViltEmbeddings,
    encoder: Transformer,
    layer_norm: LayerNorm,
    pooler: Linear,
    classifier: Classifier,
    patch_size: i64,
    max_length: i64,
}

/// From the pooled question to a logit for each answer.
#[derive(Debug)]
struct Classifier {
    dense: Linear,
    norm: LayerNorm,
    output: Linear,
}

/// Epsilon of the classifier's layer norm: torch's default, not the config's.
const CLASSIFIER_EPS: f64 = 1e-5;

impl Vilt {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// As [`ViltConfig::validate`].
    pub fn new(path: &Path, config: &ViltConfig) -> Result<Self> {
        config.validate()?;
        let (vilt, head, width) = (path / "vilt", path / "classifier", config.hidden_size);
        let layers = &vilt / "encoder" / "layer";
        let answers = config.answers.len() as i64;
        Ok(Self {
            embeddings: ViltEmbeddings::new(&(&vilt / "embeddings"), config),
            encoder: Transformer::new(&layers, &config.block_config(), &BlockNames::VIT),
            layer_norm: LayerNorm::new(&(&vilt / "layernorm"), width, config.layer_norm_eps),
            pooler: Linear::new(&(&vilt / "pooler" / "dense"), width, width, INIT_STD),
            classifier: Classifier {
                dense: Linear::new(&(&head / 0), width, 2 * width, INIT_STD),
                norm: LayerNorm::new(&(&head / 1), 2 * width, CLASSIFIER_EPS),
                output: Linear::new(&(&head / 3), 2 * width, answers, INIT_STD),
            },
            patch_size: config.patch_size,
            max_length: config.max_position_embeddings,
        })
    }

    /// The logits `[B, answers]` of `questions` `[B, L]` about `images`, one each. Padding of images and of
    /// questions is hidden: a batch gives what its items give alone.
    ///
    /// # Errors
    /// The numbers of images and questions differ, an image is no whole number of patches, or a question is
    /// longer than the table of positions: [`Tokenizer::within`](mm_text::Tokenizer::within) cuts it and
    /// counts.
    pub fn forward(&self, images: &PaddedImages, questions: &TokenBatch) -> Result<Tensor> {
        let (x, mask) = self.embed(images, questions)?;
        let first = Tensor::zeros([x.size()[0]], (Kind::Int64, x.device()));
        Ok(self.classify(&self.encoder.forward_at(x, &mask, &first)))
    }

    /// As [`Vilt::forward`], also giving the attention weights of each block `[B, heads, S, S]`. S counts the
    /// tokens of the longest question, the class token of the image, and the patches of the image with the
    /// most of them, row by row. Slower; for analysis.
    ///
    /// # Errors
    /// As [`Vilt::forward`].
    pub fn forward_with_weights(
        &self,
        images: &PaddedImages,
        questions: &TokenBatch,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let (x, mask) = self.embed(images, questions)?;
        let (x, weights) = self.encoder.forward_with_weights(x, &mask);
        Ok((self.classify(&x.select(1, 0)), weights))
    }

    /// The input of the blocks.
    fn embed(&self, images: &PaddedImages, questions: &TokenBatch) -> Result<(Tensor, AttentionMask)> {
        let (count, length) = questions.input_ids.size2()?;
        let wrong = |problem: String| Err(Error::Model(problem));
        if count != images.sizes.len() as i64 {
            return wrong(format!("{count} questions about {} images", images.sizes.len()));
        }
        if length > self.max_length {
            let limit = self.max_length;
            return wrong(format!("a question of {length} tokens exceeds the {limit} positions"));
        }
        let patch = self.patch_size;
        let is_whole = |&&(height, width): &&(i64, i64)| {
            height >= patch && width >= patch && height % patch == 0 && width % patch == 0
        };
        if let Some((height, width)) = images.sizes.iter().find(|size| !is_whole(size)) {
            return wrong(format!(
                "an image of {width} x {height} pixels is no whole number of patches of {patch} x {patch}: \
                 the size_divisor of the preprocessing must be a multiple of patch_size"
            ));
        }
        let (x, mask) = self.embeddings.forward(images, questions);
        Ok((x, AttentionMask::padding_if_any(&mask)))
    }

    /// Maps the encoder's first tokens `[B, width]` to logits.
    fn classify(&self, first: &Tensor) -> Tensor {
        let pooled = self.pooler.forward(&self.layer_norm.forward(first)).tanh();
        let Classifier { dense, norm, output } = &self.classifier;
        output.forward(&Activation::Gelu.forward(&norm.forward(&dense.forward(&pooled))))
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.embeddings.pack(precision);
        self.encoder.pack(precision);
        self.layer_norm.pack(precision);
        self.pooler.pack(precision);
        self.classifier.dense.pack(precision);
        self.classifier.norm.pack(precision);
        self.classifier.output.pack(precision);
    }
}
