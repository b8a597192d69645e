//! The fusions of image and question, behind one interface.

use mm_core::Precision;
use mm_text::QuestionEncoder;
use std::fmt::Debug;
use tch::{Kind, Tensor};

/// The images of a batch and the questions that are asked about them.
pub(super) struct FusionInputs<'a> {
    /// `[G, N, width]`.
    pub image_tokens: &'a Tensor,
    /// `[Q]` (i64): the image of each question.
    pub image_index: &'a Tensor,
    /// `[Q, L, E]`.
    pub embedded: &'a Tensor,
    /// `[Q]` (i64).
    pub lengths: &'a Tensor,
    /// `[Q, L]` (i64): 1 for tokens, 0 for padding.
    pub mask: &'a Tensor,
    /// Encodes sequences of vectors of width E.
    pub encoder: &'a dyn QuestionEncoder,
}

impl FusionInputs<'_> {
    /// The rows of `x` `[G, ...]` for each question: `[Q, ...]`.
    pub fn by_question(&self, x: &Tensor) -> Tensor {
        x.index_select(0, self.image_index)
    }
}

/// A fusion of image and question with a classifier of answers.
pub(super) trait Fusion: Debug + Send {
    /// The logits `[Q, classes]`, and the attention over the image where it is `wanted`.
    fn forward(&self, inputs: &FusionInputs, wanted: bool) -> (Tensor, Option<ImageAttention>);

    /// Turns dropout on or off.
    fn set_training(&self, on: bool);

    /// Prepares for inference in `precision`.
    fn pack(&mut self, precision: Precision);
}

/// The attention of questions over the N tokens of their images, a ViT's class token among them.
#[derive(Debug)]
pub struct ImageAttention {
    /// Each `[Q, heads, N]` and, over N, of sum 1, in the order of computation: the glimpses of
    /// question-guided attention; the words, phrases and question of parallel co-attention; the
    /// self-attention of each of MCAN's decoder blocks, averaged over positions by the weights of the
    /// reduction that the answer is read from, then these weights themselves.
    pub layers: Vec<Tensor>,
    /// All of them as one map `[Q, N]`: for MCAN rolled out (Abnar & Zuidema 2020), the weights of the
    /// reduction traced back through the blocks; else the mean over layers and heads.
    pub rolled_out: Tensor,
}

impl ImageAttention {
    /// Attention in one step, without blocks to trace back through.
    pub(super) fn of_layers(layers: Vec<Tensor>) -> Self {
        let maps: Vec<Tensor> = layers.iter().map(mean_of_heads).collect();
        let rolled_out = Tensor::stack(&maps, 0).mean_dim([0i64].as_slice(), false, Kind::Float);
        Self { layers, rolled_out }
    }

    /// The attention of `blocks` `[Q, heads, N, N]` read by a reduction with `weights` `[Q, glimpses, N]`.
    pub(super) fn of_blocks(blocks: &[Tensor], weights: Tensor) -> Self {
        let read = mean_of_heads(&weights).unsqueeze(1); // [Q, 1, N]
        let mut layers: Vec<Tensor> = blocks
            .iter()
            .map(|block| read.unsqueeze(1).matmul(&block.to_kind(Kind::Float)).squeeze_dim(2))
            .collect();
        // A block passes on half of what it attends to and half of what its residual connection keeps.
        let rolled_out = blocks
            .iter()
            .rev()
            .fold(read, |read, block| (read.matmul(&mean_of_heads(block)) + &read) * 0.5)
            .squeeze_dim(1);
        layers.push(weights);
        Self { layers, rolled_out }
    }
}

/// `[Q, heads, ...]` to `[Q, ...]` (f32).
fn mean_of_heads(weights: &Tensor) -> Tensor {
    weights.mean_dim([1i64].as_slice(), false, Kind::Float)
}
