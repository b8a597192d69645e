//! Batches for next-token prediction: the one place where labels are shifted.

use mm_core::upload;
use tch::{Device, Tensor};

/// The tokens of one text, of which the first are a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptionTokens {
    /// Token ids from begin to end token.
    pub token_ids: Vec<u32>,
    /// The number of tokens at the start that are given, not learned: the begin token and a prompt.
    pub prompt_length: usize,
}

/// A batch of texts with the tokens to predict.
///
/// A decoder that reads `input_ids` `[B, L]` after a prefix of P vectors (0 for decoders with
/// cross-attention) has outputs `[B, P + L, D]`; row `index[n]` of these, flattened to `[B (P + L), D]`, is
/// followed by the token `labels[n]`. Prompts and padding have no labels, so their logits need not be
/// computed.
#[derive(Debug)]
pub struct NextTokens {
    /// `[B, L]`, i64, padded on the right. The last token of the longest text, which nothing follows, is left
    /// out.
    pub input_ids: Tensor,
    /// `[N]`, i64.
    pub index: Tensor,
    /// `[N]`, i64.
    pub labels: Tensor,
    /// The number of labels of each text.
    pub lengths: Vec<usize>,
}

impl NextTokens {
    /// The batch of `rows`, behind a prefix of `prefix` vectors.
    pub fn new(rows: &[CaptionTokens], prefix: usize) -> Self {
        let length = rows.iter().map(|row| row.token_ids.len().saturating_sub(1)).max().unwrap_or(0);
        let stride = prefix + length;
        let mut ids = vec![0i64; rows.len() * length];
        let (mut index, mut labels, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (number, row) in rows.iter().enumerate() {
            for (id, &token) in ids[number * length..].iter_mut().zip(&row.token_ids).take(length) {
                *id = i64::from(token);
            }
            // Without a prefix nothing precedes the first token.
            let first = if prefix == 0 { row.prompt_length.max(1) } else { row.prompt_length };
            for (place, &token) in row.token_ids.iter().enumerate().skip(first) {
                index.push((number * stride + prefix + place - 1) as i64);
                labels.push(i64::from(token));
            }
            lengths.push(row.token_ids.len().saturating_sub(first));
        }
        Self {
            input_ids: Tensor::from_slice(&ids).view([rows.len() as i64, length as i64]),
            index: Tensor::from_slice(&index),
            labels: Tensor::from_slice(&labels),
            lengths,
        }
    }

    /// The number of labels.
    pub fn count(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The outputs `[N, D]` that the labels are predicted from, of outputs `[B, P + L, D]`.
    pub fn select(&self, outputs: &Tensor) -> Tensor {
        let width = outputs.size()[2];
        outputs.reshape([-1, width]).index_select(0, &self.index)
    }

    /// The same batch on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            input_ids: upload(&self.input_ids, device),
            index: upload(&self.index, device),
            labels: upload(&self.labels, device),
            lengths: self.lengths.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(token_ids: &[u32], prompt_length: usize) -> CaptionTokens {
        CaptionTokens { token_ids: token_ids.to_vec(), prompt_length }
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.view(-1)).unwrap()
    }

    #[test]
    fn each_label_is_the_token_after_its_position_and_prompts_have_none() {
        let batch = NextTokens::new(&[row(&[1, 5, 6, 2], 1), row(&[1, 7, 2], 2)], 0);
        assert_eq!(batch.input_ids.size(), [2, 3]);
        assert_eq!(numbers(&batch.input_ids), [1, 5, 6, 1, 7, 2]);
        assert_eq!(numbers(&batch.index), [0, 1, 2, 4]);
        assert_eq!(numbers(&batch.labels), [5, 6, 2, 2]);
        assert_eq!((batch.count(), batch.lengths.as_slice()), (4, [3, 1].as_slice()));
    }

    #[test]
    fn a_prefix_precedes_the_first_token() {
        let batch = NextTokens::new(&[row(&[5, 6, 2], 0), row(&[7], 0)], 2);
        assert_eq!(batch.input_ids.size(), [2, 2]);
        // Positions of each row: prefix, prefix, token 0, token 1.
        assert_eq!(numbers(&batch.index), [1, 2, 3, 5]);
        assert_eq!(numbers(&batch.labels), [5, 6, 2, 7]);
    }

    #[test]
    fn no_label_is_the_token_at_its_own_position() {
        let tokens: Vec<u32> = (10..20).collect();
        let batch = NextTokens::new(&[row(&tokens, 1)], 0);
        let inputs = numbers(&batch.input_ids);
        for (index, label) in numbers(&batch.index).into_iter().zip(numbers(&batch.labels)) {
            assert_eq!(inputs[index as usize] + 1, label);
        }
    }

    #[test]
    fn a_text_of_a_prompt_alone_has_no_labels() {
        let batch = NextTokens::new(&[row(&[1, 2], 2), row(&[], 0)], 0);
        assert_eq!((batch.count(), batch.input_ids.size()), (0, vec![2, 1]));
    }
}
