//! A tiny captioner learns, in seconds, what an untrained one cannot know, and more from rewards.

#[path = "../../../mm-dist/tests/common/mod.rs"]
mod processes;
mod rewards;
mod rollouts;

use mm_caption::{CaptionPipeline, CaptionRunConfig, CaptionTask};
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::{OpenOptions, Precision};
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use mm_train::{
    EvalContext, EvalSet, Evaluation, Event, NoProgress, Outcome, Resume, Run, RunFolder, StepReport, Task,
    TaskConfig, TaskContext, Trainer, TrainingData, read_config,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use tch::Device;
use tempfile::TempDir;

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

/// A captioner that was taught for a few steps: its folder, and what it reaches on scenes that it has not
/// seen.
static TAUGHT: LazyLock<(TempDir, PathBuf, Evaluation)> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (model, taught) = train(folder.path(), "taught", NEW, "steps = 150\nlr = 2e-3\nwarmup = 10", "");
    (folder, model, taught)
});

/// `[model]` of a run that starts from [`TAUGHT`].
fn from_taught() -> String {
    format!("[model]\nfrom = {:?}\n", TAUGHT.1)
}

/// The configuration of a run, as text.
fn config_text(name: &str, model: &str, train: &str, more: &str) -> String {
    CONFIG.replace("NAME", name).replace("MODEL", model).replace("TRAIN", train) + more
}

/// Reads a configuration of a run in `folder`.
fn read(folder: &Path, text: &str) -> Result<CaptionRunConfig, ConfigError> {
    let out = format!("run.out={}", folder.display());
    read_config::<CaptionTask>(&mut ConfigFile::from_text("tiny.toml", text, &[out])?)
}

/// Trains as one process of `group`; `watch` sees every step.
fn run(
    config: &CaptionRunConfig,
    group: &ProcessGroup,
    resume: &Resume,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(&StepReport),
) -> Outcome {
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let task = CaptionTask::new(config, &TaskContext::new(Device::Cpu, group, &dataset)).unwrap();
    let set = EvalSet::open("unseen", &config.data.eval["unseen"], [255; 3], 0).unwrap();
    let folder = RunFolder::open(&config.run, resume, "", group).unwrap();
    let place = Run { folder: &folder, group, precision: Precision::F32 };
    let data = TrainingData::new(dataset, config.shared(), group, task.preprocess());
    let trainer = Trainer::new(task, data, vec![set], config, place).unwrap();
    let mut watch = |event: Event| {
        if let Event::Step(report) = event {
            watch(report);
        }
    };
    trainer.train(interrupt, &NoProgress, &mut watch).unwrap()
}

/// Trains a run and gives its model and what that reaches on scenes that it has not seen.
fn train(folder: &Path, name: &str, model: &str, train: &str, more: &str) -> (PathBuf, Evaluation) {
    let config = read(folder, &config_text(name, model, train, more)).unwrap();
    let (group, interrupt) = (ProcessGroup::alone(), AtomicBool::new(false));
    let outcome = run(&config, &group, &Resume::No, &interrupt, &mut |_| {});
    let Outcome::Finished(mut trained) = outcome else { panic!("the run did not finish") };

    // What was saved is what was measured, with pictures.
    let model = config.run.folder().join("model");
    let pipeline = CaptionPipeline::open(model.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let context = EvalContext { group: &group, batch_size: 24, wants_sections: true, progress: &NoProgress };
    let set = EvalSet::open("unseen", &config.data.eval["unseen"], [255; 3], 0).unwrap();
    let again = CaptionTask::evaluate(&pipeline, &config, &set, &context).unwrap();
    assert_eq!(again.sections[0].rows.len(), 12);
    let trained = trained.remove(0);
    for metric in &again.metrics {
        let before = trained.metric(&metric.name).unwrap();
        assert!((metric.value - before).abs() < 0.02 * (1.0 + before), "{}: {before}", metric.name);
    }
    (model, trained)
}
