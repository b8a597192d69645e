//! The loop on a task of one weight matrix: the subject is the loop, not what is trained.

use mm_core::config::{ConfigError, ConfigFile};
use mm_core::{OpenOptions, Precision};
use mm_data::{Dataset, Map, Sample, SampleImage};
use mm_dist::ProcessGroup;
use mm_train::{
    DataConfig, Error, EvalConfig, EvalContext, EvalSet, Evaluation, Event, Loss, Metric, NoProgress,
    Outcome, Result, Resume, Run, RunConfig, RunFolder, Shared, Supports, Task, TaskConfig, TaskContext,
    TrainConfig, Trainer, TrainingData, read_config,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// libtorch's CPU generator is one a process: tests that draw from it take turns.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Numbered samples without images.
struct Numbers;

impl Dataset for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }

    fn len(&self) -> usize {
        64
    }

    fn sample(&self, index: usize) -> mm_data::Result<Sample> {
        Ok(Sample::new(index.to_string(), SampleImage::Memory(Vec::new())))
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    run: RunConfig,
    data: DataConfig,
    train: TrainConfig,
    #[serde(default)]
    eval: EvalConfig,
}

impl TaskConfig for Config {
    const RENAMED: &'static [(&'static str, &'static str)] = &[("train.learning_rate", "train.lr")];

    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }
}

/// The number of a sample.
struct Number(f32);

impl mm_data::Item for Number {
    fn bytes(&self) -> usize {
        4
    }
}

/// Regression onto a fixed matrix, with dropout so that libtorch's generator matters.
struct Regression {
    vs: VarStore,
    weight: Tensor,
    /// Micro-batches since this process started.
    drawn: u64,
    poison: Option<u64>,
    /// The micro-batch that cannot be read.
    missing: Option<u64>,
    /// The norm that the evaluation reports goes wrong after so many micro-batches.
    unevaluated: Option<u64>,
    /// Steps, counted in micro-batches, that leave the task in the middle of something.
    busy: std::ops::Range<u64>,
}

impl Regression {
    fn start() -> Self {
        tch::manual_seed(5);
        let vs = VarStore::new(Device::Cpu);
        let weight = vs.root().var("weight", &[8, 8], Init::Randn { mean: 0.0, stdev: 1.0 });
        Self { vs, weight, drawn: 0, poison: None, missing: None, unevaluated: None, busy: 0..0 }
    }
}

impl Task for Regression {
    const NAME: &'static str = "regression";
    const SUPPORTS: Supports = Supports { layer_decay: true, gradient_checkpointing: false };
    type Config = Config;
    type Item = Number;
    type Batch = Tensor;
    type Model = Self;

    fn new(_: &Config, _: &TaskContext) -> Result<Self> {
        Ok(Self::start())
    }

    fn variables(&self) -> &VarStore {
        &self.vs
    }

    fn preprocess(&self) -> Map<Number> {
        Arc::new(|sample, _| Ok(Number(sample.key.parse().expect("keys are numbers"))))
    }

    fn next_batch(&mut self, data: &mut TrainingData<Number>, _: Precision) -> Result<Tensor> {
        self.drawn += 1;
        if self.missing == Some(self.drawn) {
            return Err(Error::task(std::io::Error::other("the disk is gone")));
        }
        self.collate(data.next_batch()?)
    }

    fn collate(&self, items: Vec<Number>) -> Result<Tensor> {
        let numbers: Vec<f32> = items.iter().map(|item| item.0 + 1.0).collect();
        let wave = Tensor::arange(8, (Kind::Float, Device::Cpu)) + 1.0;
        Ok((Tensor::from_slice(&numbers).unsqueeze(1) * wave).sin()) // [B, 8]
    }

    fn loss(&self, x: &Tensor) -> Result<Loss> {
        let y = x.dropout(0.3, true).matmul(&self.weight);
        let mut total = (y - x).square().mean(Kind::Float);
        if self.poison == Some(self.drawn) {
            total *= f64::NAN;
        }
        let half = total.detach() * 0.5;
        Ok(Loss { total, parts: vec![("half", half)] })
    }

    fn model(&self) -> &Self {
        self
    }

    fn open_model(_: &str, _: &OpenOptions) -> Result<Self> {
        Ok(Self::start())
    }

    fn evaluate(model: &Self, _: &Config, set: &EvalSet, _: &EvalContext) -> Result<Evaluation> {
        if model.unevaluated == Some(model.drawn) {
            return Err(Error::task(std::io::Error::other("the held-out set is gone")));
        }
        let norm = Metric::headline("norm", model.weight.norm().double_value(&[]));
        Ok(Evaluation { set: set.name.clone(), metrics: vec![norm], ..Evaluation::default() })
    }

    fn is_resumable(&self) -> bool {
        !self.busy.contains(&self.drawn)
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        Ok(mm_core::checkpoint::save(&self.vs, &folder.join("model.safetensors"), |name| {
            vec![name.to_owned()]
        })?)
    }
}

const CONFIG: &str = r#"
[run]
task = "regression"
name = "r"
seed = 3

[data]
train = { kind = "shapes", samples = 4 }
eval.held_out = { kind = "shapes", samples = 4 }
workers = 1

[train]
steps = 20
batch_size = 8
accumulate = 2
lr = 0.05
warmup = 3
weight_decay = 0.1
clip_grad = 1.0
ema = 0.9
checkpoint_every = 5
keep_checkpoints = 2
log_every = 1

[eval]
every = 10
"#;

fn read(overrides: &[&str]) -> std::result::Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|&set| set.to_owned()).collect();
    read_config::<Regression>(&mut ConfigFile::from_text("r.toml", CONFIG, &overrides)?)
}

fn run(out: &Path, resume: Resume, task: Regression, watch: &mut dyn FnMut(Event)) -> Result<Outcome> {
    run_until(out, resume, task, &AtomicBool::new(false), watch)
}

fn run_until(
    out: &Path,
    resume: Resume,
    task: Regression,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let config = read(&[&format!("run.out={}", out.display())]).unwrap();
    train(&config, resume, task, interrupt, watch)
}

fn train(
    config: &Config,
    resume: Resume,
    task: Regression,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let group = ProcessGroup::alone();
    let folder = RunFolder::open(&config.run, &resume, "a = 1\n", &group)?;
    let run = Run { folder: &folder, group: &group, precision: Precision::F32 };
    let data = TrainingData::new(Arc::new(Numbers), config.shared(), &group, task.preprocess());
    let open = |(name, set): (&String, _)| EvalSet::open(name, set, [255; 3], 0);
    let sets = config.data.eval.iter().map(open).collect::<Result<_>>()?;
    Trainer::new(task, data, sets, config, run)?.train(interrupt, &NoProgress, watch)
}

fn numbers(out: &Path) -> Vec<String> {
    // Everything but the clock.
    let text = std::fs::read_to_string(out.join("r/metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            for clock in ["seconds", "samples_per_second", "data_wait"] {
                value.as_object_mut().unwrap().remove(clock);
            }
            value.to_string()
        })
        .collect()
}

#[test]
fn a_resumed_run_equals_the_unbroken_run_bit_for_bit() {
    let _turn = GENERATOR.lock();
    let (straight, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(straight.path(), Resume::No, Regression::start(), &mut |_| {}).unwrap();

    // The first process dies in step 13, after logging steps that its last checkpoint (10) does not have.
    let dying = Regression { poison: Some(2 * 13), ..Regression::start() };
    let died = run(broken.path(), Resume::No, dying, &mut |_| {});
    assert!(matches!(died, Err(Error::NotFinite { step: 13, .. })), "{died:?}");
    run(broken.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap();

    assert_eq!(numbers(straight.path()), numbers(broken.path()));
    for file in [
        "model/model.safetensors",
        "checkpoints/latest/optimizer.safetensors",
        "checkpoints/step-20/ema.safetensors",
    ] {
        let read = |out: &Path| std::fs::read(out.join("r").join(file)).unwrap();
        assert_eq!(read(straight.path()), read(broken.path()), "{file}");
    }
}

#[test]
fn a_run_whose_data_fails_keeps_every_finished_step_and_goes_on_exactly() {
    let _turn = GENERATOR.lock();
    let straight = tempfile::tempdir().unwrap();
    run(straight.path(), Resume::No, Regression::start(), &mut |_| {}).unwrap();

    // The second micro-batch of a step is missing; regular checkpoints are those of steps 5, 10 and 15.
    for step in [1, 11, 13] {
        let broken = tempfile::tempdir().unwrap();
        let failing = Regression { missing: Some(2 * step), ..Regression::start() };
        let failed = run(broken.path(), Resume::No, failing, &mut |_| {});
        assert!(failed.unwrap_err().to_string().contains("the disk is gone"));
        let last = broken.path().join(format!("r/checkpoints/step-{}", step - 1));
        assert_eq!(last.is_dir(), step > 1);
        if step > 1 {
            run(broken.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap();
            assert_eq!(numbers(straight.path()), numbers(broken.path()));
        }
    }
}

#[test]
fn a_damaged_latest_checkpoint_is_reported_and_the_complete_one_before_it_leads_to_the_same_end() {
    let _turn = GENERATOR.lock();
    let (straight, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(straight.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap();
    let dying = Regression { poison: Some(2 * 13), ..Regression::start() };
    run(broken.path(), Resume::Latest, dying, &mut |_| {}).unwrap_err();

    let optimizer = broken.path().join("r/checkpoints/step-10/optimizer.safetensors");
    let whole = std::fs::read(&optimizer).unwrap();
    std::fs::write(&optimizer, &whole[..whole.len() - 1]).unwrap();
    let told = run(broken.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap_err().to_string();
    assert!(
        told.contains("step-10: optimizer.safetensors has") && told.contains("step-5 is complete"),
        "{told}"
    );
    run(broken.path(), Resume::LastGood, Regression::start(), &mut |_| {}).unwrap();
    assert_eq!(numbers(straight.path()), numbers(broken.path()));
    let model = |out: &Path| std::fs::read(out.join("r/model/model.safetensors")).unwrap();
    assert_eq!(model(straight.path()), model(broken.path()));
}

#[test]
fn a_run_resumed_at_an_earlier_step_leaves_its_former_later_steps_behind() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    run(out.path(), Resume::No, Regression::start(), &mut |_| {}).unwrap();
    let checkpoints = out.path().join("r/checkpoints");
    let again = Resume::Path(checkpoints.join("step-15"));
    let dying = Regression { missing: Some(2 * (18 - 15)), ..Regression::start() };
    run(out.path(), again, dying, &mut |_| {}).unwrap_err();
    assert_eq!(std::fs::read_link(checkpoints.join("latest")).unwrap(), Path::new("step-17"));
    assert!(checkpoints.join("step-15").exists() && !checkpoints.join("step-20").exists());
}

#[test]
fn an_evaluation_that_fails_costs_no_step() {
    let _turn = GENERATOR.lock();
    let straight = tempfile::tempdir().unwrap();
    run(straight.path(), Resume::No, Regression::start(), &mut |_| {}).unwrap();
    // The evaluations of 20 steps are those after 10 and 20.
    for step in [10, 20] {
        let broken = tempfile::tempdir().unwrap();
        let failing = Regression { unevaluated: Some(2 * step), ..Regression::start() };
        let failed = run(broken.path(), Resume::No, failing, &mut |_| {});
        assert!(failed.unwrap_err().to_string().contains("the held-out set is gone"));
        assert!(broken.path().join(format!("r/checkpoints/step-{step}/state.json")).is_file());
        run(broken.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap();
        let model = |out: &Path| std::fs::read(out.join("r/model/model.safetensors")).unwrap();
        assert_eq!(model(straight.path()), model(broken.path()));
        assert_eq!(numbers(straight.path()).last(), numbers(broken.path()).last());
    }
}

#[test]
fn a_model_that_cannot_be_saved_costs_no_step_and_the_error_says_how_to_get_it() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(out.path().join("r")).unwrap();
    let obstacle = out.path().join("r/.model.partial");
    std::fs::write(&obstacle, "a file where the folder belongs").unwrap();
    let error = run(out.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap_err();
    let checkpoint = out.path().join("r/checkpoints/step-20");
    assert!(
        matches!(&error, Error::ModelNotSaved { checkpoint: last, .. } if *last == checkpoint),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("mm convert --from {}", checkpoint.display())), "{error}");
    std::fs::remove_file(obstacle).unwrap();
    run(out.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap();
    assert!(out.path().join("r/model/model.safetensors").is_file());
}

#[test]
fn an_interrupted_run_finishes_its_step_and_leaves_a_checkpoint() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    let interrupt = AtomicBool::new(false);
    let outcome = run_until(out.path(), Resume::No, Regression::start(), &interrupt, &mut |event| {
        if matches!(event, Event::Step(report) if report.step == 7) {
            interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert_eq!(outcome.unwrap(), Outcome::Interrupted(out.path().join("r/checkpoints/step-7")));
}

#[test]
fn only_the_last_checkpoints_are_kept_and_the_loss_falls() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    let mut losses = Vec::new();
    run(out.path(), Resume::No, Regression::start(), &mut |event| {
        if let Event::Step(report) = event {
            losses.push(report.loss);
            assert!((report.parts[0].1 - report.loss / 2.0).abs() < 1e-6);
        }
    })
    .unwrap();
    let mut names: Vec<String> = std::fs::read_dir(out.path().join("r/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["latest", "step-15", "step-20"]);
    assert!(losses[15..].iter().sum::<f64>() < 0.8 * losses[..5].iter().sum::<f64>(), "{losses:?}");
}

#[test]
fn a_checkpoint_waits_until_the_task_is_resumable() {
    let _turn = GENERATOR.lock();
    let (straight, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(straight.path(), Resume::No, Regression::start(), &mut |_| {}).unwrap();
    // Two micro-batches a step: in the middle of something after steps 4 to 6, then dying in step 8.
    let busy = Regression { busy: 8..13, poison: Some(2 * 8), ..Regression::start() };
    let mut saved = Vec::new();
    let died = run(out.path(), Resume::No, busy, &mut |event| {
        if let Event::Saved(path) = event {
            saved.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    });
    let message = died.unwrap_err().to_string();
    assert_eq!(saved, ["step-7"], "step 5 was due");
    assert!(message.contains("the last checkpoint is") && message.contains("step-7"), "{message}");
    run(out.path(), Resume::Latest, Regression::start(), &mut |_| {}).unwrap();
    assert_eq!(numbers(straight.path()), numbers(out.path()));
}

#[test]
fn an_error_before_the_first_checkpoint_does_not_promise_one() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    let poisoned = Regression { poison: Some(3), ..Regression::start() };
    let message = run(out.path(), Resume::No, poisoned, &mut |_| {}).unwrap_err().to_string();
    assert!(message.ends_with("there is no checkpoint yet"), "{message}");
}

#[test]
fn a_run_without_evaluation_sets_finishes_without_evaluations() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    let mut config = read(&[&format!("run.out={}", out.path().display()), "eval.every=0"]).unwrap();
    config.data.eval.clear();
    let mut evaluated = 0;
    let outcome = train(&config, Resume::No, Regression::start(), &AtomicBool::new(false), &mut |event| {
        evaluated += usize::from(matches!(event, Event::Evaluated { .. }));
    });
    assert_eq!((outcome.unwrap(), evaluated), (Outcome::Finished(vec![]), 1));
}

#[test]
fn a_batch_is_checked_without_a_run_folder() {
    let _turn = GENERATOR.lock();
    let config = read(&[]).unwrap();
    let mut task = Regression::start();
    let before = task.weight.copy();
    let group = ProcessGroup::alone();
    let mut data = TrainingData::new(Arc::new(Numbers), config.shared(), &group, task.preprocess());
    let report = mm_train::check(&mut task, &mut data, &config.train, 3, Precision::F32).unwrap();
    assert_eq!((report.samples, report.trainable, report.total), (Some(64), 64, 64));
    assert!(report.loss.is_finite() && report.run >= report.step);
    assert_eq!(task.weight, before, "nothing is updated");
}

#[test]
fn configurations_are_refused_with_the_line_of_the_key() {
    let error = |overrides: &[&str]| read(overrides).err().unwrap().to_string();
    for (overrides, expected) in [
        (vec!["run.task=other"], "--set run.task=other: `run.task`: is \"other\""),
        (vec!["train.epochs=2"], "--set train.epochs=2: `train.epochs`: `train.steps` is set as well"),
        (vec!["train.minutes=2"], "--set train.minutes=2: `train.minutes`: `train.steps` is set as well"),
        (vec!["train.steps=0"], "--set train.steps=0: `train.steps`: must be at least 1"),
        (vec!["train.warmup=30"], "--set train.warmup=30: `train.warmup`: 30 is more than the 20 steps"),
        (
            vec!["train.gradient_checkpointing=true"],
            "--set train.gradient_checkpointing=true: `train.gradient_checkpointing`: the task `regression`",
        ),
        (vec!["train.learning_rate=1"], "--set train.learning_rate=1: `train.learning_rate` is the former"),
        (vec!["eval.batch_size=0"], "--set eval.batch_size=0: `eval.batch_size`: must be at least 1"),
        (vec!["lora.rank=4"], "r.toml:1: unknown key `lora`"),
        (vec!["launch.nproc=0"], "--set launch.nproc=0: `launch.nproc`: must be at least 1"),
    ] {
        let message = error(&overrides);
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(read(&["train.layer_decay=0.5", "prepare=[\"minilm\"]", "launch.nproc=2"]).is_ok());
}

#[test]
fn epochs_become_steps_of_whole_batches() {
    let text = CONFIG.replace("steps = 20", "epochs = 2.5");
    let mut file = ConfigFile::from_text("r.toml", &text, &[]).unwrap();
    let config = read_config::<Regression>(&mut file).unwrap();
    let resolved = config.train.with_steps(Some(67), &file).unwrap();
    assert_eq!((resolved.steps, resolved.epochs), (20, None)); // 16 micro-batches of 4, two a step
    let message = |samples| config.train.with_steps(samples, &file).err().unwrap().to_string();
    assert!(
        message(None).starts_with("r.toml:13: `train.epochs`: the training set is a stream"),
        "{}",
        message(None)
    );
    assert!(message(Some(3)).contains("are less than one batch of 8"), "{}", message(Some(3)));
    assert!(message(Some(4)).contains("`train.warmup`: 3 is more than the 1 steps"), "{}", message(Some(4)));
}

#[test]
fn minutes_become_the_steps_that_fit_and_a_resumed_run_keeps_them() {
    let _turn = GENERATOR.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let out = tempfile::tempdir().unwrap();
    let text = CONFIG.replace("steps = 20", "minutes = 0.01");
    let out_dir = format!("run.out={}", out.path().display());
    let mut file = ConfigFile::from_text("r.toml", &text, &[out_dir]).unwrap();
    let config = read_config::<Regression>(&mut file).unwrap();
    let group = ProcessGroup::alone();
    let mut task = Regression::start();
    let mut data = TrainingData::new(Arc::new(Numbers), config.shared(), &group, task.preprocess());
    let before = task.weight.detach().copy();
    let mut resolve = |resume: &Resume, precision| {
        let Shared { run, train, .. } = config.shared();
        mm_train::resolve_steps(&mut task, &mut data, (run, train), resume, precision, &group).unwrap()
    };
    let measured = resolve(&Resume::No, Precision::F32);
    assert!(measured.steps > config.train.warmup && measured.minutes.is_none(), "{}", measured.steps);
    std::fs::create_dir_all(config.run.folder()).unwrap();
    std::fs::write(config.run.folder().join("config.toml"), "[train]\nsteps = 77\n").unwrap();
    assert_eq!(resolve(&Resume::Latest, Precision::F32).steps, 77);
    // The measurement leaves no trace.
    assert_eq!(task.weight.detach(), before);
    assert_eq!(data.position(), &mm_data::Position::default());
}
