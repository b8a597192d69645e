//! Logits, losses, gradients and attention of the peers.

use crate::{FOLDERS, expected, head, largest_difference, logits};
use mm_core::checkpoint::hf_names;
use mm_core::loss::{soft_target_bce, soft_target_cross_entropy};
use tch::Tensor;

#[test]
fn logits_losses_and_gradients_are_those_of_plain_pytorch() {
    for folder in FOLDERS {
        let (vs, head) = head(folder);
        let expected = expected(folder);
        assert!(largest_difference(&head.project(&expected["image_tokens"]), &expected["projected"]) < 1e-4);
        let logits = logits(&head, &expected);
        let difference = largest_difference(&logits, &expected["logits"]);
        assert!(difference < 1e-4, "{folder}: logits differ by {difference}");

        let (cross_entropy, without) = soft_target_cross_entropy(&logits, &expected["targets"]);
        assert_eq!(without.int64_value(&[]), 1, "the fourth question has no answer");
        let bce = soft_target_bce(&logits, &expected["targets"]);
        for (name, loss) in [("cross_entropy", &cross_entropy), ("bce", &bce)] {
            let (loss, expected) = (loss.double_value(&[]), expected[name].double_value(&[]));
            assert!((loss / expected - 1.0).abs() < 1e-3, "{folder}: {name} is {loss}, not {expected}");
        }

        bce.backward();
        let mut compared = 0;
        for (name, variable) in vs.variables() {
            let parts: Vec<&Tensor> =
                hf_names(&name).iter().map(|name| &expected[&format!("grad.{name}")]).collect();
            compared += parts.len();
            let gradient = Tensor::cat(&parts, 0);
            let difference = largest_difference(&variable.grad(), &gradient);
            let allowed = 1e-3 * gradient.abs().max().double_value(&[]) + 1e-7;
            assert!(difference < allowed, "{folder}: the gradient of {name} differs by {difference}");
        }
        let gradients = expected.keys().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(compared, gradients, "{folder}: a weight has no variable");
    }
}

#[test]
fn attention_over_the_image_is_that_of_plain_pytorch() {
    for folder in FOLDERS {
        let (_vs, head) = head(folder);
        let expected = expected(folder);
        let (with, attention) = head.forward_with_weights(
            &head.project(&expected["image_tokens"]),
            &expected["image_index"],
            &expected["input_ids"],
            &expected["lengths"],
        );
        assert!(largest_difference(&with, &expected["logits"]) < 1e-4, "{folder}");
        let layers = expected.keys().filter(|name| name.starts_with("attention.")).count();
        assert_eq!(attention.layers.len(), layers, "{folder}");
        for (index, layer) in attention.layers.iter().enumerate() {
            let difference = largest_difference(layer, &expected[&format!("attention.{index}")]);
            assert!(difference < 1e-5, "{folder}: layer {index} differs by {difference}");
        }
        let sums = attention.rolled_out.sum_dim_intlist([1i64].as_slice(), false, tch::Kind::Float);
        assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5, "{folder}");
    }
}
