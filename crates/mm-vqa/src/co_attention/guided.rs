//! Question-guided attention over an image (Yang et al. 2016; Anderson et al. 2018, section 3.3).

use super::config::{GuidedConfig, GuidedScore};
use super::fusion::{Fusion, FusionInputs, ImageAttention};
use super::layers::{GatedTanh, attention_weights, gated_tanh, linear, linear_without_bias, weighted_sums};
use mm_core::Precision;
use mm_core::nn::{Dropout, Linear};
use tch::Tensor;
use tch::nn::Path;

/// The question scores each token of the image; their weighted sum is multiplied with the question and
/// classified.
#[derive(Debug)]
pub(super) struct Guided {
    score: GuidedScore,
    /// The image's part of the scoring layer, which is computed once an image.
    attention_image: Linear,
    /// The question's part, with the bias of both.
    attention_question: Linear,
    attention_score: Linear,
    image: GatedTanh,
    question: GatedTanh,
    hidden: GatedTanh,
    classifier: Linear,
    dropout: Dropout,
}

impl Guided {
    /// Creates the parameters below `path` for question states of `question_width`.
    pub(super) fn new(path: &Path, config: &GuidedConfig, question_width: i64, classes: i64) -> Self {
        let scored = match config.score {
            GuidedScore::GatedTanh => 2 * config.attention_width,
            GuidedScore::Tanh => config.attention_width,
        };
        let (width, hidden) = (config.width, config.classifier_width);
        Self {
            score: config.score,
            attention_image: linear_without_bias(path, "attention_image", width, scored),
            attention_question: linear(path, "attention_question", question_width, scored),
            attention_score: linear(path, "attention_score", config.attention_width, config.glimpses),
            image: GatedTanh::new(path, "image", config.glimpses * width, width),
            question: GatedTanh::new(path, "question", question_width, width),
            hidden: GatedTanh::new(path, "hidden", width, hidden),
            classifier: linear(path, "classifier", hidden, classes),
            dropout: Dropout::new(config.dropout),
        }
    }
}

impl Fusion for Guided {
    fn forward(&self, inputs: &FusionInputs, wanted: bool) -> (Tensor, Option<ImageAttention>) {
        let question = inputs.encoder.encode(inputs.embedded, inputs.lengths).last; // [Q, D]
        let image = inputs.by_question(&self.attention_image.forward(inputs.image_tokens)); // [Q, N, A]
        let both = image + self.attention_question.forward(&question).unsqueeze(1);
        let scored = match self.score {
            GuidedScore::GatedTanh => gated_tanh(&both),
            GuidedScore::Tanh => both.tanh(),
        };
        let weights = attention_weights(&self.attention_score.forward(&scored), None);
        let attended = weighted_sums(&weights, &inputs.by_question(inputs.image_tokens));
        let joint = self.image.forward(&attended) * self.question.forward(&question); // [Q, width]
        let hidden = self.hidden.forward(&self.dropout.forward(joint));
        let logits = self.classifier.forward(&self.dropout.forward(hidden));
        (logits, wanted.then(|| ImageAttention::of_layers(vec![weights])))
    }

    fn set_training(&self, on: bool) {
        self.dropout.set_training(on);
    }

    fn pack(&mut self, precision: Precision) {
        let linears = [
            &mut self.attention_image,
            &mut self.attention_question,
            &mut self.attention_score,
            &mut self.classifier,
        ];
        linears.into_iter().for_each(|linear| linear.pack(precision));
        let gated = [&mut self.image, &mut self.question, &mut self.hidden];
        gated.into_iter().for_each(|layer| layer.pack(precision));
    }
}
