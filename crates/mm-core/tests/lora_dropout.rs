//! Dropout of LoRA. It draws from libtorch's generator, of which there is one a process: hence one test.

use mm_core::checkpoint::hf_names;
use mm_core::lora::{Lora, LoraConfig, record_linears};
use mm_core::nn::{AttentionMask, BlockConfig, BlockNames, Transformer};
use mm_testing::{initialize, normal};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The output without dropout, and the gradients of adapters with dropout.
fn run(gradient_checkpointing: bool) -> (Tensor, Vec<(String, Tensor)>) {
    let (width, heads, mlp_width, layers) = (16, 4, 24, 2);
    let config =
        BlockConfig { width, heads, mlp_width, layers, gradient_checkpointing, ..BlockConfig::default() };
    let vs = VarStore::new(Device::Cpu);
    let (model, linears) =
        record_linears(|| Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP));
    initialize(&vs, 1);
    let targets = ["q_proj", "v_proj", "fc2"].map(str::to_owned).to_vec();
    let config = LoraConfig { dropout: 0.5, targets, ..LoraConfig::default() };
    let lora = Lora::attach(&config, &linears, hf_names, &vs).unwrap();
    for (_, mut variable) in lora.variables().variables() {
        tch::no_grad(|| variable.copy_(&(normal(2, &variable.size()) * 0.3)));
    }
    let x = normal(9, &[2, 5, 16]);
    let output = || model.forward(x.shallow_clone(), &AttentionMask::causal());
    let without_dropout = output().detach();
    assert_eq!(output(), without_dropout, "dropout is off at first");

    lora.set_training(true);
    tch::manual_seed(4);
    output().square().sum(Kind::Float).backward();
    let mut variables: Vec<(String, Tensor)> = lora.variables().variables().into_iter().collect();
    variables.sort_by(|(a, _), (b, _)| a.cmp(b));
    let gradients = variables.into_iter().map(|(name, variable)| (name, variable.grad())).collect();
    assert!(output() != output(), "each pass draws other inputs to drop");
    lora.set_training(false);
    assert_eq!(output(), without_dropout);
    (without_dropout, gradients)
}

#[test]
fn dropout_is_for_training_and_gradient_checkpointing_repeats_it() {
    assert!(run(false) == run(true));
}
