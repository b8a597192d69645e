//! The output layer of a decoder, tied to its token embeddings.

use mm_core::Precision;
use mm_core::nn::{Embedding, Linear};
use tch::Tensor;

/// Token embeddings that are also the matrix of the output layer (Press & Wolf 2017), with a bias where the
/// family has one.
#[derive(Debug)]
pub(super) struct TiedEmbedding {
    table: Embedding,
    bias: Option<Tensor>,
    /// The output layer of a packed decoder.
    packed: Option<Linear>,
}

impl TiedEmbedding {
    pub fn new(table: Embedding, bias: Option<Tensor>) -> Self {
        Self { table, bias, packed: None }
    }

    /// The token embeddings.
    pub fn table(&self) -> &Embedding {
        &self.table
    }

    /// Maps `x` `[..., D]` to logits `[..., vocab]`.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        match &self.packed {
            Some(packed) => packed.forward(x),
            None => x.linear(self.table.weight(), self.bias.as_ref()),
        }
    }

    /// The precision of the output layer in a decoder of `precision`. That of an int8 model stays in f32:
    /// rounding it changes which token is the most probable.
    pub fn output_precision(precision: Precision) -> Precision {
        if precision == Precision::Int8 { Precision::F32 } else { precision }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        let mut output = Linear::from_tensors(self.table.weight().shallow_clone(), bias);
        output.pack(Self::output_precision(precision));
        self.packed = Some(output);
        self.table.pack(precision);
    }
}
