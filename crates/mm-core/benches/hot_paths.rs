//! The parts of a training step that are not a tower: the contrastive loss and the optimizer; and a linear
//! layer, packed and not.

use criterion::{Criterion, criterion_group, criterion_main};
use mm_core::Precision;
use mm_core::loss::info_nce;
use mm_core::nn::Linear;
use mm_core::optim::{AdamWConfig, Optimizer, ParamOptions, Partition};
use std::hint::black_box;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// InfoNCE forward and backward at B = 1024, D = 512.
fn contrastive_loss(criterion: &mut Criterion) {
    let unit_rows = || {
        let x = Tensor::randn([1024, 512], F32);
        (&x / x.norm_scalaropt_dim(2.0, [1i64].as_slice(), true)).set_requires_grad(true)
    };
    let (image, text, scale) = (unit_rows(), unit_rows(), Tensor::from(2.66f32).set_requires_grad(true));
    criterion.bench_function("info_nce 1024 x 512", |bencher| {
        bencher.iter(|| {
            Tensor::run_backward(&[info_nce(&image, &text, &scale)], &[&image, &text, &scale], false, false)
        });
    });
}

/// One clipped AdamW step over 20 M parameters.
fn optimizer(criterion: &mut Criterion) {
    let vs = VarStore::new(Device::Cpu);
    for layer in 0..20 {
        let _ = (vs.root() / layer).var("weight", &[1000, 1000], Init::Randn { mean: 0.0, stdev: 0.02 });
    }
    vs.variables().values().map(|v| v.square().sum(Kind::Float)).sum::<Tensor>().backward();
    let config = AdamWConfig { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.2 };
    let mut adamw = Optimizer::new(&vs, config, Partition::WHOLE, |_| ParamOptions::default());
    criterion.bench_function("AdamW 20 M parameters", |bencher| {
        bencher.iter(|| adamw.step(1e-5, &adamw.gradient_norm(), Some(1.0)).expect("gradients fit"));
    });
}

/// ViT-B/32's first MLP layer at batch 16, in each precision.
fn linear(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Bf16] {
        let vs = VarStore::new(Device::Cpu);
        let mut layer = Linear::new(&vs.root(), 768, 3072, 0.02);
        let x = Tensor::randn([800, 768], F32).to_kind(precision.kind());
        if precision != Precision::F32 {
            layer.pack(precision);
        }
        criterion.bench_function(&format!("linear 800 x 768 x 3072 {precision:?}"), |bencher| {
            bencher.iter(|| mm_sys::inference_mode(|| black_box(layer.forward(&x))));
        });
    }
}

criterion_group!(benches, contrastive_loss, optimizer, linear);
criterion_main!(benches);
