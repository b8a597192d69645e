//! `run.task = "reward"`: what is learned, saved, resumed and refused.

mod learning;
mod losses;
mod refusals;
mod resume;
mod saving;

use mm_core::config::ConfigFile;
use mm_core::{DeviceConfig, Precision};
use mm_data::{Dataset, Sample, SampleImage};
use mm_dist::ProcessGroup;
use mm_image::RgbImage;
use mm_image::image::{ImageFormat, Rgb};
use mm_rlhf::{RewardRunConfig, RewardTask};
use mm_train::{
    EvalSet, Evaluation, Event, NoProgress, Outcome, Result, Resume, Run, RunFolder, Task, TaskConfig,
    TaskContext, Trainer, TrainingData, read_config,
};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tch::Device;

/// libtorch's generator is one a process, and every step of a run seeds it: runs take turns.
static GENERATOR: Mutex<()> = Mutex::new(());

fn clip_folder() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/rlhf/clip");
    folder.to_str().unwrap().to_owned()
}

fn cpu() -> DeviceConfig {
    DeviceConfig("cpu".to_owned())
}

/// Samples in memory.
struct Samples(Vec<Sample>);

impl Dataset for Samples {
    fn name(&self) -> &str {
        "samples"
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample(&self, index: usize) -> mm_data::Result<Sample> {
        Ok(self.0[index].clone())
    }
}

/// An image of one color, from blue to red as `level` goes from 0 to 1.
fn shade(level: f64) -> RgbImage {
    RgbImage::from_pixel(32, 32, Rgb([(255.0 * level) as u8, 80, (255.0 - 255.0 * level) as u8]))
}

fn stored(image: &RgbImage) -> SampleImage {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).unwrap();
    SampleImage::Memory(png.into_inner())
}

/// The level of image `index` of a set, spread evenly and apart from those of other seeds.
fn level(seed: usize, index: usize) -> f64 {
    (0.37 * seed as f64 + 0.618_034 * index as f64).fract()
}

/// Images rated from 1 to 9: the redder, the higher.
fn ratings(seed: usize, count: usize) -> Arc<dyn Dataset> {
    let sample = |index: usize| Sample {
        label: Some(format!("{:.3}", 1.0 + 8.0 * level(seed, index))),
        captions: vec!["a cat".to_owned()],
        ..Sample::new(format!("{seed}-{index}"), stored(&shade(level(seed, index))))
    };
    Arc::new(Samples((0..count).map(sample).collect()))
}

/// Pairs in which the redder image is preferred.
fn preferences(seed: usize, count: usize) -> Arc<dyn Dataset> {
    let sample = |index: usize| {
        let levels = [level(seed, 2 * index), level(seed, 2 * index + 1)];
        Sample {
            key: format!("{seed}-{index}"),
            images: levels.map(|level| stored(&shade(level))).to_vec(),
            captions: vec!["a cat".to_owned()],
            preferred: Some(if levels[0] > levels[1] { 1.0 } else { 0.0 }),
            ..Sample::default()
        }
    };
    Arc::new(Samples((0..count).map(sample).collect()))
}

/// Lists of two to four images, the reddest first.
fn lists(seed: usize, count: usize) -> Arc<dyn Dataset> {
    let sample = |index: usize| {
        let mut levels: Vec<f64> = (0..2 + index % 3).map(|place| level(seed, 4 * index + place)).collect();
        levels.sort_by(|one, other| other.total_cmp(one));
        Sample {
            key: format!("{seed}-{index}"),
            images: levels.iter().map(|&level| stored(&shade(level))).collect(),
            captions: vec!["a cat".to_owned()],
            ..Sample::default()
        }
    };
    Arc::new(Samples((0..count).map(sample).collect()))
}

/// The table `[model]` of an aesthetic model.
fn aesthetic(more: &str) -> String {
    format!("kind = 'aesthetic'\nfrom = {:?}\n{more}", clip_folder())
}

/// The table `[model]` of a CLIP.
fn clip(more: &str) -> String {
    format!("kind = 'clip'\nfrom = {:?}\n{more}", clip_folder())
}

/// A run in `out`, with these tables and more keys of `[train]`.
fn config(out: &Path, model: &str, objective: &str, train: &str) -> RewardRunConfig {
    let text = format!(
        "[run]\ntask = 'reward'\nname = 'r'\nseed = 5\nout = {out:?}\n[model]\n{model}\n[objective]\n\
         kind = '{objective}'\n[data]\ntrain = {{ kind = 'shapes' }}\nworkers = 1\n[train]\nbatch_size = 16\n\
         weight_decay = 0.0\nlog_every = 1\ncheckpoint_every = 0\n{train}\n"
    );
    read_config::<RewardTask>(&mut ConfigFile::from_text("r.toml", &text, &[]).unwrap()).unwrap()
}

/// A task outside of a run.
fn task(config: &RewardRunConfig, dataset: &Arc<dyn Dataset>) -> RewardTask {
    let _turn = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    RewardTask::new(config, &TaskContext::new(Device::Cpu, &ProcessGroup::alone(), dataset)).unwrap()
}

fn eval_set(dataset: &Arc<dyn Dataset>) -> EvalSet {
    EvalSet::of_dataset("unseen", dataset.clone(), [255; 3], 0).unwrap()
}

/// Trains the run of `config` on `dataset`, measures it on `unseen`, and ends early when `interrupt` is set
/// by `watch`.
fn run(
    config: &RewardRunConfig,
    resume: &Resume,
    [dataset, unseen]: [&Arc<dyn Dataset>; 2],
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let _turn = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let group = ProcessGroup::alone();
    let folder = RunFolder::open(&config.run, resume, "a = 1\n", &group)?;
    let place = Run { folder: &folder, group: &group, precision: Precision::F32 };
    let context = TaskContext {
        checkpoint: folder.checkpoint.as_deref(),
        ..TaskContext::new(Device::Cpu, &group, dataset)
    };
    let task = RewardTask::new(config, &context)?;
    let data = TrainingData::new(dataset.clone(), config.shared(), &group, task.preprocess());
    Trainer::new(task, data, vec![eval_set(unseen)], config, place)?.train(interrupt, &NoProgress, watch)
}

/// Trains a run to its end and gives its model and what that reaches on `unseen`.
fn train(config: &RewardRunConfig, sets: [&Arc<dyn Dataset>; 2]) -> (PathBuf, Evaluation) {
    let outcome = run(config, &Resume::No, sets, &AtomicBool::new(false), &mut |_| {}).unwrap();
    let Outcome::Finished(mut evaluations) = outcome else { panic!("{outcome:?}") };
    (config.run.folder().join("model"), evaluations.remove(0))
}
