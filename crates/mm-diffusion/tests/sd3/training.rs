//! A model that is trained from scratch.

use super::*;
use mm_core::Precision;
use mm_testing::normal;
use tch::nn::OptimizerConfig;
use tch::{Kind, Reduction};

/// A small model of pixels.
fn pixels() -> Sd3Config {
    Sd3Config {
        sample_size: 32,
        patch_size: 8,
        in_channels: 3,
        out_channels: 3,
        num_layers: 2,
        attention_head_dim: 8,
        num_attention_heads: 4,
        caption_projection_dim: 32,
        joint_attention_dim: 12,
        pooled_projection_dim: 10,
        pos_embed_max_size: 4,
        ..Sd3Config::default()
    }
}

/// The loss of the model on four images under texts of one to six tokens.
fn loss(model: &Sd3Transformer) -> Tensor {
    let (x, states, pooled) = (normal(1, &[4, 3, 32, 32]), normal(2, &[4, 6, 12]), normal(3, &[4, 10]));
    let mask = Tensor::ones([4, 6], (Kind::Int64, Device::Cpu)).tril(2);
    let text = Sd3Condition {
        encoder_hidden_states: &states,
        pooled_projections: &pooled,
        attention_mask: Some(&mask),
    };
    let output = model.forward(&x, &Tensor::from_slice(&[1.0f32, 200.0, 700.0, 1000.0]), &text).unwrap();
    output.mse_loss(&normal(4, &[4, 3, 32, 32]), Reduction::Mean)
}

#[test]
fn a_new_model_gives_zero_and_every_weight_that_is_read_learns() {
    let vs = VarStore::new(Device::Cpu);
    let model = Sd3Transformer::new(&vs.root(), &pixels()).unwrap();
    let zero = normal(4, &[4, 3, 32, 32]).square().mean(Kind::Float);
    assert_eq!(loss(&model), zero, "the last layer is zero");
    let mut optimizer = tch::nn::Adam::default().build(&vs, 1e-3).unwrap();
    // The last layer moves first, then the gates, then what they let through.
    for _ in 0..4 {
        optimizer.backward_step(&loss(&model));
    }
    for (name, variable) in vs.variables() {
        if variable.requires_grad() {
            let largest = variable.grad().abs().max().double_value(&[]);
            assert!(largest > 0.0, "{name} does not learn");
        }
    }
    for _ in 0..100 {
        optimizer.backward_step(&loss(&model));
    }
    let after = loss(&model).double_value(&[]);
    assert!(after < 0.5 * zero.double_value(&[]), "the loss is still {after}");
}

#[test]
fn autocast_to_bf16_is_near_and_gives_gradients_in_f32() {
    let opened = open("pixels");
    let exact = opened.forward(None);
    let found = Precision::Bf16.autocast(Device::Cpu, || opened.forward(None));
    assert_eq!(found.kind(), Kind::Float);
    let error = ((&found - &exact).norm() / exact.norm()).double_value(&[]);
    assert!(error > 0.0 && error < 0.05, "autocast is off by {error}");
    found.square().mean(Kind::Float).backward();
    let weight = &opened.vs.variables()["transformer_blocks.0.attn.to_qkv.weight"];
    assert_eq!(weight.grad().kind(), Kind::Float);
    assert!(weight.grad().isfinite().all().int64_value(&[]) == 1);
}
