//! Outputs, attention weights, gradients and files against diffusers'.

use super::*;
use mm_core::Precision;
use mm_core::checkpoint::stored;
use tch::{Kind, Reduction};

#[test]
fn outputs_equal_diffusers_plain_and_packed() {
    for name in FOLDERS {
        let mut opened = open(name);
        for precision in [None, Some(Precision::F32)] {
            precision.into_iter().for_each(|precision| opened.model.pack(precision));
            let difference =
                tch::no_grad(|| largest_difference(&opened.forward(None), &opened.expected["output"]));
            assert!(difference <= 1e-4, "{name}, packed {precision:?}: differs by {difference}");
        }
    }
}

#[test]
fn a_masked_batch_equals_its_single_items() {
    for name in FOLDERS {
        let opened = open(name);
        let mask = opened.mask();
        let found = opened.forward(Some(&mask));
        let difference = largest_difference(&found, &opened.expected["alone"]);
        assert!(difference <= 1e-4, "{name}: differs by {difference}");
        let unmasked = largest_difference(&found, &opened.expected["output"]);
        assert!(unmasked > 1e-2, "{name}: the mask changes nothing");
    }
}

#[test]
fn weights_of_the_joint_attention_equal_diffusers() {
    let opened = open("dual");
    let first = |name: &str| opened.expected[name].narrow(0, 0, 1);
    let (states, pooled) = (first("encoder_hidden_states"), first("pooled_projections"));
    let text =
        Sd3Condition { encoder_hidden_states: &states, pooled_projections: &pooled, attention_mask: None };
    let (x, timestep) = (first("hidden_states"), first("timestep"));
    let (output, weights) = opened.model.forward_with_weights(&x, &timestep, &text).unwrap();
    assert_eq!(output, opened.model.forward(&x, &timestep, &text).unwrap());
    assert_eq!(weights.len(), 3);
    for (block, weights) in weights.iter().enumerate() {
        let difference = largest_difference(weights, &opened.expected[&format!("weights.{block}")]);
        assert!(difference <= 1e-5, "block {block} differs by {difference}");
    }
}

#[test]
fn loss_and_gradients_equal_diffusers_also_with_gradient_checkpointing() {
    for gradient_checkpointing in [false, true] {
        let opened = open_with("dual", |config| config.gradient_checkpointing = gradient_checkpointing);
        let loss = opened.forward(None).mse_loss(&opened.expected["target"], Reduction::Mean);
        assert!(largest_difference(&loss, &opened.expected["loss"]) <= 1e-5);
        loss.backward();
        let trained = opened.vs.variables().into_iter().filter(|(_, variable)| variable.requires_grad());
        let gradients: Vec<(String, Tensor)> =
            stored(trained.map(|(name, variable)| (name, variable.grad())), &Sd3Transformer::LAYOUT);
        let count = opened.expected.keys().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(gradients.len(), count);
        for (name, gradient) in gradients {
            let expected = &opened.expected[&format!("grad.{name}")];
            let scale = expected.abs().max().double_value(&[]);
            let difference = largest_difference(&gradient, expected);
            // Of the keys' biases it is rounding alone: the softmax does not see them.
            assert!(difference <= 1e-3 * scale + 1e-6, "{name}: {difference} of {scale}");
        }
    }
}

#[test]
fn the_table_of_positions_equals_diffusers() {
    for name in FOLDERS {
        let config = Sd3Config::from_hf(&config_json(name)).unwrap();
        let vs = VarStore::new(Device::Cpu);
        Sd3Transformer::new(&vs.root(), &config).unwrap();
        let file = Weights::open_folder(&golden(name), STEM).unwrap();
        let expected = file.tensor("pos_embed.pos_embed").unwrap();
        let difference = largest_difference(&vs.variables()["pos_embed.pos_embed"], &expected);
        assert!(difference <= 1e-6, "{name}: differs by {difference}");
    }
}

#[test]
fn weights_are_written_as_they_were_read() {
    for name in FOLDERS {
        let opened = open(name);
        let file = Weights::open_folder(&golden(name), STEM).unwrap();
        let written = stored(opened.vs.variables(), &Sd3Transformer::LAYOUT);
        assert_eq!(written.len(), file.list().len());
        for (name, tensor) in &written {
            assert_eq!(*tensor, file.tensor(name).unwrap(), "{name}");
        }
    }
}

#[test]
fn bf16_and_int8_are_near() {
    for (precision, bound) in [(Precision::Bf16, 0.05), (Precision::Int8, 0.05)] {
        let mut opened = open("dual");
        opened.model.pack(precision);
        let found = tch::no_grad(|| opened.forward(Some(&opened.mask())));
        assert_eq!(found.kind(), Kind::Float);
        let expected = &opened.expected["alone"];
        let error = ((found - expected).norm() / expected.norm()).double_value(&[]);
        assert!(error < bound, "{precision:?} is off by {error}");
    }
}
