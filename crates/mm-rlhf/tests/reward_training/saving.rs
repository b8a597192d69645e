//! A trained reward opens as the reward of its kind.

use super::{aesthetic, clip, clip_folder, config, cpu, preferences, ratings, run, shade, train};
use mm_core::OpenOptions;
use mm_image::RgbImage;
use mm_rlhf::{AestheticReward, ClipReward, Reward, RewardModel, RewardTask};
use mm_train::{EvalContext, NoProgress, Resume, Task};
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn images() -> Vec<RgbImage> {
    [0.1, 0.4, 0.8].map(shade).to_vec()
}

fn open(folder: &Path) -> RewardModel {
    let options = OpenOptions { device: cpu(), ..OpenOptions::default() };
    RewardModel::open(folder.to_str().unwrap(), &options).unwrap()
}

#[test]
fn mlps_open_as_the_aesthetic_reward_with_the_mean_of_the_members() {
    let sets = [ratings(1, 80), ratings(2, 40)];
    for (hidden, members) in [("[16]", 1), ("[16]", 3), ("[16, 8, 8, 4]", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let model = aesthetic(&format!("hidden = {hidden}\nensemble = {members}"));
        let config = config(folder.path(), &model, "regression", "steps = 40\nlr = 0.02");
        let (saved, trained) = train(&config, [&sets[0], &sets[1]]);
        let opened = open(&saved);
        assert_eq!(opened.members(), members);

        // Measured again, also from the checkpoint, it is as good as it was.
        let group = mm_dist::ProcessGroup::alone();
        let context =
            EvalContext { group: &group, batch_size: 7, wants_sections: false, progress: &NoProgress };
        let set = super::eval_set(&sets[1]);
        for model in [opened, open(&config.run.folder().join("checkpoints/latest"))] {
            let again = RewardTask::evaluate(&model, &config, &set, &context).unwrap();
            for metric in &again.metrics {
                let before = trained.metric(&metric.name).unwrap();
                assert!((metric.value - before).abs() < 1e-3, "{}: {before}, {}", metric.name, metric.value);
            }
        }

        let reward = AestheticReward::open(&clip_folder(), &saved.join("head.safetensors"), &cpu()).unwrap();
        let scores = reward.score(&images(), &["", "", ""]).unwrap();
        let distance = |index: usize, level: f64| (f64::from(scores[index]) - (1.0 + 8.0 * level)).abs();
        assert!(distance(0, 0.1) < 2.0 && distance(2, 0.8) < 2.0, "{hidden} x {members}: {scores:?}");
    }
}

#[test]
fn a_clip_opens_as_pick_score_whatever_of_it_trained() {
    let sets = [preferences(1, 32), preferences(2, 16)];
    let untrained = ClipReward::open_scaled(&clip_folder(), &cpu()).unwrap();
    let prompts = ["a cat"; 3];
    let before = untrained.score(&images(), &prompts).unwrap();
    let lora = "[lora]\nrank = 4\ntargets = ['all-linear']";
    for (model, keys) in [
        (clip(""), "steps = 5\nlr = 1e-3".to_owned()),
        (clip(""), "steps = 5\nlr = 1e-3\nema = 0.5".to_owned()),
        (clip("trains = 'head'"), "steps = 5\nlr = 1e-2".to_owned()),
        (clip(""), format!("steps = 5\nlr = 1e-2\n{lora}")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &model, "preferences", &keys);
        let (saved, trained) = train(&config, [&sets[0], &sets[1]]);
        let reward = ClipReward::open_scaled(saved.to_str().unwrap(), &cpu()).unwrap();
        let after = reward.score(&images(), &prompts).unwrap();
        assert_ne!(before, after, "{model}{keys}");

        let group = mm_dist::ProcessGroup::alone();
        let context =
            EvalContext { group: &group, batch_size: 5, wants_sections: false, progress: &NoProgress };
        let set = super::eval_set(&sets[1]);
        let mut models = vec![open(&saved)];
        // Adapters alone are no model.
        if config.lora.is_none() {
            models.push(open(&config.run.folder().join("checkpoints/latest")));
        } else {
            assert!(saved.join("adapter/adapter_config.json").exists());
        }
        for model in models {
            let again = RewardTask::evaluate(&model, &config, &set, &context).unwrap();
            let loss = again.metric("bradley_terry").unwrap();
            let before = trained.metric("bradley_terry").unwrap();
            assert!((loss - before).abs() < 1e-3 * (1.0 + before), "{keys}: {before}, {loss}");
        }
    }
}

#[test]
fn a_run_goes_on_where_its_clip_has_vanished_but_not_without_any() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("clip");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(clip_folder()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let sets = [preferences(1, 32), preferences(2, 16)];
    let model = format!("kind = 'clip'\nfrom = {copy:?}\ntrains = 'head'");
    let first = config(folder.path(), &model, "preferences", "steps = 2\nlr = 1e-3");
    train(&first, [&sets[0], &sets[1]]);
    std::fs::remove_dir_all(&copy).unwrap();
    let longer = config(folder.path(), &model, "preferences", "steps = 4\nlr = 1e-3");
    let again = |resume| run(&longer, resume, [&sets[0], &sets[1]], &AtomicBool::new(false), &mut |_| {});
    again(&Resume::Latest).unwrap();

    let fresh = config(&folder.path().join("new"), &model, "preferences", "steps = 4\nlr = 1e-3");
    let message = run(&fresh, &Resume::No, [&sets[0], &sets[1]], &AtomicBool::new(false), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(message.contains("/clip"), "{message}");
}
