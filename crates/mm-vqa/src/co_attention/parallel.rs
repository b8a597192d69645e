//! Parallel co-attention over words, phrases and the question (Lu et al. 2016).

use super::config::ParallelConfig;
use super::fusion::{Fusion, FusionInputs, ImageAttention};
use super::layers::{attention_weights, linear, linear_without_bias, weighted_sums};
use mm_core::Precision;
use mm_core::nn::{Dropout, Linear};
use tch::Tensor;
use tch::nn::Path;

/// The levels of a question, with the names of their parameters.
const LEVELS: [&str; 3] = ["word", "phrase", "question"];

/// Image and question attend to each other at three levels of the question. What they attend to is joined
/// from the words up, and classified.
#[derive(Debug)]
pub(super) struct Parallel {
    /// Of one, two and three words.
    phrases: [Linear; 3],
    /// Whether the states of the question are of the phrases, as in the paper, or of the words, as with an
    /// encoder that has its own embeddings.
    reads_phrases: bool,
    levels: [CoAttentionLevel; 3],
    classifier: Linear,
    dropout: Dropout,
}

impl Parallel {
    /// Creates the parameters below `path`. `reads_phrases` says that the question encoder reads vectors of
    /// any kind.
    pub(super) fn new(path: &Path, config: &ParallelConfig, reads_phrases: bool, classes: i64) -> Self {
        let (width, hidden) = (config.width, config.classifier_width);
        let phrase = |name: &str, words: i64| linear(path, name, words * width, width);
        // The vector of the level before, where there is one, joins the sum of what is attended to.
        let hidden_sizes = [(width, width), (2 * width, width), (2 * width, hidden)];
        let level = |index: usize| {
            let (input, output) = hidden_sizes[index];
            CoAttentionLevel::new(&(path / LEVELS[index]), config, input, output)
        };
        Self {
            phrases: [phrase("unigram", 1), phrase("bigram", 2), phrase("trigram", 3)],
            reads_phrases,
            levels: [level(0), level(1), level(2)],
            classifier: linear(path, "classifier", hidden, classes),
            dropout: Dropout::new(config.dropout),
        }
    }

    /// The phrases `[Q, L, D]` of `words` `[Q, L, D]`, of which padding is zero: the maximum over one, two
    /// and three words from each position on (section 3.2).
    fn phrases(&self, words: &Tensor) -> Tensor {
        let (_, length, _) = words.size3().expect("words are [Q, L, D]");
        let padded = words.constant_pad_nd([0i64, 0, 0, 2]);
        let shifted = [0, 1, 2].map(|shift| padded.narrow(1, shift, length));
        let gram = |words: usize| self.phrases[words - 1].forward(&Tensor::cat(&shifted[..words], -1)).tanh();
        gram(1).maximum(&gram(2)).maximum(&gram(3))
    }
}

impl Fusion for Parallel {
    fn forward(&self, inputs: &FusionInputs, wanted: bool) -> (Tensor, Option<ImageAttention>) {
        let seen = inputs.mask.unsqueeze(-1).to_kind(inputs.embedded.kind()); // [Q, L, 1]
        let words = inputs.embedded * &seen;
        let phrases = self.phrases(&words) * &seen;
        let read = if self.reads_phrases { &phrases } else { inputs.embedded };
        let question = inputs.encoder.encode(read, inputs.lengths).tokens;

        let mut weights = Vec::new();
        let mut below: Option<Tensor> = None;
        for (level, states) in self.levels.iter().zip([&words, &phrases, &question]) {
            let (attended, image_weights) = level.attend(inputs, states);
            let input = match &below {
                Some(below) => Tensor::cat(&[&attended, below], -1),
                None => attended,
            };
            below = Some(level.hidden.forward(&self.dropout.forward(input)).tanh());
            weights.push(image_weights);
        }
        let hidden = below.expect("there are three levels");
        let logits = self.classifier.forward(&self.dropout.forward(hidden));
        (logits, wanted.then(|| ImageAttention::of_layers(weights)))
    }

    fn set_training(&self, on: bool) {
        self.dropout.set_training(on);
    }

    fn pack(&mut self, precision: Precision) {
        self.phrases.iter_mut().for_each(|phrase| phrase.pack(precision));
        self.levels.iter_mut().for_each(|level| level.pack(precision));
        self.classifier.pack(precision);
    }
}

/// Parallel co-attention at one level (section 3.3), and the layer that joins it to the level before (section
/// 3.4). The names of the paper: `affinity` is W_b, `image` and `question` are W_v and W_q, `image_score` and
/// `question_score` are w_hv and w_hq.
#[derive(Debug)]
struct CoAttentionLevel {
    affinity: Linear,
    image: Linear,
    question: Linear,
    image_score: Linear,
    question_score: Linear,
    hidden: Linear,
}

impl CoAttentionLevel {
    fn new(path: &Path, config: &ParallelConfig, input: i64, output: i64) -> Self {
        let (width, scored) = (config.width, config.attention_width);
        Self {
            affinity: linear_without_bias(path, "affinity", width, width),
            image: linear_without_bias(path, "image", width, scored),
            question: linear_without_bias(path, "question", width, scored),
            image_score: linear(path, "image_score", scored, 1),
            question_score: linear(path, "question_score", scored, 1),
            hidden: linear(path, "hidden", input, output),
        }
    }

    /// The sum `[Q, D]` of the attended image and the attended question `states` `[Q, L, D]`, of which
    /// padding is zero, and the weights `[Q, 1, N]` of the image.
    fn attend(&self, inputs: &FusionInputs, states: &Tensor) -> (Tensor, Tensor) {
        let related = inputs.by_question(&self.affinity.forward(inputs.image_tokens)); // [Q, N, D]
        let affinity = states.matmul(&related.transpose(1, 2)).tanh(); // [Q, L, N]
        let image = inputs.by_question(&self.image.forward(inputs.image_tokens)); // [Q, N, A]
        let question = self.question.forward(states); // [Q, L, A], zero at padding
        let image_hidden = (&image + affinity.transpose(1, 2).matmul(&question)).tanh();
        let question_hidden = (question + affinity.matmul(&image)).tanh();
        let image_weights = attention_weights(&self.image_score.forward(&image_hidden), None);
        let question_weights =
            attention_weights(&self.question_score.forward(&question_hidden), Some(inputs.mask));
        let attended = weighted_sums(&image_weights, &inputs.by_question(inputs.image_tokens))
            + weighted_sums(&question_weights, states);
        (attended, image_weights)
    }

    fn pack(&mut self, precision: Precision) {
        let linears = [
            &mut self.affinity,
            &mut self.image,
            &mut self.question,
            &mut self.image_score,
            &mut self.question_score,
            &mut self.hidden,
        ];
        linears.into_iter().for_each(|linear| linear.pack(precision));
    }
}
