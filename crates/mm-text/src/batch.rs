//! Batches of token ids.

use mm_core::upload;
use tch::{Device, Tensor};

/// The length of the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// The longest text of the batch, for CLIP's and BERT's towers, whose output does not depend on padding.
    Longest,
    /// The context length, for SigLIP's tower, which attends to padding and was trained so.
    Fixed,
}

/// A batch of tokenized texts.
#[derive(Debug)]
pub struct TokenBatch {
    /// Token ids `[B, L]`, i64, padded on the right, or on the left if the files of a SigLIP's tokenizer say
    /// so.
    pub input_ids: Tensor,
    /// `[B, L]`, i64: 1 for tokens, 0 for padding.
    pub attention_mask: Tensor,
}

impl TokenBatch {
    /// A batch of `rows` with at least `min_length` columns, padded with `pad` on the right. One allocation a
    /// tensor.
    pub fn from_rows(rows: &[Vec<u32>], min_length: usize, pad: u32) -> Self {
        Self::padded(rows, min_length, pad, false)
    }

    /// As [`TokenBatch::from_rows`], or padded on the left.
    pub(crate) fn padded(rows: &[Vec<u32>], min_length: usize, pad: u32, on_left: bool) -> Self {
        let length = rows.iter().map(Vec::len).fold(min_length, usize::max);
        let mut ids = vec![i64::from(pad); rows.len() * length];
        let mut mask = vec![0i64; rows.len() * length];
        for (row, tokens) in rows.iter().enumerate() {
            let start = row * length + if on_left { length - tokens.len() } else { 0 };
            for (id, &token) in ids[start..].iter_mut().zip(tokens) {
                *id = i64::from(token);
            }
            mask[start..start + tokens.len()].fill(1);
        }
        let shape = [rows.len() as i64, length as i64];
        Self {
            input_ids: Tensor::from_slice(&ids).view(shape),
            attention_mask: Tensor::from_slice(&mask).view(shape),
        }
    }

    /// Number of texts, B.
    pub fn size(&self) -> i64 {
        self.input_ids.size()[0]
    }

    /// The same batch on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            input_ids: upload(&self.input_ids, device),
            attention_mask: upload(&self.attention_mask, device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TokenBatch;

    #[test]
    fn rows_are_padded_on_one_side_and_masked() {
        let numbers = |tensor: &tch::Tensor| Vec::<i64>::try_from(tensor.view(-1)).unwrap();
        let batch = TokenBatch::from_rows(&[vec![5, 6, 7], vec![8]], 0, 9);
        assert_eq!(numbers(&batch.input_ids), [5, 6, 7, 8, 9, 9]);
        assert_eq!(numbers(&batch.attention_mask), [1, 1, 1, 1, 0, 0]);
        let batch = TokenBatch::padded(&[vec![5, 6, 7], vec![8]], 4, 9, true);
        assert_eq!(numbers(&batch.input_ids), [9, 5, 6, 7, 9, 9, 9, 8]);
        assert_eq!(numbers(&batch.attention_mask), [0, 1, 1, 1, 0, 0, 0, 1]);
        assert_eq!(TokenBatch::from_rows(&[vec![5]], 4, 0).input_ids.size(), [1, 4]);
        assert_eq!(TokenBatch::from_rows(&[], 4, 0).input_ids.size(), [0, 4]);
    }
}
