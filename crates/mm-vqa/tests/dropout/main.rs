//! Dropout in training, also where blocks are computed again. A program of its own: tests that build models
//! draw from libtorch's one generator too.

#[path = "../co_attention/shared.rs"]
mod shared;

use mm_core::loss::soft_target_bce;
use mm_vqa::co_attention::{CoAttentionHead, FusionConfig};
use shared::{config, expected, head, logits};
use std::sync::Mutex;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// libtorch has one generator a process: tests that draw from it run one at a time.
static GENERATOR: Mutex<()> = Mutex::new(());

/// The gradients of a step with dropout, by name.
fn gradients(gradient_checkpointing: bool) -> Vec<(String, Tensor)> {
    let (tokens, mut config) = config("mcan");
    if let FusionConfig::Mcan(mcan) = &mut config.fusion {
        mcan.dropout = 0.4;
    }
    config.set_gradient_checkpointing(gradient_checkpointing);
    let vs = VarStore::new(Device::Cpu);
    let head = CoAttentionHead::new(&vs.root(), tokens, &config).unwrap();
    mm_testing::initialize(&vs, 3);
    let expected = expected("mcan");
    head.set_training(true);
    tch::manual_seed(5);
    soft_target_bce(&logits(&head, &expected), &expected["targets"]).backward();
    let mut gradients: Vec<_> =
        vs.variables().into_iter().map(|(name, variable)| (name, variable.grad())).collect();
    gradients.sort_by(|(a, _), (b, _)| a.cmp(b));
    gradients
}

#[test]
fn gradient_checkpointing_repeats_the_dropout_of_the_forward_pass() {
    let _lock = GENERATOR.lock().unwrap();
    assert!(gradients(false) == gradients(true));
}

#[test]
fn dropout_is_off_until_training_and_follows_the_seed() {
    let _lock = GENERATOR.lock().unwrap();
    for folder in ["guided", "parallel", "mcan"] {
        let (_vs, head) = head(folder);
        let expected = expected(folder);
        let before = logits(&head, &expected);
        assert!(before == logits(&head, &expected));
        head.set_training(true);
        let [one, again, other] = [1, 1, 2].map(|seed| {
            tch::manual_seed(seed);
            logits(&head, &expected)
        });
        assert!(one == again && one != other && one != before, "{folder}");
        head.set_training(false);
        assert!(before == logits(&head, &expected));
    }
}
