//! Several short texts in a row of a batch.

use super::model::Vlm;
use super::turns::ChatTokens;
use crate::Result;
use mm_core::nn::AttentionMask;
use mm_core::upload;
use mm_text::decoder::{NextTokens, TextDecoder};
use tch::{Device, Kind, Tensor};

/// Texts in rows, with the tokens to predict. A token sees those before it of its own text alone, at the
/// positions that the text has by itself: losses and gradients are those of a row for each text.
#[derive(Debug)]
pub(crate) struct ChatRows {
    /// `lengths` has the labels of each text, in the order of the rows.
    pub next: NextTokens,
    /// Where a row has several texts.
    packed: Option<Packed>,
    /// The share of places that are tokens.
    pub fill: f64,
}

/// What separates the texts of a row.
#[derive(Debug)]
struct Packed {
    /// `[R, 1, L, L]`: 0 where a token sees another one, else -inf.
    bias: Tensor,
    /// `[R, L]` (i64): the place of each token in its text.
    positions: Tensor,
}

/// Puts texts of these `lengths` into rows of `capacity`, each into the first row with room, the longest
/// text first (first-fit decreasing, Johnson 1973). A longer text has a row of its own. Rows and their texts
/// are in the order of their first texts.
pub(crate) fn pack(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text])); // stable
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for text in order {
        match rows.iter_mut().find(|(taken, _)| taken + lengths[text] <= capacity) {
            Some((taken, row)) => {
                *taken += lengths[text];
                row.push(text);
            }
            None => rows.push((lengths[text], vec![text])),
        }
    }
    let mut rows: Vec<Vec<usize>> = rows.into_iter().map(|(_, row)| row).collect();
    rows.iter_mut().for_each(|row| row.sort_unstable());
    rows.sort_unstable();
    rows
}

impl ChatTokens {
    /// The number of tokens that the model reads: nothing follows the last one.
    pub fn inputs(&self) -> usize {
        self.token_ids.len().saturating_sub(1)
    }
}

impl ChatRows {
    /// The `texts` in `rows` of their numbers, on `device`.
    pub fn new(texts: &[ChatTokens], rows: &[Vec<usize>], device: Device) -> Self {
        let taken = |row: &Vec<usize>| row.iter().map(|&text| texts[text].inputs()).sum::<usize>();
        let length = rows.iter().map(taken).max().unwrap_or(0);
        let mut ids = vec![0i64; rows.len() * length];
        let mut positions = ids.clone();
        // Padding is a text of its own.
        let mut segments = vec![-1i64; ids.len()];
        let (mut index, mut labels, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (number, row) in rows.iter().enumerate() {
            let mut begin = number * length;
            for (segment, &text) in (0..).zip(row) {
                let ChatTokens { token_ids, is_label, .. } = &texts[text];
                for (place, &id) in token_ids.iter().take(texts[text].inputs()).enumerate() {
                    ids[begin + place] = i64::from(id);
                    positions[begin + place] = place as i64;
                    segments[begin + place] = segment;
                }
                let before = labels.len();
                for (place, &id) in token_ids.iter().enumerate().skip(1).filter(|(place, _)| is_label[*place])
                {
                    index.push((begin + place - 1) as i64);
                    labels.push(i64::from(id));
                }
                lengths.push(labels.len() - before);
                begin += texts[text].inputs();
            }
        }
        let tokens: usize = rows.iter().map(taken).sum();
        let size = [rows.len() as i64, length as i64];
        let grid = |numbers: &[i64]| upload(&Tensor::from_slice(numbers).view(size), device);
        let next = NextTokens {
            input_ids: grid(&ids),
            index: upload(&Tensor::from_slice(&index), device),
            labels: upload(&Tensor::from_slice(&labels), device),
            lengths,
        };
        let is_packed = rows.iter().any(|row| row.len() > 1);
        let packed =
            is_packed.then(|| Packed { bias: block_bias(&grid(&segments)), positions: grid(&positions) });
        Self { next, packed, fill: tokens as f64 / ids.len().max(1) as f64 }
    }

    /// The logits `[N, vocab]` of the tokens that there are labels for, with `features` in the places of the
    /// placeholders, in the order of the rows.
    ///
    /// # Errors
    /// As [`Vlm::merge`].
    pub fn logits(&self, model: &Vlm, features: Option<&Tensor>) -> Result<Tensor> {
        let hidden = match &self.packed {
            None => model.forward(&self.next.input_ids, features)?,
            Some(Packed { bias, positions }) => {
                let decoder = model.decoder();
                let x = decoder.embed(&model.merge(&self.next.input_ids, features)?, positions);
                let mask = AttentionMask::none().with_bias(bias.shallow_clone());
                decoder.blocks().forward(x, &mask.with_positions(positions.shallow_clone()))
            }
        };
        Ok(model.logits(&self.next.select(&hidden)))
    }
}

/// The bias `[R, 1, L, L]` of rows of the texts `segments` `[R, L]` (i64).
fn block_bias(segments: &Tensor) -> Tensor {
    let length = segments.size()[1];
    let is_own = segments.unsqueeze(2).eq_tensor(&segments.unsqueeze(1)); // [R, L, L]
    let is_seen =
        is_own.logical_and(&Tensor::ones([length, length], (Kind::Bool, segments.device())).tril(0));
    let bias = Tensor::zeros(is_seen.size(), (Kind::Float, segments.device()));
    bias.masked_fill(&is_seen.logical_not(), f64::NEG_INFINITY).unsqueeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ids: &[u32], first_label: usize) -> ChatTokens {
        ChatTokens {
            token_ids: ids.to_vec(),
            is_label: (0..ids.len()).map(|place| place >= first_label).collect(),
            prompt_length: first_label,
        }
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.view(-1)).unwrap()
    }

    #[test]
    fn the_longest_texts_go_first_and_none_is_split() {
        assert_eq!(pack(&[3, 9, 2, 5, 1], 10), [vec![0, 2, 3], vec![1, 4]]);
        assert_eq!(pack(&[12, 1], 10), [vec![0], vec![1]]);
        assert_eq!(pack(&[4, 4, 4], 4), [vec![0], vec![1], vec![2]]);
        assert!(pack(&[], 10).is_empty());
    }

    #[test]
    fn texts_of_a_row_have_their_own_positions_and_labels_and_see_themselves_alone() {
        let texts = [text(&[7, 8, 9], 2), text(&[1, 2], 1), text(&[5, 6, 3, 4], 1)];
        let rows = ChatRows::new(&texts, &[vec![0, 1], vec![2]], Device::Cpu);
        assert_eq!(rows.next.input_ids.size(), [2, 3]);
        assert_eq!(numbers(&rows.next.input_ids), [7, 8, 1, 5, 6, 3]);
        assert_eq!(numbers(&rows.next.index), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&rows.next.labels), [9, 2, 6, 3, 4]);
        assert_eq!(rows.next.lengths, [1, 1, 3]);
        assert_eq!(rows.fill, 1.0);
        let packed = rows.packed.unwrap();
        assert_eq!(numbers(&packed.positions), [0, 1, 0, 0, 1, 2]);
        let seen = numbers(&packed.bias.eq(0.0).to_kind(Kind::Int64));
        assert_eq!(seen, [1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn padding_sees_something_and_single_texts_need_no_bias() {
        let texts = [text(&[7, 8, 9], 2), text(&[1, 2], 1), text(&[5, 6, 3, 4, 2], 1)];
        let packed = ChatRows::new(&texts, &[vec![0, 1], vec![2]], Device::Cpu).packed.unwrap();
        let is_finite = packed.bias.isfinite().any_dim(-1, false);
        assert_eq!(numbers(&is_finite.to_kind(Kind::Int64)), vec![1; 8]);
        assert!(ChatRows::new(&texts, &[vec![0], vec![1], vec![2]], Device::Cpu).packed.is_none());
    }
}
