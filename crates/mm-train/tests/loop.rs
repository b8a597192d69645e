//! The loop on a task of one weight matrix: what is trained does not matter here, what the loop does with it
//! does.

use mm_core::{Precision, PrecisionConfig, optim::ScheduleKind};
use mm_dist::ProcessGroup;
use mm_train::{
    Error, Event, Loss, Metric, Outcome, Result, Resume, Run, RunConfig, RunFolder, Task, TrainConfig,
};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// libtorch's CPU generator is one a process: tests that draw from it take turns.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Regression onto a fixed matrix, with dropout so that libtorch's generator matters.
struct Regression {
    vs: VarStore,
    weight: Tensor,
    drawn: u64,
    poison: Option<u64>,
    /// The batch that cannot be read.
    missing: Option<u64>,
    /// The evaluation that fails, counted by the batches before it.
    unevaluated: Option<u64>,
}

impl Regression {
    fn new() -> Self {
        tch::manual_seed(5);
        let vs = VarStore::new(Device::Cpu);
        let weight = vs.root().var("weight", &[8, 8], Init::Randn { mean: 0.0, stdev: 1.0 });
        Self { vs, weight, drawn: 0, poison: None, missing: None, unevaluated: None }
    }
}

impl Task for Regression {
    type Batch = Tensor;

    fn variables(&self) -> &VarStore {
        &self.vs
    }

    fn next_batch(&mut self) -> Result<Tensor> {
        self.drawn += 1;
        if self.missing == Some(self.drawn) {
            return Err(Error::task(std::io::Error::other("the disk is gone")));
        }
        let wave = Tensor::arange(32, (Kind::Float, Device::Cpu)) * self.drawn as f64;
        Ok(wave.sin().view([4, 8]))
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

    fn evaluate(&mut self) -> Result<Vec<Metric>> {
        if self.unevaluated == Some(self.drawn) {
            return Err(Error::task(std::io::Error::other("the held-out set is gone")));
        }
        Ok(vec![Metric { name: "norm".into(), value: self.weight.norm().double_value(&[]) }])
    }

    fn position(&self) -> serde_json::Value {
        self.drawn.into()
    }

    fn restore(&mut self, positions: Vec<serde_json::Value>) -> Result<()> {
        self.drawn = positions[0].as_u64().expect("a position of this task");
        Ok(())
    }

    fn data_wait(&self) -> f64 {
        0.0
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        Ok(mm_core::checkpoint::save(&self.vs, &folder.join("model.safetensors"), |name| {
            vec![name.to_owned()]
        })?)
    }
}

fn config(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        batch_size: 8,
        accumulate: 2,
        grad_cache_chunk: None,
        shard_optimizer: false,
        precision: PrecisionConfig::F32,
        gradient_checkpointing: false,
        lr: 0.05,
        min_lr: 0.0,
        schedule: ScheduleKind::Cosine,
        warmup: 3,
        layer_decay: 1.0,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-6,
        clip_grad: Some(1.0),
        ema: Some(0.9),
        checkpoint_every: 5,
        keep_checkpoints: 2,
        log_every: 1,
    }
}

fn run(out: &Path, resume: Resume, task: &mut Regression, watch: &mut dyn FnMut(Event)) -> Result<Outcome> {
    run_until(out, resume, task, &AtomicBool::new(false), watch)
}

fn run_until(
    out: &Path,
    resume: Resume,
    task: &mut Regression,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let run = RunConfig {
        name: "r".into(),
        seed: 3,
        out: out.to_owned(),
        device: Default::default(),
        timeout_seconds: 60.0,
    };
    let group = ProcessGroup::alone();
    let folder = RunFolder::open(&run, &resume, "a = 1\n", &group)?;
    let run = Run { config: &run, folder: &folder, group: &group, precision: Precision::F32 };
    mm_train::train(task, run, &config(20), 10, interrupt, watch)
}

fn numbers(out: &Path) -> Vec<String> {
    // Everything but the clock.
    let text = std::fs::read_to_string(out.join("r/metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            for clock in ["seconds", "samples_per_second", "waiting"] {
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
    run(straight.path(), Resume::No, &mut Regression::new(), &mut |_| {}).unwrap();

    // The first process dies in step 13, after logging steps that its last checkpoint (10) does not have.
    let mut dying = Regression { poison: Some(2 * 13), ..Regression::new() };
    let died = run(broken.path(), Resume::No, &mut dying, &mut |_| {});
    assert!(matches!(died, Err(Error::NotFinite { step: 13, .. })), "{died:?}");
    run(broken.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap();

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
    run(straight.path(), Resume::No, &mut Regression::new(), &mut |_| {}).unwrap();

    // The second micro-batch of a step is missing; regular checkpoints are those of steps 5, 10 and 15.
    for step in [1, 11, 13] {
        let broken = tempfile::tempdir().unwrap();
        let mut failing = Regression { missing: Some(2 * step), ..Regression::new() };
        let failed = run(broken.path(), Resume::No, &mut failing, &mut |_| {});
        assert!(failed.unwrap_err().to_string().contains("the disk is gone"));
        let last = broken.path().join(format!("r/checkpoints/step-{}", step - 1));
        assert_eq!(last.is_dir(), step > 1);
        if step > 1 {
            run(broken.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap();
            assert_eq!(numbers(straight.path()), numbers(broken.path()));
        }
    }
}

#[test]
fn a_broken_latest_checkpoint_is_told_and_the_whole_one_before_it_leads_to_the_same_end() {
    let _turn = GENERATOR.lock();
    let (straight, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(straight.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap();
    let mut dying = Regression { poison: Some(2 * 13), ..Regression::new() };
    run(broken.path(), Resume::Latest, &mut dying, &mut |_| {}).unwrap_err();

    let optimizer = broken.path().join("r/checkpoints/step-10/optimizer.safetensors");
    let whole = std::fs::read(&optimizer).unwrap();
    std::fs::write(&optimizer, &whole[..whole.len() - 1]).unwrap();
    let told =
        run(broken.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap_err().to_string();
    assert!(
        told.contains("step-10: optimizer.safetensors has") && told.contains("step-5 is whole"),
        "{told}"
    );
    run(broken.path(), Resume::LastGood, &mut Regression::new(), &mut |_| {}).unwrap();
    assert_eq!(numbers(straight.path()), numbers(broken.path()));
    let model = |out: &Path| std::fs::read(out.join("r/model/model.safetensors")).unwrap();
    assert_eq!(model(straight.path()), model(broken.path()));
}

#[test]
fn a_run_resumed_at_an_earlier_step_leaves_its_former_later_steps_behind() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    run(out.path(), Resume::No, &mut Regression::new(), &mut |_| {}).unwrap();
    let checkpoints = out.path().join("r/checkpoints");
    let again = Resume::Path(checkpoints.join("step-15"));
    let mut dying = Regression { poison: Some(2 * 19), missing: Some(2 * 18), ..Regression::new() };
    run(out.path(), again, &mut dying, &mut |_| {}).unwrap_err();
    assert_eq!(std::fs::read_link(checkpoints.join("latest")).unwrap(), Path::new("step-17"));
    assert!(checkpoints.join("step-15").exists() && !checkpoints.join("step-20").exists());
}

#[test]
fn an_evaluation_that_fails_costs_no_step() {
    let _turn = GENERATOR.lock();
    let straight = tempfile::tempdir().unwrap();
    run(straight.path(), Resume::No, &mut Regression::new(), &mut |_| {}).unwrap();
    // The evaluations of 20 steps are those after 10 and 20.
    for step in [10, 20] {
        let broken = tempfile::tempdir().unwrap();
        let mut failing = Regression { unevaluated: Some(2 * step), ..Regression::new() };
        let failed = run(broken.path(), Resume::No, &mut failing, &mut |_| {});
        assert!(failed.unwrap_err().to_string().contains("the held-out set is gone"));
        assert!(broken.path().join(format!("r/checkpoints/step-{step}/state.json")).is_file());
        run(broken.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap();
        let model = |out: &Path| std::fs::read(out.join("r/model/model.safetensors")).unwrap();
        assert_eq!(model(straight.path()), model(broken.path()));
        assert_eq!(numbers(straight.path()).last(), numbers(broken.path()).last());
    }
}

#[test]
fn a_model_that_cannot_be_saved_costs_no_step_and_the_way_to_it_is_told() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(out.path().join("r")).unwrap();
    let obstacle = out.path().join("r/.model.partial");
    std::fs::write(&obstacle, "a file where the folder belongs").unwrap();
    let error = run(out.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap_err();
    let checkpoint = out.path().join("r/checkpoints/step-20");
    assert!(
        matches!(&error, Error::ModelNotSaved { checkpoint: last, .. } if *last == checkpoint),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("mm convert --from {}", checkpoint.display())), "{error}");
    std::fs::remove_file(obstacle).unwrap();
    run(out.path(), Resume::Latest, &mut Regression::new(), &mut |_| {}).unwrap();
    assert!(out.path().join("r/model/model.safetensors").is_file());
}

#[test]
fn an_interrupted_run_finishes_its_step_and_leaves_a_checkpoint() {
    let _turn = GENERATOR.lock();
    let out = tempfile::tempdir().unwrap();
    let interrupt = AtomicBool::new(false);
    let outcome = run_until(out.path(), Resume::No, &mut Regression::new(), &interrupt, &mut |event| {
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
    run(out.path(), Resume::No, &mut Regression::new(), &mut |event| {
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
