//! The losses of data sets that know where each character is printed.

use super::target::Place;
use mm_core::loss::IGNORED_LABEL;
use mm_core::nn::Linear;
use mm_data::Document;
use mm_text::Tokenizer;
use mm_text::decoder::NextTokens;
use tch::nn::Path;
use tch::{Device, Kind, Reduction, Tensor};

/// The parameters of [`CharacterHead`] have names that begin with it; the saved model has none of them.
pub(crate) const CHARACTER_HEAD: &str = "character_head";

/// Characters that are distinguished in a cell, from left to right: small print has two in eight pixels.
const SLOTS: usize = 2;

/// The weight of an empty slot beside that of a character: most of a page is empty, which is learned soon.
const EMPTY_WEIGHT: f32 = 0.05;

/// The least weight of attention whose logarithm is taken.
const LEAST_ATTENTION: f64 = 1e-6;

/// The cells of an encoder's tokens on its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CellGrid {
    pub rows: usize,
    pub columns: usize,
    /// Height and width of a cell in pixels.
    pub cell: [f32; 2],
}

impl CellGrid {
    /// The cell of `place` on the input, in the order of the tokens; none outside.
    pub fn cell_of(&self, [x, y]: Place) -> Option<i64> {
        let (row, column) = ((y / self.cell[0]).floor(), (x / self.cell[1]).floor());
        let is_inside = row >= 0.0 && column >= 0.0 && row < self.rows as f32 && column < self.columns as f32;
        is_inside.then(|| row as i64 * self.columns as i64 + column as i64)
    }
}

/// A character in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellCharacter {
    /// `cell * SLOTS + slot`.
    pub slot: i64,
    /// The character's token.
    pub token: i64,
}

/// The characters that are printed on the page of `document`, by the cells of `grid`, of those that
/// `tokenizer` has; `place` maps pixels of the page to pixels of the input. A cell keeps its first [`SLOTS`]
/// characters from left to right.
pub(crate) fn cell_characters(
    document: &Document,
    grid: &CellGrid,
    tokenizer: &Tokenizer,
    place: impl Fn(Place) -> Place,
) -> Vec<CellCharacter> {
    let mut found: Vec<(i64, f32, i64)> = Vec::new();
    for word in &document.words {
        for (character, &at) in word.text.chars().zip(&word.characters) {
            let at = place(at);
            let token = tokenizer.token_id(character.encode_utf8(&mut [0; 4]));
            if let (false, Some(cell), Some(token)) = (character.is_whitespace(), grid.cell_of(at), token) {
                found.push((cell, at[0], i64::from(token)));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut characters = Vec::with_capacity(found.len());
    let (mut last, mut count) = (-1, 0);
    for (cell, _, token) in found {
        count = if cell == last { count + 1 } else { 0 };
        last = cell;
        if count < SLOTS {
            characters.push(CellCharacter { slot: cell * SLOTS as i64 + count as i64, token });
        }
    }
    characters
}

/// An output layer from the encoder's tokens to the characters in their cells.
#[derive(Debug)]
pub(crate) struct CharacterHead {
    linear: Linear,
    vocab_size: i64,
}

impl CharacterHead {
    /// Creates the layer below `path`, for tokens of `width` and a vocabulary of `vocab_size`.
    pub fn new(path: &Path, width: i64, vocab_size: i64) -> Self {
        let linear = Linear::new(&(path / CHARACTER_HEAD), width, SLOTS as i64 * vocab_size, 0.02);
        Self { linear, vocab_size }
    }

    /// The sum of the cross-entropy of the characters in the cells of `states` `[B, S, width]`, with a small
    /// weight for empty slots, and the number of printed ones that are recognized.
    pub fn loss(&self, states: &Tensor, targets: &CharacterTargets) -> (Tensor, Tensor) {
        let logits = self.linear.forward(states).view([-1, self.vocab_size]).to_kind(Kind::Float);
        let losses =
            logits.cross_entropy_loss(&targets.labels, None::<Tensor>, Reduction::None, IGNORED_LABEL, 0.0);
        let right = logits.detach().argmax(-1, false).eq_tensor(&targets.labels);
        let right = right.logical_and(&targets.labels.ne(EMPTY)).sum(Kind::Float);
        ((losses * &targets.weights).sum(Kind::Float), right)
    }
}

/// The label of a slot without a character: the token of padding.
const EMPTY: i64 = 0;

/// The characters in the cells of a batch.
#[derive(Debug)]
pub(crate) struct CharacterTargets {
    /// `[B * S * SLOTS]` (i64).
    labels: Tensor,
    /// `[B * S * SLOTS]`.
    weights: Tensor,
    /// The number of characters.
    pub count: usize,
}

impl CharacterTargets {
    /// The characters of each page, on a grid of `cells`.
    pub fn new(pages: &[Vec<CellCharacter>], cells: usize, device: Device) -> Self {
        let slots = cells * SLOTS;
        let mut labels = vec![EMPTY; pages.len() * slots];
        let mut weights = vec![EMPTY_WEIGHT; pages.len() * slots];
        for (page, characters) in pages.iter().enumerate() {
            for character in characters {
                let index = page * slots + character.slot as usize;
                labels[index] = character.token;
                weights[index] = 1.0;
            }
        }
        Self {
            labels: mm_core::upload(&Tensor::from_slice(&labels), device),
            weights: mm_core::upload(&Tensor::from_slice(&weights), device),
            count: pages.iter().map(Vec::len).sum(),
        }
    }
}

/// The labels of a batch that are printed somewhere, and their cells.
#[derive(Debug)]
pub(crate) struct AttentionTargets {
    /// `[M]` (i64): of positions `[B * L]`, those whose label is printed.
    positions: Tensor,
    /// `[M]` (i64): the cell of each.
    cells: Tensor,
    /// M.
    pub count: usize,
}

impl AttentionTargets {
    /// `cells` of the tokens of each row, of which `next` predicts each from the position before it.
    pub fn new(cells: &[Vec<Option<i64>>], next: &NextTokens, device: Device) -> Self {
        let length = next.input_ids.size()[1];
        let (mut positions, mut of_cells) = (Vec::new(), Vec::new());
        for (row, cells) in (0..).zip(cells) {
            for (position, cell) in (0..length).zip(cells.iter().skip(1)) {
                if let Some(cell) = cell {
                    positions.push(row * length + position);
                    of_cells.push(*cell);
                }
            }
        }
        Self {
            positions: mm_core::upload(&Tensor::from_slice(&positions), device),
            cells: mm_core::upload(&Tensor::from_slice(&of_cells), device),
            count: of_cells.len(),
        }
    }

    /// The sum over these labels of the negative logarithm of the attention to their cells, the mean of half
    /// of the heads of all blocks but the first, which may look elsewhere; `weights` are those of
    /// cross-attention of each block, `[B, heads, L, S]`.
    pub fn loss(&self, weights: &[Tensor]) -> Tensor {
        let guided = &weights[weights.len().min(2) - 1..];
        let of_block = |weights: &Tensor| {
            let heads = weights.size()[1];
            let half = weights.narrow(1, 0, (heads / 2).max(1)).to_kind(Kind::Float);
            let heads = half.size()[1];
            let rows = half.permute([0, 2, 1, 3]).reshape([-1, heads, weights.size()[3]]); // [B L, heads, S]
            let rows = rows.index_select(0, &self.positions);
            let cells = self.cells.view([-1, 1, 1]).expand([-1, heads, 1], false);
            let attention = rows.gather(2, &cells, false).clamp_min(LEAST_ATTENTION);
            attention.log().neg().sum(Kind::Float) / heads as f64
        };
        let sum = guided.iter().map(of_block).reduce(|a, b| a + b).expect("a decoder has a block");
        sum / guided.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use tch::nn::VarStore;

    const GRID: CellGrid = CellGrid { rows: 2, columns: 3, cell: [8.0, 8.0] };

    #[test]
    fn a_place_is_in_the_cell_that_covers_it() {
        assert_eq!(GRID.cell_of([0.0, 0.0]), Some(0));
        assert_eq!(GRID.cell_of([23.9, 8.0]), Some(5));
        for outside in [[24.0, 0.0], [-0.1, 0.0], [0.0, 16.0]] {
            assert_eq!(GRID.cell_of(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn the_loss_of_attention_is_zero_where_all_of_it_is_in_the_right_cells() {
        let next = NextTokens {
            input_ids: Tensor::zeros([2, 3], (Kind::Int64, Device::Cpu)),
            index: Tensor::from_slice(&[0i64]),
            labels: Tensor::from_slice(&[0i64]),
            lengths: vec![3, 3],
        };
        let cells = [vec![None, Some(4), None, Some(1)], vec![None, None, Some(0), None]];
        let targets = AttentionTargets::new(&cells, &next, Device::Cpu);
        let weights = Tensor::zeros([2, 4, 3, 6], (Kind::Float, Device::Cpu));
        for (row, position, cell) in [(0, 0, 4), (0, 2, 1), (1, 1, 0)] {
            for head in 0..2 {
                let _ = weights.get(row).get(head).get(position).get(cell).fill_(1.0);
            }
        }
        let free = Tensor::full([2, 4, 3, 6], 1.0 / 6.0, (Kind::Float, Device::Cpu));
        let loss = |weights: &[Tensor]| targets.loss(weights).double_value(&[]);
        assert!(loss(&[free.shallow_clone(), weights.shallow_clone()]) < 1e-6);
        let found = loss(&[weights.shallow_clone(), free.shallow_clone()]);
        assert!((found - 3.0 * 6f64.ln()).abs() < 1e-5);
        // The only block of a decoder is guided.
        assert!(loss(&[weights]) < 1e-6);
    }

    #[test]
    fn the_gradient_of_attention_is_that_of_differences() {
        let next = NextTokens {
            input_ids: Tensor::zeros([1, 2], (Kind::Int64, Device::Cpu)),
            index: Tensor::from_slice(&[0i64]),
            labels: Tensor::from_slice(&[0i64]),
            lengths: vec![2],
        };
        let targets = AttentionTargets::new(&[vec![None, Some(2), Some(0)]], &next, Device::Cpu);
        let loss = |scores: &Tensor| targets.loss(&[scores.softmax(-1, None)]);
        let scores = normal(1, &[1, 2, 2, 4]).set_requires_grad(true);
        loss(&scores).backward();
        let (gradient, step) = (scores.grad(), 1e-2);
        for index in 0..16 {
            let shifted = |by: f64| {
                let shifted = scores.detach().copy();
                let _ = shifted.view(-1).get(index).g_add_scalar_(by);
                loss(&shifted).double_value(&[])
            };
            let expected = (shifted(step) - shifted(-step)) / (2.0 * step);
            let found = gradient.view(-1).double_value(&[index]);
            assert!((found - expected).abs() < 1e-3, "{found} is {expected} by differences");
        }
    }

    #[test]
    fn the_loss_of_characters_is_the_weighted_sum_over_slots() {
        let vs = VarStore::new(Device::Cpu);
        let head = CharacterHead::new(&vs.root(), 4, 5);
        let states = normal(3, &[1, 2, 4]);
        let targets = CharacterTargets::new(&[vec![CellCharacter { slot: 1, token: 3 }]], 2, Device::Cpu);
        let (loss, _) = head.loss(&states, &targets);
        let log_probs = head.linear.forward(&states).view([4, 5]).log_softmax(-1, None);
        let of = |slot: i64, token: i64| -log_probs.double_value(&[slot, token]);
        let weight = f64::from(EMPTY_WEIGHT);
        let expected = of(1, 3) + weight * (of(0, 0) + of(2, 0) + of(3, 0));
        assert_eq!(targets.count, 1);
        assert!((loss.double_value(&[]) - expected).abs() < 1e-5);
    }
}
