//! Dropout of LoRA. It draws from libtorch's generator, of which there is one a process: hence one test.

use mm_core::checkpoint::hf_names;
use mm_core::lora::{Lora, LoraConfig, record_linears};
use mm_core::nn::{Activation, AttentionMask, BlockConfig, NormOrder, Transformer};
use mm_testing::{initialize, normal};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[test]
fn dropout_is_for_training_and_gradient_checkpointing_repeats_it() {
    let config = BlockConfig {
        width: 16,
        heads: 4,
        mlp_width: 24,
        layers: 2,
        activation: Activation::Gelu,
        layer_norm_eps: 1e-5,
        norm_order: NormOrder::Pre,
    };
    let vs = VarStore::new(Device::Cpu);
    let (mut model, linears) = record_linears(|| Transformer::new(&(vs.root() / "layers"), &config));
    initialize(&vs, 1);
    let targets = ["q_proj", "v_proj", "fc2"].map(str::to_owned).to_vec();
    let config = LoraConfig { dropout: 0.5, targets, ..LoraConfig::default() };
    let lora = Lora::attach(&config, &linears, hf_names, &vs).unwrap();
    for (_, mut variable) in lora.variables().variables() {
        tch::no_grad(|| variable.copy_(&(normal(2, &variable.size()) * 0.3)));
    }
    let x = normal(9, &[2, 5, 16]);
    let output = |model: &Transformer| model.forward(x.shallow_clone(), &AttentionMask::Causal);
    assert_eq!(output(&model), output(&model), "dropout is off at first");

    lora.set_training(true);
    let mut gradients = |checkpointing| {
        model.set_gradient_checkpointing(checkpointing);
        tch::manual_seed(4);
        output(&model).square().sum(Kind::Float).backward();
        let mut variables: Vec<(String, Tensor)> = lora.variables().variables().into_iter().collect();
        variables.sort_by(|(a, _), (b, _)| a.cmp(b));
        let gradient = |(name, mut variable): (String, Tensor)| {
            let gradient = variable.grad().copy();
            variable.zero_grad();
            (name, gradient)
        };
        variables.into_iter().map(gradient).collect::<Vec<_>>()
    };
    let (plain, checkpointed) = (gradients(false), gradients(true));
    assert!(plain == checkpointed);
    assert!(output(&model) != output(&model));
    lora.set_training(false);
    assert_eq!(output(&model), output(&model));
}
