//! Steps, losses, gradients and advantages beside PyTorch's, which are computed in f64.

use mm_core::loss::clipped_policy_loss;
use mm_rlhf::policy::{
    AdvantageScale, Levels, PromptStatistics, StepDistribution, Transition, diffusion_dpo_loss,
    group_advantages, nft_loss, optimality, rwr_weights,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-5;

/// A case of steps.json.
#[derive(Debug, Deserialize)]
struct Step {
    transition: Transition,
    now: f64,
    next: f64,
    std: f64,
    clip: f64,
}

/// The file advantages.json.
#[derive(Deserialize)]
struct AdvantageCases {
    rewards: Vec<f64>,
    groups: Vec<usize>,
    grouped: Vec<Grouped>,
    by_prompt: ByPrompt,
    optimality: Vec<f64>,
    rwr: Vec<f64>,
}

#[derive(Deserialize)]
struct Grouped {
    scale: AdvantageScale,
    epsilon: f64,
    clip: f64,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct ByPrompt {
    capacity: usize,
    least: usize,
    clip: f64,
    batches: Vec<PromptBatch>,
}

#[derive(Deserialize)]
struct PromptBatch {
    prompts: Vec<String>,
    rewards: Vec<f64>,
    values: Vec<f64>,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/rlhf-policy").join(name)
}

fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file(name)).unwrap().into_iter().collect()
}

/// Asserts that no row of `found` is off by more than the tolerance times its largest expected number.
fn assert_near(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!((found.size(), found.kind()), (expected.size(), Kind::Float), "{name}");
    let rows = if expected.dim() == 0 { 1 } else { expected.size()[0] };
    let largest = |x: &Tensor| x.to_kind(Kind::Double).view([rows, -1]).abs().amax([1i64].as_slice(), false);
    let off = (largest(&(found - expected)) / largest(expected).clamp_min(1e-12)).max().double_value(&[]);
    assert!(off <= TOLERANCE, "{name} is off by {off}");
}

fn assert_near_numbers(name: &str, found: &[f64], expected: &[f64]) {
    let is_near = |(found, expected): (&f64, &f64)| (found - expected).abs() <= TOLERANCE;
    assert!(found.len() == expected.len(), "{name}: {found:?} is not {expected:?}");
    assert!(found.iter().zip(expected).all(is_near), "{name}: {found:?} is not {expected:?}");
}

fn trainable(x: &Tensor) -> Tensor {
    x.copy().set_requires_grad(true)
}

#[test]
fn steps_their_probabilities_and_gradients_equal_pytorchs() {
    let (inputs, expected) = (tensors("inputs.safetensors"), tensors("expected.safetensors"));
    let cases: Vec<Step> = json("steps.json");
    for (number, Step { transition, now, next, std, clip }) in cases.iter().enumerate() {
        let near = |what: &str, found: &Tensor| {
            let name = format!("{what} of {transition:?} from {now} to {next}");
            assert_near(&name, found, &expected[&format!("{number}/{what}")]);
        };
        let step = |prediction: &Tensor| {
            transition.step(&inputs["sample"], prediction, Levels { now: *now, next: *next })
        };
        let old = step(&inputs["old"]);
        assert!((old.std - std).abs() < TOLERANCE * std, "{transition:?}: {} is not {std}", old.std);
        near("mean", &old.mean);
        near("next", &old.sample(&inputs["noise"]));

        let image = &expected[&format!("{number}/next")];
        let prediction = trainable(&inputs["prediction"]);
        let log_prob = transition.log_prob(image, &step(&prediction));
        near("log_prob", &log_prob);
        let old_log_prob = transition.log_prob(image, &old);
        let loss = clipped_policy_loss(&log_prob, &old_log_prob, &inputs["advantages"], *clip).loss;
        let loss = loss.mean(Kind::Float);
        near("loss", &loss);
        loss.backward();
        near("gradient", &prediction.grad());

        let prediction = trainable(&inputs["prediction"]);
        let divergence = transition.kl(&step(&prediction), &step(&inputs["reference"]));
        near("kl", &divergence);
        divergence.mean(Kind::Float).backward();
        near("kl_gradient", &prediction.grad());
    }
    assert_eq!(cases.len(), 13);
}

#[test]
fn the_image_and_the_reference_get_no_gradient_and_bf16_is_computed_in_f32() {
    let inputs = tensors("inputs.safetensors");
    let policy = Transition::FlowSde { noise: 0.7 };
    let step =
        |prediction: &Tensor| policy.step(&inputs["sample"], prediction, Levels { now: 0.6, next: 0.4 });
    let (prediction, reference) = (trainable(&inputs["prediction"]), trainable(&inputs["reference"]));
    let image = step(&reference).sample(&inputs["noise"]);
    let found = step(&prediction);
    let sum = policy.log_prob(&image, &found) + policy.kl(&found, &step(&reference));
    sum.sum(Kind::Float).backward();
    assert!(prediction.grad().defined() && !reference.grad().defined());

    let narrow = |x: &Tensor| x.to_kind(Kind::BFloat16);
    let StepDistribution { mean, .. } = step(&narrow(&inputs["prediction"]));
    let expected = step(&narrow(&inputs["prediction"]).to_kind(Kind::Float)).mean;
    assert!(mean.kind() == Kind::Float && mean == expected);
}

#[test]
fn the_loss_of_nft_and_its_gradient_equal_pytorchs() {
    let (inputs, expected) = (tensors("inputs.safetensors"), tensors("expected.safetensors"));
    let input = |name: &str| &inputs[&format!("nft.{name}")];
    for (name, beta) in [("1.0", 1.0), ("0.1", 0.1)] {
        let (velocity, old) = (trainable(input("velocity")), trainable(input("old")));
        let found = nft_loss(
            input("noisy"),
            input("sigma"),
            input("clean"),
            &velocity,
            &old,
            input("optimality"),
            beta,
        );
        assert_near(&format!("loss at beta {beta}"), &found, &expected[&format!("nft.{name}")]);
        found.mean(Kind::Float).backward();
        let gradient = &expected[&format!("nft.{name}.gradient")];
        assert_near(&format!("gradient at beta {beta}"), &velocity.grad(), gradient);
        assert!(!old.grad().defined());
    }
}

#[test]
fn the_loss_of_dpo_its_accuracy_and_gradients_equal_pytorchs() {
    let (inputs, expected) = (tensors("inputs.safetensors"), tensors("expected.safetensors"));
    let [winner, loser, reference_winner, reference_loser] =
        ["winner", "loser", "reference_winner", "reference_loser"]
            .map(|name| trainable(&inputs[&format!("dpo.{name}")]));
    let (loss, accuracy) = diffusion_dpo_loss(&winner, &loser, &reference_winner, &reference_loser, 5000.0);
    assert_near("loss", &loss, &expected["dpo.loss"]);
    assert_eq!(accuracy, expected["dpo.accuracy"]);
    loss.mean(Kind::Float).backward();
    assert_near("gradient of the winner", &winner.grad(), &expected["dpo.winner_gradient"]);
    assert_near("gradient of the loser", &loser.grad(), &expected["dpo.loser_gradient"]);
    assert!(!reference_winner.grad().defined() && !reference_loser.grad().defined());
}

#[test]
fn advantages_and_weights_equal_numpys() {
    let cases: AdvantageCases = json("advantages.json");
    for Grouped { scale, epsilon, clip, values } in cases.grouped {
        let found = group_advantages(&cases.rewards, &cases.groups, scale, epsilon, clip);
        assert_near_numbers(&format!("{scale:?}"), &found.values, &values);
        assert_eq!((found.groups, found.groups_without_variance), (3, 1));
    }
    let ByPrompt { capacity, least, clip, batches } = cases.by_prompt;
    let mut statistics = PromptStatistics::new(capacity, least);
    for PromptBatch { prompts, rewards, values } in batches {
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let found = statistics.advantages(&prompts, &rewards, clip);
        assert_near_numbers(&format!("advantages of {prompts:?}"), &found.values, &values);
    }
    let scaled: Vec<f64> = cases.rewards.iter().map(|reward| 6.0 * reward).collect();
    assert_near_numbers("optimality", &optimality(&scaled, 5.0), &cases.optimality);
    assert_near_numbers("weights", &rwr_weights(&cases.rewards, 0.2), &cases.rwr);
}
