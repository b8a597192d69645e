//! Attention masks and biases.

use crate::nn::rotary::RotaryTable;
use tch::{Device, Kind, Tensor};

/// Which keys a query attends to, what is added to the scores before the softmax, and where the queries are,
/// for rotary attention.
///
/// ```
/// use mm_core::nn::AttentionMask;
/// use tch::Tensor;
///
/// // 1 for tokens, 0 for padding
/// let attention_mask = Tensor::from_slice(&[1i64, 1, 0, 1, 1, 1]).view([2, 3]);
/// let encoder = AttentionMask::padding(&attention_mask);
/// let decoder = AttentionMask::padding(&attention_mask).with_causal();
/// let relative = AttentionMask::none().with_bias(Tensor::from_slice(&[0f32; 9]).view([1, 1, 3, 3]));
/// ```
#[derive(Debug, Default)]
pub struct AttentionMask {
    is_causal: bool,
    /// True where a key is hidden, broadcast to `[B, heads, L, S]`.
    hidden: Option<Tensor>,
    /// Broadcast to `[B, heads, L, S]`.
    bias: Option<Tensor>,
    /// `[L]` or `[B, L]` (i64).
    positions: Option<Tensor>,
    /// The rotations of the positions, in the mask that a stack prepares for its blocks.
    rotary: Option<RotaryTable>,
}

impl AttentionMask {
    /// Every query attends to every key.
    pub fn none() -> Self {
        Self::default()
    }

    /// A query attends to the keys up to its own position. With more keys than queries, the queries are the
    /// last positions, as in decoding with a cache.
    pub fn causal() -> Self {
        Self { is_causal: true, ..Self::default() }
    }

    /// Hides the keys where `attention_mask` `[B, S]` is 0.
    pub fn padding(attention_mask: &Tensor) -> Self {
        let hidden = attention_mask.unsqueeze(1).unsqueeze(1).eq(0); // [B, 1, 1, S]
        Self { hidden: Some(hidden), ..Self::default() }
    }

    /// As [`AttentionMask::padding`], and [`AttentionMask::none`], which is faster, where nothing is hidden.
    pub fn padding_if_any(attention_mask: &Tensor) -> Self {
        let has_padding = attention_mask.all().int64_value(&[]) == 0;
        if has_padding { Self::padding(attention_mask) } else { Self::none() }
    }

    /// The same mask, also causal. A query at a padded position still attends to itself, so that every row of
    /// the softmax has a finite score; prompts may be padded on either side.
    pub fn with_causal(self) -> Self {
        Self { is_causal: true, ..self }
    }

    /// The same mask with `bias`, broadcast to `[B, heads, L, S]`, added to the scores: a relative position
    /// bias (T5, Raffel et al. 2020, section 2.1; Swin, Liu et al. 2021, section 3.2). It replaces an earlier
    /// bias. Gradients flow back to it.
    pub fn with_bias(self, bias: Tensor) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same mask, for queries at `positions` `[L]` or `[B, L]` (i64). Blocks with rotary positions turn
    /// queries and keys by them; without, the queries are the last positions of the keys. Distances alone
    /// matter, so that padding on the left needs positions only for the same roundings as without it.
    pub fn with_positions(self, positions: Tensor) -> Self {
        Self { positions: Some(positions), ..self }
    }

    /// The positions of `queries` queries over `keys` keys, `[L]` or `[B, L]` (i64).
    pub(in crate::nn) fn query_positions(&self, queries: i64, keys: i64, device: Device) -> Tensor {
        match &self.positions {
            Some(positions) => positions.to_device(device),
            None => Tensor::arange_start(keys - queries, keys, (Kind::Int64, device)),
        }
    }

    /// The same mask with the rotations of its queries and of the keys at their places.
    pub(in crate::nn) fn with_rotary(self, table: RotaryTable) -> Self {
        Self { rotary: Some(table), ..self }
    }

    /// The rotations of the queries.
    pub(super) fn rotary(&self) -> Option<&RotaryTable> {
        self.rotary.as_ref()
    }

    /// The bias, for replacing it by the same numbers in another graph.
    pub(in crate::nn) fn bias_mut(&mut self) -> Option<&mut Tensor> {
        self.bias.as_mut()
    }

    /// The same mask in the form that attention computes with: causal over as many queries as keys, or a bias
    /// that is -inf where a key is hidden. A stack prepares a mask once for all of its blocks.
    pub(in crate::nn) fn prepared(&self, queries: i64, keys: i64, device: Device) -> Self {
        let needs_causal = self.is_causal && (queries > 1 || self.hidden.is_some());
        let hidden = match (&self.hidden, needs_causal) {
            (None, false) => None,
            (None, true) if queries == keys && self.bias.is_none() => return Self::causal(),
            (None, true) => Some(later(queries, keys, device).0),
            (Some(hidden), false) => Some(hidden.shallow_clone()),
            (Some(hidden), true) => {
                let (later, itself) = later(queries, keys, device);
                Some(hidden.logical_and(&itself.logical_not()).logical_or(&later))
            }
        };
        let masked = hidden
            .map(|hidden| hidden.zeros_like().to_kind(Kind::Float).masked_fill(&hidden, f64::NEG_INFINITY));
        let bias = match (masked, &self.bias) {
            (Some(masked), Some(bias)) => Some(masked + bias),
            (masked, bias) => masked.or_else(|| bias.as_ref().map(Tensor::shallow_clone)),
        };
        Self { bias, ..Self::default() }
    }

    /// A prepared mask over one query a head, for `groups` groups of heads whose queries are those of one
    /// sequence: what broadcasts to `[B, heads, 1, S]` broadcasts to `[B, groups, heads / groups, S]`.
    pub(super) fn in_groups(&self, groups: i64) -> Self {
        let in_groups = |bias: &Tensor| match bias.size()[..] {
            [rows, heads, 1, keys] if heads > 1 => bias.reshape([rows, groups, heads / groups, keys]),
            [heads, 1, keys] if heads > 1 => bias.reshape([1, groups, heads / groups, keys]),
            _ => bias.shallow_clone(),
        };
        Self { bias: self.bias.as_ref().map(in_groups), ..Self::default() }
    }

    /// The bias `[B, heads, L, S]`, broadcast, of a prepared mask, and whether the mask is causal instead.
    pub(super) fn prepared_parts(&self) -> (Option<&Tensor>, bool) {
        (self.bias.as_ref(), self.is_causal)
    }

    /// Applies a prepared mask to scores `[B, heads, L, S]`.
    pub(super) fn apply(&self, scores: Tensor) -> Tensor {
        match self.prepared_parts() {
            (None, false) => scores,
            (Some(bias), _) => &scores + bias.to_kind(scores.kind()),
            (None, true) => {
                let (later, _) = later(scores.size()[2], scores.size()[3], scores.device());
                scores.masked_fill(&later, f64::NEG_INFINITY)
            }
        }
    }

    /// Keeps the rows `order` of a prepared mask that has a row for each context.
    pub(in crate::nn) fn keep_rows(&mut self, order: &[i64]) {
        if let Some(bias) = self.bias.as_mut().filter(|bias| bias.size()[0] > 1) {
            *bias = bias.index_select(0, &Tensor::from_slice(order).to_device(bias.device()));
        }
    }

    /// The mask of the `rows` `[B']` (i64) of the batch, any number of times and in any order, of a context,
    /// which has no positions.
    pub(in crate::nn) fn index_select(&self, rows: &Tensor) -> Self {
        let select = |tensor: &Tensor| match tensor.size()[0] {
            1 => tensor.shallow_clone(), // the same for all rows
            _ => tensor.index_select(0, rows),
        };
        let (hidden, bias) = (self.hidden.as_ref().map(select), self.bias.as_ref().map(select));
        Self { is_causal: self.is_causal, hidden, bias, ..Self::default() }
    }

    /// The same mask, in the same memory.
    pub(in crate::nn) fn shallow_clone(&self) -> Self {
        let share = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::shallow_clone);
        Self {
            is_causal: self.is_causal,
            hidden: share(&self.hidden),
            bias: share(&self.bias),
            positions: share(&self.positions),
            rotary: self.rotary.as_ref().map(RotaryTable::shallow_clone),
        }
    }
}

/// For queries at the last positions of the keys, `[L, S]` (bool): which keys come after the query, and which
/// is its own.
fn later(queries: i64, keys: i64, device: Device) -> (Tensor, Tensor) {
    let options = (Kind::Int64, device);
    let query = Tensor::arange_start(keys - queries, keys, options).unsqueeze(1); // [L, 1]
    let key = Tensor::arange(keys, options); // [S]
    (key.gt_tensor(&query), key.eq_tensor(&query))
}
