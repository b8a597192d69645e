//! One call of the U-Net.

use crate::{assert_equal, expected, json, weights};
use mm_core::Precision;
use mm_core::checkpoint::stored;
use mm_diffusion::{UNet, UNetConfig, UNetInputs};
use std::collections::HashMap;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn unet(folder: &str) -> (VarStore, UNet) {
    let config = UNetConfig::from_hf(&json(&format!("{folder}/unet/config.json"))).unwrap();
    let vs = VarStore::new(Device::Cpu);
    let weights = weights(&format!("{folder}/unet"));
    let unet = weights.build(&vs, &UNet::LAYOUT, |path| UNet::new(path, &config)).unwrap();
    (vs, unet)
}

fn call(unet: &UNet, expected: &HashMap<String, Tensor>, prefix: &str) -> Tensor {
    let input = |name: &str| expected.get(&format!("{prefix}.{name}"));
    let text = unet.project_text(input("encoder_hidden_states").unwrap());
    unet.forward(UNetInputs {
        sample: input("sample").unwrap(),
        timestep: input("timestep").unwrap(),
        text: &text,
        added: input("text_embeds").zip(input("time_ids")),
        guidance: None,
    })
    .unwrap()
}

#[test]
fn the_output_equals_diffusers_before_and_after_packing() {
    for (folder, prefixes) in [("sd1", &["unet", "odd"][..]), ("sdxl", &["unet"])] {
        let (expected, (_vs, mut unet)) = (expected(folder), unet(folder));
        for is_packed in [false, true] {
            if is_packed {
                unet.pack(Precision::F32);
            }
            for prefix in prefixes {
                let found = tch::no_grad(|| call(&unet, &expected, prefix));
                assert_equal(folder, &found, &expected[&format!("{prefix}.output")], 1e-4);
            }
        }
    }
}

#[test]
fn loss_and_gradients_equal_diffusers() {
    let (expected, (vs, unet)) = (expected("sd1"), unet("sd1"));
    let loss = (call(&unet, &expected, "unet") - &expected["unet.target"]).square().mean(Kind::Float);
    assert_equal("the loss", &loss, &expected["unet.loss"], 1e-4);
    loss.backward();
    let gradients = vs.variables().into_iter().map(|(name, variable)| (name, variable.grad()));
    let gradients: HashMap<String, Tensor> = stored(gradients, &UNet::LAYOUT).into_iter().collect();
    let wanted = expected.iter().filter_map(|(name, value)| Some((name.strip_prefix("unet.grad.")?, value)));
    let mut compared = 0;
    for (name, expected) in wanted {
        let scale = expected.abs().max().double_value(&[]);
        assert_equal(name, &gradients[name], expected, 1e-3 * scale + 1e-6);
        compared += 1;
    }
    assert_eq!(compared, gradients.len());
}

#[test]
fn the_config_is_written_as_diffusers_reads_it() {
    let config = UNetConfig::from_hf(&json("sdxl/unet/config.json")).unwrap();
    assert_eq!(UNetConfig::from_hf(&config.to_hf()).unwrap(), config);
}

#[test]
fn attention_weights_of_each_layer_sum_to_one() {
    let (expected, (_vs, unet)) = (expected("sd1"), unet("sd1"));
    let text = unet.project_text(&expected["unet.encoder_hidden_states"]);
    let inputs = UNetInputs {
        sample: &expected["unet.sample"],
        timestep: &expected["unet.timestep"],
        text: &text,
        added: None,
        guidance: None,
    };
    let (output, weights) = tch::no_grad(|| unet.forward_with_weights(inputs).unwrap());
    assert_equal("the output", &output, &expected["unet.output"], 1e-4);
    assert_eq!(
        weights.iter().map(Tensor::size).collect::<Vec<_>>(),
        [vec![2, 2, 48, 5], vec![2, 2, 12, 5], vec![2, 2, 48, 5], vec![2, 2, 48, 5]]
    );
    for weights in weights {
        let sums = weights.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        assert_equal("a sum", &sums, &sums.ones_like(), 1e-5);
    }
}
