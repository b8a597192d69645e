//! A tiny captioner learns, in seconds, what an untrained one cannot know, and more from rewards.

use mm_caption::{CaptionPipeline, CaptionTask};
use mm_core::config::ConfigFile;
use mm_core::{OpenOptions, Precision};
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use mm_train::{
    EvalContext, EvalSet, Evaluation, NoProgress, Outcome, Resume, Run, RunFolder, Task, TaskConfig,
    TaskContext, Trainer, TrainingData, read_config,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Device;

const CONFIG: &str = r#"
[run]
task = "caption"
name = "NAME"
seed = 3

MODEL

[input]
canonical_share = 0.0
references = "canonical"
augment = { scale = [1.0, 1.0] }

[data]
train = { kind = "shapes", samples = 4000, objects = [1, 1] }
eval.unseen = { kind = "shapes", samples = 64, seed = 1, objects = [1, 1] }

[train]
batch_size = 32
clip_grad = 1.0
checkpoint_every = 0
TRAIN

[generate]
max_new_tokens = 10
"#;

const NEW: &str = r#"
[model]
image.kind = "resnet"
image.depth = 18
image.width = 16
image.image_size = 64
decoder.kind = "gpt2"
decoder.n_embd = 48
decoder.n_layer = 2
decoder.n_head = 4
decoder.n_positions = 32

[tokenizer]
vocab_size = 600
"#;

/// Trains a run and gives its model and what that reaches on scenes that it has not seen.
fn train(folder: &Path, name: &str, model: &str, train: &str, more: &str) -> (PathBuf, Evaluation) {
    let out = format!("run.out={}", folder.display());
    let text = CONFIG.replace("NAME", name).replace("MODEL", model).replace("TRAIN", train) + more;
    let mut file = ConfigFile::from_text("tiny.toml", &text, &[out]).unwrap();
    let config = read_config::<CaptionTask>(&mut file).unwrap();
    let group = ProcessGroup::alone();
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let task = CaptionTask::new(&config, &TaskContext::new(Device::Cpu, &group, &dataset)).unwrap();
    let set = EvalSet::open("unseen", &config.data.eval["unseen"], [255; 3], 0).unwrap();
    let run = RunFolder::open(&config.run, &Resume::No, &text, &group).unwrap();
    let place = Run { folder: &run, group: &group, precision: Precision::F32 };
    let data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
    let trainer = Trainer::new(task, data, vec![set.clone()], &config, place).unwrap();
    let outcome = trainer.train(&AtomicBool::new(false), &NoProgress, &mut |_| {}).unwrap();
    let Outcome::Finished(mut trained) = outcome else { panic!("{outcome:?}") };

    // What was saved is what was measured, with pictures.
    let model = run.path.join("model");
    let pipeline = CaptionPipeline::open(model.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let context = EvalContext { group: &group, batch_size: 24, wants_sections: true, progress: &NoProgress };
    let again = CaptionTask::evaluate(&pipeline, &config, &set, &context).unwrap();
    assert_eq!(again.sections[0].rows.len(), 12);
    let trained = trained.remove(0);
    for metric in &again.metrics {
        let before = trained.metric(&metric.name).unwrap();
        assert!((metric.value - before).abs() < 0.02 * (1.0 + before), "{}: {before}", metric.name);
    }
    (model, trained)
}

#[test]
fn a_captioner_learns_scenes_and_rewards_raise_cider_d_on_scenes_it_has_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, untrained) = train(folder, "untrained", NEW, "steps = 1\nlr = 1e-9\nwarmup = 0", "");
    let (model, taught) = train(folder, "taught", NEW, "steps = 150\nlr = 2e-3\nwarmup = 10", "");
    let value = |evaluation: &Evaluation, name: &str| evaluation.metric(name).unwrap();
    assert!(value(&untrained, "faithful") < 0.1, "{untrained:?}");
    assert!(value(&taught, "faithful") > 0.5, "{taught:?}");

    // Taught with captions of any detail it says little; rewards ask for the whole description.
    let from = format!("[model]\nfrom = {model:?}\n");
    let scst = "\n[scst]\nsamples = 5\nmax_new_tokens = 10\n";
    let (_, rewarded) = train(folder, "rewarded", &from, "steps = 80\nlr = 5e-4\nwarmup = 10", scst);
    let [before, after] = [&taught, &rewarded].map(|evaluation| value(evaluation, "cider_d"));
    assert!(after > before + 0.3, "{before} {after}");
}
