//! The progress of a run on standard error: a bar on a terminal, a line now and then elsewhere.

use crate::progress::{self, LINE_EVERY};
use crate::{output, table};
use indicatif::{HumanDuration, ProgressBar};
use mm_train::{Evaluation, Event, Progress, StepReport};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The display of one run, on rank 0.
pub struct Display {
    bar: ProgressBar,
    steps: u64,
    is_terminal: bool,
    last_line: Instant,
    estimate: Estimate,
}

impl Display {
    /// For a run of `steps` steps; hidden unless `is_main`.
    pub fn new(steps: u64, is_main: bool) -> Self {
        let bar = if is_main { progress::bar(steps, "steps") } else { ProgressBar::hidden() };
        let is_terminal = std::io::stderr().is_terminal();
        Self { bar, steps, is_terminal, last_line: Instant::now(), estimate: Estimate::default() }
    }

    /// Progress of an evaluation, behind the bar of the steps.
    pub fn evaluation(&self) -> impl Progress + use<> {
        EvaluationProgress(self.bar.clone())
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Step(report) => self.step(report),
            Event::Evaluated { step, evaluations } if *step < self.steps => {
                self.note(format_args!("step {step}: {}", summary(evaluations)));
            }
            Event::Evaluated { .. } => {}
            Event::Saved(path) => tracing::info!("saved {}", path.display()),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn step(&mut self, report: &StepReport) {
        self.bar.set_position(report.step);
        self.bar.set_message(describe(report));
        let left = self.steps - report.step;
        if let Some(rest) = self.estimate.step(left) {
            self.note(format_args!("about {} for the other {left} steps", HumanDuration(rest)));
        }
        if !self.is_terminal && self.last_line.elapsed() > LINE_EVERY {
            output::note(format_args!("step {}/{}  {}", report.step, self.steps, describe(report)));
            self.last_line = Instant::now();
        }
    }

    fn note(&self, line: std::fmt::Arguments) {
        self.bar.suspend(|| output::note(line));
    }
}

/// An evaluation's progress as the message of the steps' bar.
struct EvaluationProgress(ProgressBar);

impl Progress for EvaluationProgress {
    fn report(&self, work: &str, done: u64, total: u64) {
        self.0.set_message(if done < total {
            format!("evaluation: {done}/{total} {work}")
        } else {
            String::new()
        });
    }
}

/// The remaining time of a run, estimated after its first steps, which build kernels and allocate memory.
#[derive(Default)]
struct Estimate {
    steps: u32,
    warm: Option<Instant>,
}

impl Estimate {
    const WARM_UP: u32 = 5;
    const STEPS: u32 = 10;

    /// Counts a step; after the tenth, gives the time for the steps that are `left`.
    fn step(&mut self, left: u64) -> Option<Duration> {
        self.steps += 1;
        if self.steps == Self::WARM_UP {
            self.warm = Some(Instant::now());
        }
        let warm = self.warm.filter(|_| self.steps == Self::STEPS && left > 0)?;
        Some(warm.elapsed().mul_f64(left as f64 / f64::from(Self::STEPS - Self::WARM_UP)))
    }
}

fn describe(report: &StepReport) -> String {
    let StepReport { loss, lr, samples_per_second, data_wait, .. } = report;
    let data_wait = if *data_wait > 0.05 {
        format!("  waiting for data {}", table::percent(*data_wait))
    } else {
        String::new()
    };
    format!("loss {loss:.3}  lr {lr:.1e}  {samples_per_second:.0} samples/s{data_wait}")
}

/// Metrics that a line shows of an evaluation without headline metrics.
const FEW: usize = 3;

/// The headline metrics of all sets; of a set without any, its first metrics.
fn summary(evaluations: &[Evaluation]) -> String {
    let of_set = |evaluation: &Evaluation| {
        let has_headline = evaluation.metrics.iter().any(|metric| metric.is_headline);
        let shown = evaluation.metrics.iter().filter(|metric| metric.is_headline || !has_headline);
        let limit = if has_headline { usize::MAX } else { FEW };
        let line =
            |metric: &mm_train::Metric| format!("{}/{} {:.4}", evaluation.set, metric.name, metric.value);
        shown.take(limit).map(line).collect::<Vec<_>>()
    };
    evaluations.iter().flat_map(of_set).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_train::Metric;

    #[test]
    fn a_summary_has_the_headline_metrics_or_the_first_ones() {
        let evaluation =
            |metrics: Vec<Metric>| Evaluation { set: "s".into(), metrics, ..Evaluation::default() };
        let with = evaluation(vec![Metric::new("a", 1.0), Metric::headline("b", 0.25)]);
        let without = evaluation((0..5).map(|i| Metric::new(i.to_string(), f64::from(i))).collect());
        assert_eq!(summary(&[with, without]), "s/b 0.2500  s/0 0.0000  s/1 1.0000  s/2 2.0000");
    }
}
