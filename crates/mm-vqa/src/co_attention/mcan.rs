//! Deep modular co-attention, MCAN (Yu et al. 2019), in its encoder-decoder form.

use super::config::McanConfig;
use super::fusion::{Fusion, FusionInputs, ImageAttention};
use super::layers::{attention_weights, linear, linear_std, weighted_sums};
use mm_core::Precision;
use mm_core::nn::{
    Activation, AttentionMask, BlockConfig, BlockInit, BlockNames, Context, LayerNorm, Linear, Mlp,
    NormOrder, Transformer,
};
use tch::Tensor;
use tch::nn::Path;

/// Epsilon of the layer norms. The authors' code divides by the standard deviation plus this number; here, as
/// in PyTorch, it is added to the variance.
const EPS: f64 = 1e-6;

/// Blocks of self-attention over the question, then blocks of self-attention over the image with guided
/// attention to the encoded question. Each side is reduced to one vector; the sum of both is normalized and
/// classified.
#[derive(Debug)]
pub(super) struct Mcan {
    /// Where the question's states are of another width.
    question_projection: Option<Linear>,
    encoder: Transformer,
    decoder: Transformer,
    question_reduction: Reduction,
    image_reduction: Reduction,
    norm: LayerNorm,
    classifier: Linear,
}

impl Mcan {
    /// Creates the parameters below `path` for question states of `question_width`.
    pub(super) fn new(path: &Path, config: &McanConfig, question_width: i64, classes: i64) -> Self {
        let width = config.width;
        let blocks = BlockConfig {
            width,
            heads: config.heads,
            mlp_width: config.mlp_width,
            activation: Activation::Relu,
            layer_norm_eps: EPS,
            norm_order: NormOrder::Post,
            layers: config.layers,
            init: BlockInit::Normal(linear_std(width)),
            dropout: config.dropout,
            gradient_checkpointing: config.gradient_checkpointing,
            ..BlockConfig::default()
        };
        let decoder = BlockConfig { context_width: Some(width), ..blocks };
        let stack = |name: &str, blocks: &BlockConfig| {
            Transformer::new(&(path / name / "layers"), blocks, &BlockNames::CLIP)
        };
        Self {
            question_projection: (question_width != width)
                .then(|| linear(path, "question_projection", question_width, width)),
            encoder: stack("encoder", &blocks),
            decoder: stack("decoder", &decoder),
            question_reduction: Reduction::new(&(path / "question_reduction"), config),
            image_reduction: Reduction::new(&(path / "image_reduction"), config),
            norm: LayerNorm::new(&(path / "norm"), config.output_width, EPS),
            classifier: linear(path, "classifier", config.output_width, classes),
        }
    }

    /// The encoded question `[Q, L, width]`.
    fn encode_question(&self, inputs: &FusionInputs) -> Tensor {
        let states = inputs.encoder.encode(inputs.embedded, inputs.lengths).tokens;
        let states = self.question_projection.as_ref().map_or(states.shallow_clone(), |p| p.forward(&states));
        self.encoder.forward(states, &AttentionMask::padding(inputs.mask))
    }
}

impl Fusion for Mcan {
    fn forward(&self, inputs: &FusionInputs, wanted: bool) -> (Tensor, Option<ImageAttention>) {
        let question = self.encode_question(inputs);
        let image = inputs.by_question(inputs.image_tokens); // [Q, N, width]
        let (mask, context) = (
            AttentionMask::none(),
            Context { states: question.shallow_clone(), mask: AttentionMask::padding(inputs.mask) },
        );
        let (image, blocks) = if wanted {
            self.decoder.forward_with_context_and_self_weights(image, &mask, &context)
        } else {
            (self.decoder.forward_with_context(image, &mask, &context), Vec::new())
        };
        let (question, _) = self.question_reduction.forward(&question, Some(inputs.mask));
        let (image, weights) = self.image_reduction.forward(&image, None);
        let logits = self.classifier.forward(&self.norm.forward(&(question + image)));
        (logits, wanted.then(|| ImageAttention::of_blocks(&blocks, weights)))
    }

    fn set_training(&self, on: bool) {
        self.encoder.set_training(on);
        self.decoder.set_training(on);
        self.question_reduction.scores.set_training(on);
        self.image_reduction.scores.set_training(on);
    }

    fn pack(&mut self, precision: Precision) {
        if let Some(projection) = &mut self.question_projection {
            projection.pack(precision);
        }
        self.encoder.pack(precision);
        self.decoder.pack(precision);
        self.question_reduction.pack(precision);
        self.image_reduction.pack(precision);
        self.norm.pack(precision);
        self.classifier.pack(precision);
    }
}

/// The reduction of states to one vector, by attention weights of an MLP (Yu et al. 2019, section 4.3).
#[derive(Debug)]
struct Reduction {
    scores: Mlp,
    merge: Linear,
}

impl Reduction {
    fn new(path: &Path, config: &McanConfig) -> Self {
        let McanConfig { width, reduction_width, glimpses, output_width, dropout, .. } = config;
        let fc1 = linear(path, "fc1", *width, *reduction_width);
        let fc2 = linear(path, "fc2", *reduction_width, *glimpses);
        Self {
            scores: Mlp::new(fc1, fc2, Activation::Relu).with_dropout(*dropout),
            merge: linear(path, "merge", glimpses * width, *output_width),
        }
    }

    /// The vector `[Q, output_width]` of `states` `[Q, S, width]`, and their weights `[Q, glimpses, S]`.
    fn forward(&self, states: &Tensor, mask: Option<&Tensor>) -> (Tensor, Tensor) {
        let weights = attention_weights(&self.scores.forward(states), mask);
        (self.merge.forward(&weighted_sums(&weights, states)), weights)
    }

    fn pack(&mut self, precision: Precision) {
        self.scores.pack(precision);
        self.merge.pack(precision);
    }
}
