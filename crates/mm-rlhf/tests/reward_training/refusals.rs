//! What cannot be trained on or opened is one clear error.

use super::{Samples, aesthetic, clip, clip_folder, config, cpu, preferences, ratings, run, train};
use mm_core::OpenOptions;
use mm_core::checkpoint::write;
use mm_data::{Dataset, Sample};
use mm_rlhf::{RewardModel, RewardRunConfig};
use mm_train::Resume;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};

fn refused(config: &RewardRunConfig, dataset: &Arc<dyn Dataset>) -> String {
    let sets = [dataset, dataset];
    run(config, &Resume::No, sets, &AtomicBool::new(false), &mut |_| {}).unwrap_err().to_string()
}

#[test]
fn samples_without_the_judgement_are_bad_samples_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let (rated, compared) = (ratings(1, 20), preferences(1, 20));
    for (name, objective, dataset, expected) in [
        ("a", "preferences", &rated, "1 images where two are expected"),
        ("b", "regression", &compared, "2 images where one is expected"),
        ("c", "ranking", &compared, "set objective.kind = \"preferences\""),
    ] {
        let config = config(&folder.path().join(name), &aesthetic(""), objective, "steps = 2\nlr = 1e-3");
        let message = refused(&config, dataset);
        assert!(message.contains(expected), "{message}");
    }
    let sample = |index| rated.sample(index).unwrap();
    let words =
        Samples((0..20).map(|index| Sample { label: Some("good".into()), ..sample(index) }).collect());
    let words: Arc<dyn Dataset> = Arc::new(words);
    let regression = config(&folder.path().join("d"), &aesthetic(""), "regression", "steps = 2\nlr = 1e-3");
    let message = refused(&regression, &words);
    assert!(message.contains("the rating \"good\" is not a number"), "{message}");

    let untitled = |index| Sample { captions: Vec::new(), ..compared.sample(index).unwrap() };
    let untitled: Arc<dyn Dataset> = Arc::new(Samples((0..20).map(untitled).collect()));
    let with_prompt = config(&folder.path().join("e"), &clip(""), "preferences", "steps = 2\nlr = 1e-3");
    assert!(refused(&with_prompt, &untitled).contains("no prompt"));
    // An aesthetic model reads none.
    let without = config(&folder.path().join("f"), &aesthetic(""), "preferences", "steps = 2\nlr = 1e-3");
    train(&without, [&untitled, &untitled]);
}

#[test]
fn a_few_bad_samples_are_counted_where_the_config_allows_them() {
    let folder = tempfile::tempdir().unwrap();
    let good = ratings(1, 40);
    let sample = |index: usize| match index % 20 {
        7 => Sample { label: None, ..good.sample(index).unwrap() },
        _ => good.sample(index).unwrap(),
    };
    let mixed: Arc<dyn Dataset> = Arc::new(Samples((0..40).map(sample).collect()));
    let mut config = config(folder.path(), &aesthetic(""), "regression", "steps = 4\nlr = 1e-3");
    config.data.max_bad_samples = 2;
    train(&config, [&mixed, &good]);
    let bad = std::fs::read_to_string(config.run.folder().join("bad_samples.jsonl")).unwrap();
    assert!(bad.lines().count() == 2 && bad.contains("no rating"), "{bad}");
}

#[test]
fn a_model_that_is_no_reward_or_does_not_fit_is_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let options = OpenOptions { device: cpu(), ..OpenOptions::default() };
        RewardModel::open(name, &options).unwrap_err().to_string()
    };
    let image_reward = clip_folder().replace("/clip", "/image-reward");
    assert!(open(&image_reward).contains("image-reward"));
    assert!(open("./nowhere").contains("nowhere"));

    let saved = folder.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    let config = format!("{{\"model_type\": \"aesthetic_reward\", \"from\": {:?}}}", clip_folder());
    std::fs::write(saved.join("config.json"), config).unwrap();
    let message = |shapes: &[(&str, &[i64])]| {
        let tensor = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let tensors: Vec<_> =
            shapes.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape))).collect();
        write(&saved.join("model.safetensors"), &tensors).unwrap();
        open(saved.to_str().unwrap())
    };
    let narrow = message(&[
        ("members.0.layers.0.weight", &[4, 16]),
        ("members.0.layers.0.bias", &[4]),
        ("members.0.layers.2.weight", &[1, 4]),
        ("members.0.layers.2.bias", &[1]),
    ]);
    assert!(narrow.contains("members.0.layers.0.weight"), "{narrow}");
    assert!(message(&[("other", &[1])]).contains("members.0.layers.0.weight"));
}
