//! All of a co-attention model but the image tower.

use super::config::{CoAttentionConfig, FusionConfig};
use super::fusion::{Fusion, FusionInputs, ImageAttention};
use super::guided::Guided;
use super::layers::linear;
use super::mcan::Mcan;
use super::parallel::Parallel;
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::nn::{Embedding, Linear};
use mm_text::{QuestionEncoder, length_mask};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// The tokens of an image that a [`CoAttentionHead`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTokens {
    /// Width of a token.
    pub width: i64,
    /// The number of learned positions, which is that of the tokens; none: the tokens tell where they are, or
    /// it is not to be known.
    pub positions: Option<i64>,
}

/// Standard deviation of the initial positions, that of transformers' models.
const POSITION_STD: f64 = 0.02;

/// A projection of image tokens, a question encoder, a fusion and a classifier: a model over the features of
/// any image encoder, such as the regions of a detector.
#[derive(Debug)]
pub struct CoAttentionHead {
    image_projection: Linear,
    image_positions: Option<Embedding>,
    question: Box<dyn QuestionEncoder>,
    fusion: Box<dyn Fusion>,
    width: i64,
    /// Of the projected tokens.
    kind: Kind,
}

impl CoAttentionHead {
    /// Creates the parameters below `path`, for the question, the fusion and the classes of `config`.
    ///
    /// # Errors
    /// As [`CoAttentionConfig::validate`], or the tokens have no width or no number.
    pub fn new(path: &Path, tokens: ImageTokens, config: &CoAttentionConfig) -> Result<Self> {
        config.validate()?;
        let sizes = [("width of image tokens", tokens.width), ("positions", tokens.positions.unwrap_or(1))];
        mm_core::hf::check_sizes(&sizes).map_err(Error::Model)?;
        let (width, classes) = (config.fusion.width(), config.classes);
        let image_projection = linear(path, "image_projection", tokens.width, width);
        let image_positions = tokens
            .positions
            .map(|count| Embedding::new(&(path / "image_positions"), count, width, POSITION_STD));
        let question = config.question.build(&(path / "question"))?;
        let (states, path) = (config.question.output_width(), path / "fusion");
        let fusion: Box<dyn Fusion> = match &config.fusion {
            FusionConfig::Guided(guided) => Box::new(Guided::new(&path, guided, states, classes)),
            FusionConfig::Parallel(parallel) => {
                Box::new(Parallel::new(&path, parallel, config.question.is_recurrent(), classes))
            }
            FusionConfig::Mcan(mcan) => Box::new(Mcan::new(&path, mcan, states, classes)),
        };
        Ok(Self { image_projection, image_positions, question, fusion, width, kind: Kind::Float })
    }

    /// Maps the tokens `[G, N, C]` of images to `[G, N, width]`, once for all questions about them.
    pub fn project(&self, tokens: &Tensor) -> Tensor {
        let projected = self.image_projection.forward(tokens);
        match &self.image_positions {
            Some(positions) => projected + positions.weight(),
            None => projected,
        }
    }

    /// The logits `[Q, classes]` of the answers to questions about images: `image_tokens` `[G, N, width]` of
    /// [`CoAttentionHead::project`], `image_index` `[Q]` (i64) the image of each question, `input_ids`
    /// `[Q, L]` (i64) its tokens padded on the right, and `lengths` `[Q]` (i64, at least 1) their number.
    pub fn forward(
        &self,
        image_tokens: &Tensor,
        image_index: &Tensor,
        input_ids: &Tensor,
        lengths: &Tensor,
    ) -> Tensor {
        self.run(image_tokens, image_index, input_ids, lengths, false).0
    }

    /// As [`CoAttentionHead::forward`], also giving the attention over the image. Slower; for analysis.
    pub fn forward_with_weights(
        &self,
        image_tokens: &Tensor,
        image_index: &Tensor,
        input_ids: &Tensor,
        lengths: &Tensor,
    ) -> (Tensor, ImageAttention) {
        let (logits, attention) = self.run(image_tokens, image_index, input_ids, lengths, true);
        (logits, attention.expect("a fusion gives its attention where it is wanted"))
    }

    /// [`CoAttentionHead::forward`] without an image: all of its tokens are zero, so that only the question
    /// can tell the answer. It is the same for one token as for many, and so computed for one.
    pub fn forward_blind(&self, input_ids: &Tensor, lengths: &Tensor) -> Tensor {
        let device = input_ids.device();
        let image_tokens = Tensor::zeros([1, 1, self.width], (self.kind, device));
        let image_index = Tensor::zeros([input_ids.size()[0]], (Kind::Int64, device));
        self.forward(&image_tokens, &image_index, input_ids, lengths)
    }

    fn run(
        &self,
        image_tokens: &Tensor,
        image_index: &Tensor,
        input_ids: &Tensor,
        lengths: &Tensor,
        wanted: bool,
    ) -> (Tensor, Option<ImageAttention>) {
        let embedded = self.question.embed(input_ids);
        let mask = length_mask(lengths, input_ids.size()[1]);
        let encoder = self.question.as_ref();
        let inputs =
            FusionInputs { image_tokens, image_index, embedded: &embedded, lengths, mask: &mask, encoder };
        self.fusion.forward(&inputs, wanted)
    }

    /// The question encoder's table of word vectors, for [`mm_text::read_glove`].
    pub fn word_embedding(&self) -> &Embedding {
        self.question.word_embedding()
    }

    /// Turns dropout on or off. It is off at first, and stays on until the backward pass of a step is done.
    pub fn set_training(&self, on: bool) {
        self.fusion.set_training(on);
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.image_projection.pack(precision);
        if let Some(positions) = &mut self.image_positions {
            positions.pack(precision);
        }
        self.question.pack(precision);
        self.fusion.pack(precision);
        self.kind = precision.kind();
    }
}
