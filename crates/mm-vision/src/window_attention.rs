//! Attention within windows, with a bias for the relative position.

use crate::windows::Windows;
use mm_core::Precision;
use mm_core::nn::{Attention, AttentionMask, Linear, parameter};
use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};

/// What all blocks of a Swin share: where the bias of two tokens of a window is in the table, and the masks
/// of shifted windows.
#[derive(Debug)]
pub(crate) struct WindowPositions {
    /// `[side^4]` (i64): for two tokens of a window, row after row, the row of the table.
    index: Tensor,
    /// By group of [`Windows`].
    straight: Vec<Option<Tensor>>,
    shifted: Vec<Option<Tensor>>,
    side: i64,
}

impl WindowPositions {
    /// Those of windows of `side` tokens a side.
    pub fn new(side: i64, device: Device) -> Self {
        Self {
            index: relative_positions(side, device).view([-1]),
            straight: Windows::masks(side, 0, device),
            shifted: Windows::masks(side, shift(side), device),
            side,
        }
    }

    /// Rows of the table.
    fn rows(side: i64) -> i64 {
        (2 * side - 1) * (2 * side - 1)
    }

    /// What is added to the scores of each group of `windows`, `[1, heads, side^2, side^2]`, from a `table`
    /// `[rows, heads]`.
    fn biases(&self, table: &Tensor, windows: &Windows) -> Vec<Tensor> {
        let (tokens, heads) = (self.side * self.side, table.size()[1]);
        // The gradient of an embedding is faster than that of index_select.
        let bias = Tensor::embedding(table, &self.index, -1, false, false)
            .view([tokens, tokens, heads])
            .permute([2, 0, 1])
            .contiguous()
            .unsqueeze(0);
        let masks = if windows.shift == 0 { &self.straight } else { &self.shifted };
        let biased = |mask: &Option<Tensor>| match mask {
            Some(mask) => &bias + mask,
            None => bias.shallow_clone(),
        };
        masks.iter().map(biased).collect()
    }
}

/// For two tokens of a window of `side` tokens a side, the row of the table of biases: `[side^2, side^2]`
/// (i64), queries in rows.
pub(crate) fn relative_positions(side: i64, device: Device) -> Tensor {
    let at = Tensor::arange(side, (Kind::Int64, device));
    let apart = at.unsqueeze(1) - at.unsqueeze(0) + (side - 1); // [query, key], from 0 to 2 side - 2
    let rows = apart.view([side, 1, side, 1]) * (2 * side - 1);
    let index = rows + apart.view([1, side, 1, side]); // [row, column] of the query, of the key
    index.reshape([side * side, side * side])
}

/// By how much every other block shifts its windows.
pub(crate) fn shift(side: i64) -> i64 {
    side / 2
}

/// Multi-head attention of the tokens of a window among themselves, with a learned bias for each head and
/// relative position (Liu et al. 2021, section 3.2), under transformers' names: `self.in_proj` (`query`,
/// `key` and `value`), `self.relative_position_bias_table`, `output.dense`.
#[derive(Debug)]
pub(crate) struct WindowAttention {
    attention: Attention,
    /// `[rows, heads]`.
    table: Tensor,
    windows: Windows,
    /// Those of a packed layer, whose table does not change.
    biases: Option<Vec<Tensor>>,
}

impl WindowAttention {
    /// Creates the parameters below `path`.
    pub fn new(path: &Path, width: i64, heads: i64, qkv_bias: bool, std: f64, windows: Windows) -> Self {
        let own = path / "self";
        let projection = if qkv_bias { Linear::new } else { Linear::without_bias };
        let in_proj = projection(&(&own / "in_proj"), width, 3 * width, std);
        let out_proj = Linear::new(&(path / "output" / "dense"), width, width, std);
        let shape = [WindowPositions::rows(windows.side), heads];
        Self {
            attention: Attention::new(in_proj, out_proj, heads),
            table: parameter(&own, "relative_position_bias_table", &shape, Init::Const(0.0)),
            windows,
            biases: None,
        }
    }

    /// Maps the tokens of a grid `x` `[B, N, C]`, row by row, to the same shape.
    pub fn forward(&self, x: &Tensor, positions: &WindowPositions) -> Tensor {
        let new = self.biases.is_none().then(|| positions.biases(&self.table, &self.windows));
        let biases = self.biases.as_ref().or(new.as_ref()).expect("one of them is there");
        // libtorch's fused kernel gives no gradient of the bias, and the form that it falls back to takes
        // more passes over the scores than this one: a third more time, forward and backward, in f32 on a
        // CPU.
        let keeps_scores = biases[0].requires_grad() && is_f32_on_cpu(x);
        let attend = |(windows, bias): (Tensor, &Tensor)| {
            let mask = AttentionMask::none().with_bias(bias.shallow_clone());
            if keeps_scores {
                self.attention.forward_with_weights(&windows, &mask).0
            } else {
                self.attention.forward(&windows, &mask)
            }
        };
        let attended: Vec<Tensor> = self.windows.split(x).into_iter().zip(biases).map(attend).collect();
        self.windows.join(&attended, x.size()[0])
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision, positions: &WindowPositions) {
        self.attention.pack(precision);
        self.table = self.table.detach();
        let biases = positions.biases(&self.table, &self.windows);
        self.biases = Some(biases.into_iter().map(|bias| bias.to_kind(precision.kind())).collect());
    }
}

/// Whether products of `x` are computed in f32 on a CPU: under autocast they are bf16.
fn is_f32_on_cpu(x: &Tensor) -> bool {
    let one = || x.detach().flatten(0, -1).narrow(0, 0, 1).view([1, 1]);
    x.device() == Device::Cpu && one().matmul(&one()).kind() == Kind::Float
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_depends_on_how_far_apart_two_tokens_are() {
        let side = 3;
        let positions = WindowPositions::new(side, Device::Cpu);
        let index: Vec<i64> = Vec::try_from(&positions.index).unwrap();
        let tokens = side * side;
        for query in 0..tokens {
            for key in 0..tokens {
                let (rows, columns) = (query / side - key / side, query % side - key % side);
                let expected = (rows + side - 1) * (2 * side - 1) + columns + side - 1;
                assert_eq!(index[(query * tokens + key) as usize], expected);
            }
        }
    }
}
