//! Attention equals a plain form of it, whichever way it is computed.

use super::*;
use crate::nn::{RopeConfig, RopeScaling, Rotary};
use mm_testing::{initialize, normal};
use tch::Device;
use tch::nn::VarStore;

/// Self-attention with parameters on `vs`.
fn self_attention(vs: &VarStore, width: i64, heads: i64) -> Attention {
    let linear = |name: &str, output: i64| Linear::new(&(vs.root() / name), width, output, 0.3);
    Attention::new(linear("in_proj", 3 * width), linear("out_proj", width), heads)
}

/// The relative distance of `x` to `exact`.
fn error(x: &Tensor, exact: &Tensor) -> f64 {
    ((x - exact).norm() / exact.norm()).double_value(&[])
}

#[test]
fn attention_over_all_heads_in_bf16_differs_from_f32_by_the_rounding_of_bf16() {
    let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]).view([2, 6]);
    let run = |kind: Kind, mask: &AttentionMask| {
        let rounded = |seed| normal(seed, &[2, 3, 6, 16]).to_kind(Kind::BFloat16).to_kind(kind);
        let [q, k, v] = [1, 2, 3].map(|seed| rounded(seed).set_requires_grad(true));
        let y = attend(&q, &k, &v, &prepare(mask, &q, &k), &Dropout::default());
        (&y * rounded(4)).sum(Kind::Float).backward();
        let gradients = [q, k, v].map(|x| x.grad().to_kind(Kind::Float));
        (y.detach().to_kind(Kind::Float), Tensor::cat(&gradients, 0))
    };
    for mask in [AttentionMask::none(), AttentionMask::causal(), AttentionMask::padding(&seen)] {
        let exact = run(Kind::Float, &mask);
        let bf16 = mm_sys::autocast_bf16(Device::Cpu, || run(Kind::BFloat16, &mask));
        for (what, found, exact) in [("output", &bf16.0, &exact.0), ("gradients", &bf16.1, &exact.1)] {
            let error = error(found, exact);
            assert!(error < 0.008, "{mask:?}: the error of {what} is {error}, twice bf16's step is 0.008");
        }
    }
}

#[test]
fn attention_with_weights_equals_attention_under_every_mask() {
    let vs = VarStore::new(Device::Cpu);
    let attention = self_attention(&vs, 16, 4);
    initialize(&vs, 2);
    let x = normal(3, &[3, 6, 16]);
    let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]).view([3, 6]);
    for mask in [AttentionMask::none(), AttentionMask::causal(), AttentionMask::padding(&seen)] {
        let (y, weights) = attention.forward_with_weights(&x, &mask);
        let difference = (attention.forward(&x, &mask) - y).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{mask:?} differs by {difference}");
        let sums = weights.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5, "{mask:?}: weights do not sum to 1");
    }
}

#[test]
fn a_bias_is_added_to_the_scores_beside_every_mask() {
    let vs = VarStore::new(Device::Cpu);
    let attention = self_attention(&vs, 16, 4);
    initialize(&vs, 2);
    let (x, bias) = (normal(3, &[2, 6, 16]), normal(4, &[1, 4, 6, 6]));
    let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]).view([2, 6]);
    let hidden = seen.eq(0).view([2, 1, 1, 6]);
    let later = Tensor::ones([6, 6], (Kind::Bool, Device::Cpu)).triu(1);
    let masks = [
        (AttentionMask::none(), hidden.zeros_like()),
        (AttentionMask::causal(), later.view([1, 1, 6, 6])),
        (AttentionMask::padding(&seen), hidden.shallow_clone()),
        // Padding is on the right here, so that no query sees padding alone.
        (AttentionMask::padding(&seen).with_causal(), hidden.logical_or(&later)),
    ];
    for (mask, hidden) in masks {
        let (_, without) = attention.forward_with_weights(&x, &mask);
        let mask = mask.with_bias(bias.shallow_clone());
        let (y, weights) = attention.forward_with_weights(&x, &mask);
        // softmax(s + b) is softmax(s) exp(b), normalized.
        let expected = &without * bias.exp();
        let expected = &expected / expected.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
        let is_real = hidden.logical_not() * seen.view([2, 1, 6, 1]).ne(0);
        let difference = ((&weights - expected) * is_real).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{mask:?} differs by {difference}");
        let seen_in_spite = (&weights * hidden * seen.view([2, 1, 6, 1])).abs().max().double_value(&[]);
        assert_eq!(seen_in_spite, 0.0, "{mask:?}");
        let difference = (attention.forward(&x, &mask) - y).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{mask:?} differs by {difference}");
    }
}

/// Cross-attention as its definition has it: head by head, one row at a time, in f64.
fn naive(vs: &VarStore, heads: i64, x: &Tensor, context: &Tensor, bias: &Tensor) -> Tensor {
    let variables = vs.variables();
    let affine = |name: &str, x: &Tensor| {
        let [weight, bias] =
            ["weight", "bias"].map(|kind| variables[&format!("{name}.{kind}")].to_kind(x.kind()));
        x.matmul(&weight.transpose(0, 1)) + bias
    };
    let (x, context) = (x.to_kind(Kind::Double), context.to_kind(Kind::Double));
    let (batch, _, width) = x.size3().unwrap();
    let head = width / heads;
    let row = |row: i64| {
        let (x, group) = (x.get(row), row * context.size()[0] / batch);
        let (q, kv) = (affine("q_proj", &x), affine("kv_proj", &context.get(group)));
        let of_head = |index: i64| {
            let part = |x: &Tensor, start: i64| x.narrow(1, start + index * head, head);
            let scores = part(&q, 0).matmul(&part(&kv, 0).transpose(0, 1)) / (head as f64).sqrt();
            (scores + bias.get(group)).softmax(-1, None).matmul(&part(&kv, width))
        };
        affine("out_proj", &Tensor::cat(&(0..heads).map(of_head).collect::<Vec<_>>(), 1))
    };
    Tensor::stack(&(0..batch).map(row).collect::<Vec<_>>(), 0)
}

#[test]
fn cross_attention_equals_its_definition_in_every_precision() {
    let (width, heads, context_width) = (16, 4, 24);
    let (x, context) = (normal(3, &[6, 5, width]), normal(4, &[3, 7, context_width]));
    let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let seen = seen.view([3, 7]);
    let hidden = seen.eq(0).unsqueeze(1); // [3, 1, 7]
    let bias = hidden.zeros_like().to_kind(Kind::Double).masked_fill(&hidden, f64::NEG_INFINITY);
    for (precision, bound) in [
        (None, 1e-6),
        (Some(Precision::F32), 1e-6),
        (Some(Precision::Bf16), 0.02),
        (Some(Precision::Int8), 0.03),
    ] {
        let vs = VarStore::new(Device::Cpu);
        let linear = |name: &str, input, output| Linear::new(&(vs.root() / name), input, output, 0.3);
        let (q_proj, kv_proj) = (linear("q_proj", width, width), linear("kv_proj", context_width, 2 * width));
        let mut attention = Attention::cross(q_proj, kv_proj, linear("out_proj", width, width), heads);
        initialize(&vs, 2);
        let expected = naive(&vs, heads, &x, &context, &bias);
        let kind = precision.map_or(Kind::Float, Precision::kind);
        precision.into_iter().for_each(|precision| attention.pack(precision));
        let y = tch::no_grad(|| {
            let mask = AttentionMask::padding(&seen);
            attention.forward_context(&x.to_kind(kind), &context.to_kind(kind), &mask)
        });
        assert_eq!(y.kind(), kind);
        let error = error(&y.to_kind(Kind::Double), &expected);
        assert!(error < bound, "{precision:?}: the error is {error}");
    }
}

/// Grouped self-attention as its definition has it: head by head, in f64. `turn` gives the rotary form of a
/// head `[B, L, head]`.
fn naive_grouped(
    vs: &VarStore,
    heads: i64,
    kv_heads: i64,
    x: &Tensor,
    bias: &Tensor,
    turn: &dyn Fn(&Tensor) -> Tensor,
) -> Tensor {
    let variables = vs.variables();
    let affine = |name: &str, x: &Tensor| {
        let [weight, bias] =
            ["weight", "bias"].map(|kind| variables[&format!("{name}.{kind}")].to_kind(Kind::Double));
        x.matmul(&weight.transpose(0, 1)) + bias
    };
    let x = x.to_kind(Kind::Double);
    let (q, kv) = (affine("q_proj", &x), affine("kv_proj", &x));
    let head = q.size()[2] / heads;
    let of_head = |index: i64| {
        let part = |x: &Tensor, start: i64| x.narrow(2, start * head, head);
        let shared = index / (heads / kv_heads);
        let (q, k) = (turn(&part(&q, index)), turn(&part(&kv, shared)));
        let scores = q.matmul(&k.transpose(1, 2)) / (head as f64).sqrt();
        (scores + bias).softmax(-1, None).matmul(&part(&kv, kv_heads + shared))
    };
    affine("out_proj", &Tensor::cat(&(0..heads).map(of_head).collect::<Vec<_>>(), 2))
}

#[test]
fn grouped_attention_equals_its_definition_in_every_precision() {
    let (width, heads, head, length) = (16, 4, 6, 11);
    let rotary = Rotary::new(&RopeConfig { theta: 50.0, scaling: RopeScaling::Default }, head, Device::Cpu);
    let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu));
    let x = normal(3, &[2, length, width]);
    let later = Tensor::ones([length, length], (Kind::Bool, Device::Cpu)).triu(1);
    let bias = later.zeros_like().to_kind(Kind::Double).masked_fill(&later, f64::NEG_INFINITY);
    for (kv_heads, precision, bound) in [
        (2, None, 1e-6),
        (1, None, 1e-6),
        (4, None, 1e-6),
        (2, Some(Precision::F32), 1e-6),
        (2, Some(Precision::Bf16), 0.02),
        (2, Some(Precision::Int8), 0.03),
    ] {
        let vs = VarStore::new(Device::Cpu);
        let linear = |name: &str, input, output| Linear::new(&(vs.root() / name), input, output, 0.3);
        let (q_proj, kv_proj) =
            (linear("q_proj", width, heads * head), linear("kv_proj", width, 2 * kv_heads * head));
        let out_proj = linear("out_proj", heads * head, width);
        let mut attention = Attention::grouped(q_proj, kv_proj, out_proj, heads, kv_heads);
        initialize(&vs, 2);
        for is_rotary in [true, false] {
            let table = rotary.table(&positions);
            let turn = |x: &Tensor| {
                if is_rotary { table.rotate(&x.unsqueeze(2)).squeeze_dim(2) } else { x.shallow_clone() }
            };
            let expected = naive_grouped(&vs, heads, kv_heads, &x, &bias, &turn);
            if !attention.out_proj.is_packed() {
                precision.into_iter().for_each(|precision| attention.pack(precision));
            }
            let kind = precision.map_or(Kind::Float, Precision::kind);
            let mask = || {
                let mask = AttentionMask::causal();
                if is_rotary { mask.with_rotary(rotary.table(&positions)) } else { mask }
            };
            let y = tch::no_grad(|| attention.forward(&x.to_kind(kind), &mask()));
            assert_eq!(y.kind(), kind);
            let off = error(&y.to_kind(Kind::Double), &expected);
            assert!(off < bound, "{kv_heads}, {precision:?}: the error is {off}");
            let (y, weights) = tch::no_grad(|| attention.forward_with_weights(&x.to_kind(kind), &mask()));
            let off = error(&y.to_kind(Kind::Double), &expected);
            assert!(off < 2.0 * bound, "{kv_heads}, {precision:?}: with weights the error is {off}");
            assert_eq!(weights.size(), [2, heads, length, length]);
        }
    }
}
