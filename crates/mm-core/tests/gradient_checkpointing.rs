//! A checkpointed transformer has the gradients of a plain one, in half of the memory. The most memory that a
//! process has had never falls, so that it is measured in processes of their own.

use mm_core::Precision;
use mm_core::nn::{Activation, AttentionMask, BlockConfig, BlockNames, Context, NormOrder, Transformer};
use mm_core::peak_memory;
use std::process::Command;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn config(width: i64, layers: i64, norm_order: NormOrder) -> BlockConfig {
    let (heads, mlp_width) = (width / 8, 4 * width);
    let activation = Activation::Gelu;
    BlockConfig { width, heads, mlp_width, layers, activation, norm_order, ..BlockConfig::default() }
}

/// A stack whose parameters depend on the config alone.
fn transformer(vs: &VarStore, config: &BlockConfig, gradient_checkpointing: bool) -> Transformer {
    let config = BlockConfig { gradient_checkpointing, ..*config };
    let transformer = Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP);
    mm_testing::initialize(vs, 5);
    transformer
}

/// The output, and the gradients of the input and of all parameters, by name, where they have one.
fn gradients(
    vs: &VarStore,
    precision: Precision,
    x: &Tensor,
    forward: impl Fn(&Tensor) -> Tensor,
) -> Vec<(String, Tensor)> {
    vs.variables().values_mut().for_each(mm_sys::clear_gradient);
    let x = x.detach().set_requires_grad(x.requires_grad());
    let y = precision.autocast(Device::Cpu, || forward(&x));
    y.to_kind(Kind::Float).square().sum(Kind::Float).backward();
    let mut named: Vec<_> = vs.variables().into_iter().map(|(name, value)| (name, value.grad())).collect();
    named.extend([("input".to_owned(), x.grad()), ("output".to_owned(), y.detach())]);
    named.retain(|(_, gradient)| gradient.defined());
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.into_iter().map(|(name, gradient)| (name, gradient.copy())).collect()
}

#[test]
fn gradients_are_equal_bit_for_bit_under_every_mask_norm_order_and_precision() {
    let x = (Tensor::arange(3 * 5 * 16, F32) * 0.37).sin().view([3, 5, 16]).set_requires_grad(true);
    let positions = Tensor::from_slice(&[4i64, 0, 2]);
    let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0]).view([3, 5]);
    for norm_order in [NormOrder::Pre, NormOrder::Post] {
        for mask in [AttentionMask::none(), AttentionMask::causal(), AttentionMask::padding(&seen)] {
            for precision in [Precision::F32, Precision::Bf16] {
                let [plain, checkpointed] = [false, true].map(|on| {
                    let vs = VarStore::new(Device::Cpu);
                    let transformer = transformer(&vs, &config(16, 3, norm_order), on);
                    let at = |x: &Tensor| transformer.forward_at(x.shallow_clone(), &mask, &positions);
                    let all = |x: &Tensor| transformer.forward(x.shallow_clone(), &mask);
                    [gradients(&vs, precision, &x, at), gradients(&vs, precision, &x, all)]
                });
                assert_eq!(plain[1].len(), 3 * 12 + 2, "every parameter, the input and the output");
                assert!(checkpointed == plain, "{norm_order:?}, {mask:?}, {precision:?}");
            }
        }
    }
}

#[test]
fn a_context_and_a_bias_get_the_gradients_that_they_have_without_checkpointing() {
    let x = (Tensor::arange(4 * 5 * 16, F32) * 0.37).sin().view([4, 5, 16]).set_requires_grad(true);
    for precision in [Precision::F32, Precision::Bf16] {
        let [plain, checkpointed] = [false, true].map(|on| {
            let vs = VarStore::new(Device::Cpu);
            let config = BlockConfig { context_width: Some(12), ..config(16, 3, NormOrder::Pre) };
            let transformer = transformer(&vs, &config, on);
            let root = vs.root();
            let features = root.add("features", mm_testing::normal(6, &[2, 7, 12]), true);
            let distances = root.add("distances", mm_testing::normal(7, &[1, 2, 5, 5]), true);
            gradients(&vs, precision, &x, |x| {
                // Not leaves: what comes before a transformer needs gradients too.
                let mask = AttentionMask::causal().with_bias(&distances * 2.0);
                let context = Context { states: &features * 2.0, mask: AttentionMask::none() };
                transformer.forward_with_context(x.shallow_clone(), &mask, &context)
            })
        });
        assert_eq!(plain.len(), 3 * 20 + 4, "parameters, features, distances, the input and the output");
        assert!(checkpointed == plain, "{precision:?}");
    }
}

#[test]
fn locked_parameters_get_no_gradient_and_those_after_them_do() {
    let x = (Tensor::arange(3 * 5 * 16, F32) * 0.37).sin().view([3, 5, 16]);
    let [plain, checkpointed] = [false, true].map(|on| {
        let vs = VarStore::new(Device::Cpu);
        let transformer = transformer(&vs, &config(16, 3, NormOrder::Pre), on);
        for (name, variable) in vs.variables() {
            let _ = variable.set_requires_grad(name.starts_with("layers.2"));
        }
        let forward = |x: &Tensor| transformer.forward(x.shallow_clone(), &AttentionMask::none());
        gradients(&vs, Precision::F32, &x, forward)
    });
    assert_eq!(plain.len(), 12 + 1, "the last block's parameters and the output");
    assert!(checkpointed == plain);
}

/// Names what a child process measures: "on" or "off".
const CHECKPOINTING: &str = "MM_TEST_PEAK_MEMORY_WITH_CHECKPOINTING";

/// Bytes that a training step of 12 layers takes above their weights.
fn peak_of_a_step(on: bool) -> u64 {
    let vs = VarStore::new(Device::Cpu);
    let step = |layers: i64, batch: i64| {
        let transformer = transformer(&vs, &config(128, layers, NormOrder::Pre), on);
        let before = peak_memory().unwrap();
        let x = Tensor::ones([batch, 256, 128], F32);
        transformer.forward(x, &AttentionMask::none()).square().sum(Kind::Float).backward();
        peak_memory().unwrap() - before
    };
    step(1, 1); // libtorch's own code comes into memory with its first use
    step(12, 16)
}

#[test]
fn a_step_takes_at_most_half_of_the_memory_above_the_weights() {
    if let Ok(checkpointing) = std::env::var(CHECKPOINTING) {
        return println!("{checkpointing} {}", peak_of_a_step(checkpointing == "on"));
    }
    let [off, on] = ["off", "on"].map(|checkpointing| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_step_takes_at_most_half_of_the_memory_above_the_weights", "--nocapture"]);
        let output = child.env(CHECKPOINTING, checkpointing).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let bytes =
            told.lines().find_map(|line| line.strip_prefix(checkpointing)?.trim().parse::<u64>().ok());
        bytes.unwrap_or_else(|| panic!("{output:?}"))
    });
    println!("{} MB without, {} MB with checkpointing", off / 1_000_000, on / 1_000_000);
    assert!(off > 200_000_000, "the measure sees the activations: {off} bytes");
    assert!(2 * on <= off, "{on} bytes with, {off} without");
}
