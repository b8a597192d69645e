//! What a decoder keeps from one step of generation to the next.

use mm_core::nn::{AttentionMask, KeyValueCache};
use tch::{Device, Kind, Tensor};

/// The keys and values of the tokens so far, and the padding before each row's prompt.
#[derive(Debug)]
pub struct DecoderCache {
    /// Keys and values, by block.
    pub key_values: KeyValueCache,
    /// Where the decoder computes.
    pub device: Device,
    /// For each row, the positions of padding on its left; empty where no row has any.
    padding: Vec<i64>,
}

impl DecoderCache {
    /// A cache of a decoder on `device`.
    pub fn new(key_values: KeyValueCache, device: Device) -> Self {
        Self { key_values, device, padding: Vec::new() }
    }

    /// Positions held, padding included.
    pub fn length(&self) -> i64 {
        self.key_values.length()
    }

    /// Sets the number of padded positions on the left of each row, before the first step.
    pub fn set_padding(&mut self, padding: Vec<i64>) {
        self.padding = if padding.iter().all(|&count| count == 0) { Vec::new() } else { padding };
    }

    /// The positions, for the table of position embeddings, of the next `length` tokens of each row: `[R,
    /// length]`, or `[length]` where they are the same in all rows. They count tokens without padding.
    pub fn positions(&self, length: i64) -> Tensor {
        let start = self.length();
        let positions = Tensor::arange_start(start, start + length, (Kind::Int64, self.device));
        match self.padding_tensor() {
            None => positions,
            Some(padding) => (positions - padding).clamp_min(0),
        }
    }

    /// The mask of self-attention for the next `length` tokens: causal, with padding hidden, and with their
    /// positions.
    pub fn mask(&self, length: i64) -> AttentionMask {
        let Some(padding) = self.padding_tensor() else { return AttentionMask::causal() };
        let keys = Tensor::arange(self.length() + length, (Kind::Int64, self.device));
        let attention_mask = keys.ge_tensor(&padding).to_kind(Kind::Int64); // [R, keys]
        AttentionMask::padding(&attention_mask).with_causal().with_positions(self.positions(length))
    }

    /// Makes row `i` what row `rows[i]` was.
    pub fn select_rows(&mut self, rows: &[i64]) {
        self.key_values.select_rows(&Tensor::from_slice(rows).to_device(self.device));
        if !self.padding.is_empty() {
            self.padding = rows.iter().map(|&row| self.padding[row as usize]).collect();
        }
    }

    /// `[R, 1]`, if any row has padding.
    fn padding_tensor(&self) -> Option<Tensor> {
        let padding = (!self.padding.is_empty()).then(|| Tensor::from_slice(&self.padding));
        Some(padding?.unsqueeze(-1).to_device(self.device))
    }
}
