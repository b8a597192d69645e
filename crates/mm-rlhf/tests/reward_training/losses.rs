//! The loss of a batch: its gradients, its parts, its independence of the division into batches.

use super::{aesthetic, clip, config, lists, preferences, ratings, task};
use mm_data::{Dataset, SampleRng};
use mm_rlhf::RewardTask;
use mm_rlhf::reward_training::RewardItem;
use mm_train::Task;
use rand::SeedableRng;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// The items of samples `range` of `dataset`.
fn items(task: &RewardTask, dataset: &Arc<dyn Dataset>, range: std::ops::Range<usize>) -> Vec<RewardItem> {
    let map = task.preprocess();
    let item = |index| map(&dataset.sample(index).unwrap(), &mut SampleRng::seed_from_u64(1)).unwrap();
    range.map(item).collect()
}

fn loss(task: &RewardTask, dataset: &Arc<dyn Dataset>, range: std::ops::Range<usize>) -> Tensor {
    task.loss(&task.collate(items(task, dataset, range)).unwrap()).unwrap().total
}

/// The variables of `task`, by name and in order.
fn variables(task: &RewardTask) -> Vec<(String, Tensor)> {
    let mut variables: Vec<_> = task.variables().variables().into_iter().collect();
    variables.sort_by(|(one, _), (other, _)| one.cmp(other));
    variables
}

/// Draws the variables again, so that a gradient is no rounding.
fn spread(task: &RewardTask) {
    for (index, (_, mut variable)) in variables(task).into_iter().enumerate() {
        let drawn = mm_testing::normal(index as u64, &variable.size()) * 0.5;
        tch::no_grad(|| variable.copy_(&drawn));
    }
}

#[test]
fn the_gradients_of_each_objective_are_those_of_differences() {
    let folder = tempfile::tempdir().unwrap();
    for (objective, dataset) in
        [("regression", ratings(1, 8)), ("preferences", preferences(1, 8)), ("ranking", lists(1, 8))]
    {
        // Without a ReLU: differences across its bend are no gradient.
        let model = aesthetic("hidden = [6, 5, 4, 3]\nensemble = 2");
        let config = config(folder.path(), &model, objective, "steps = 1\nlr = 1e-3");
        let task = task(&config, &dataset);
        spread(&task);
        loss(&task, &dataset, 0..8).backward();
        for (name, variable) in variables(&task) {
            let direction = mm_testing::normal(9, &variable.size());
            let (start, mut place) = (variable.detach().copy(), variable.detach());
            let mut along = |step: f64| {
                tch::no_grad(|| place.copy_(&(&start + &direction * step)));
                loss(&task, &dataset, 0..8).double_value(&[])
            };
            let step = 2e-3;
            let numeric = (along(step) - along(-step)) / (2.0 * step);
            along(0.0);
            let analytic = (variable.grad() * &direction).sum(Kind::Double).double_value(&[]);
            let scale = 1.0 + numeric.abs() + loss(&task, &dataset, 0..8).double_value(&[]);
            assert!((numeric - analytic).abs() < 1e-2 * scale, "{objective}, {name}: {numeric}, {analytic}");
        }
    }
}

#[test]
fn a_loss_is_the_mean_of_those_of_its_parts_so_that_ranks_may_share_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    for (model, objective, dataset) in [
        (aesthetic("ensemble = 3"), "regression", ratings(1, 12)),
        (aesthetic("ensemble = 3"), "ranking", lists(1, 12)),
        (clip(""), "preferences", preferences(1, 12)),
    ] {
        let config = config(folder.path(), &model, objective, "steps = 1\nlr = 1e-3");
        let task = task(&config, &dataset);
        spread(&task);
        let whole = loss(&task, &dataset, 0..12).double_value(&[]);
        let parts = [0..4, 4..8, 8..12].map(|range| loss(&task, &dataset, range).double_value(&[]));
        let mean = parts.iter().sum::<f64>() / 3.0;
        assert!(
            (whole - mean).abs() < 1e-4 * (1.0 + whole.abs()),
            "{objective}: {whole}, {mean} of {parts:?}"
        );
    }
}

#[test]
fn what_is_frozen_has_no_gradient_and_what_trains_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = preferences(1, 4);
    let lora = "[lora]\nrank = 2\ntargets = ['q_proj']";
    for (model, keys, expected) in [
        (
            clip("trains = 'head'"),
            "",
            vec!["logit_scale", "text_projection.weight", "visual_projection.weight"],
        ),
        (
            aesthetic("hidden = [3]"),
            "",
            vec![
                "members.0.layers.0.bias",
                "members.0.layers.0.weight",
                "members.0.layers.2.bias",
                "members.0.layers.2.weight",
            ],
        ),
        (clip(""), lora, vec![]),
    ] {
        let config = config(folder.path(), &model, "preferences", &format!("steps = 1\nlr = 1\n{keys}"));
        let task = task(&config, &dataset);
        loss(&task, &dataset, 0..4).backward();
        let names: Vec<String> = variables(&task).into_iter().map(|(name, _)| name).collect();
        match expected.is_empty() {
            true => {
                assert!(names.len() == 8 && names.iter().all(|name| name.contains(".lora_")), "{names:?}")
            }
            false => assert_eq!(names, expected),
        }
        for (name, variable) in variables(&task) {
            assert!(variable.grad().defined(), "{name}");
        }
        let frozen = task.frozen().map(|vs| vs.variables()).unwrap_or_default();
        assert_eq!(frozen.is_empty(), !model.contains("head"));
        assert!(frozen.values().all(|variable| !variable.requires_grad()));
    }
}

#[test]
fn parts_tell_how_many_pairs_are_in_the_right_order() {
    let folder = tempfile::tempdir().unwrap();
    for (model, objective, dataset, name) in [
        (aesthetic(""), "regression", ratings(1, 8), "absolute_error"),
        (aesthetic(""), "preferences", preferences(1, 8), "accuracy"),
        (aesthetic(""), "ranking", lists(1, 8), "top_1"),
    ] {
        let config = config(folder.path(), &model, objective, "steps = 1\nlr = 1e-3");
        let task = task(&config, &dataset);
        let batch = task.collate(items(&task, &dataset, 0..8)).unwrap();
        let parts = task.loss(&batch).unwrap().parts;
        assert_eq!(parts[0].0, name);
        let value = parts[0].1.double_value(&[]);
        // The first score of a regression is the mean of the ratings, which go from 1 to 9.
        assert!((0.0..5.0).contains(&value), "{name}: {value}");
        assert!(objective == "regression" || value <= 1.0, "{name}: {value}");
    }
}
