//! Attention through all layers of a transformer.

use tch::{Kind, Tensor};

/// Attention rollout (Abnar & Zuidema 2020, section 3): how much of each input is in each output, `[B, L,
/// L]`, of the attention weights `[B, heads, L, L]` of each layer, the first layer first. The mean over heads
/// is averaged with the identity, for the residual connection, and the layers are multiplied. Rows sum to
/// 1. Without layers there is none.
pub fn attention_rollout(layers: &[Tensor]) -> Option<Tensor> {
    layers.iter().fold(None, |below, weights| {
        let mean = weights.to_kind(Kind::Float).mean_dim([1i64].as_slice(), false, Kind::Float); // [B, L, L]
        let identity = Tensor::eye(mean.size()[2], (Kind::Float, mean.device()));
        let mixed = (mean + identity) * 0.5;
        Some(match below {
            None => mixed,
            Some(below) => mixed.matmul(&below),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_mixed_with_the_identity_and_multiplied_from_the_first() {
        let layer = |values: [f32; 8]| Tensor::from_slice(&values).view([1, 2, 2, 2]);
        // The means over heads are [[0.5, 0.5], [0, 1]] and [[0, 1], [1, 0]].
        let first = layer([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        let second = layer([0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        let found = attention_rollout(&[first, second]).unwrap();
        // [[0.5, 0.5], [0.5, 0.5]] times [[0.75, 0.25], [0, 1]].
        let expected = Tensor::from_slice(&[0.375f32, 0.625, 0.375, 0.625]).view([1, 2, 2]);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-7);
        assert!(attention_rollout(&[]).is_none());
    }
}
