//! Evaluation: the loss on a set, and images for its prompts.

use super::config::{DiffusionRunConfig, ObjectiveConfig};
use super::denoising::Denoising;
use super::item::DiffusionItem;
use super::page;
use super::preprocess::{self, PictureReader, buckets};
use super::samples::{Judged, Made, Prompt, make, open_judge, prompts};
use crate::Result;
use crate::pipeline::DiffusionPipeline;
use mm_sys::inference_mode;
use mm_train::{Cell, EvalContext, EvalSet, Evaluation, Metric, Table, gather};
use tch::Tensor;

/// Measures `pipeline` on `set`.
///
/// # Errors
/// The set cannot be read, images cannot be made, or another process is lost.
pub(super) fn evaluate(
    pipeline: &DiffusionPipeline,
    config: &DiffusionRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let (losses, bad_samples) = losses(pipeline, config, set, context)?;
    let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    let mut evaluation = Evaluation {
        set: set.name.clone(),
        samples: losses.len(),
        bad_samples,
        metrics: vec![Metric::headline("loss", mean)],
        credit: set.credit().to_owned(),
        ..Evaluation::default()
    };
    let prompts = prompts(config, set)?;
    if prompts.is_empty() {
        return Ok(evaluation);
    }
    let reader = open_judge(config)?;
    // One scale where time counts, all where a page is made, which one process alone does.
    let has_page = gather(context.group, &[context.wants_sections])?.contains(&true);
    let scales = &config.sample.guidance[..if has_page { config.sample.guidance.len() } else { 1 }];
    let mut columns = Vec::new();
    for &guidance in scales {
        let (made, judged) = make(pipeline, config, &prompts, guidance, reader.as_ref(), context)?;
        columns.push((guidance, made, judged));
    }
    if reader.is_some() {
        let (_, _, judged) = &columns[0];
        let shares = Shares::of(&prompts, judged);
        evaluation.metrics.push(Metric::headline("all_right", shares.all));
        let named = [("one_kind_right", shares.one_kind), ("pairs_right", shares.pairs)];
        evaluation
            .metrics
            .extend(named.into_iter().filter_map(|(name, value)| Some(Metric::new(name, value?))));
        let rows = columns.iter().map(|(guidance, _, judged)| Shares::of(&prompts, judged).row(*guidance));
        evaluation.tables.push(Table {
            title: format!("Images that the judge finds right, of {} prompts", prompts.len()),
            columns: Shares::COLUMNS.map(str::to_owned).to_vec(),
            rows: rows.collect(),
        });
    }
    let errors: Vec<f64> = columns[0].2.iter().filter_map(|judged| judged.unchanged_error).collect();
    if !errors.is_empty() {
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        evaluation.metrics.push(Metric::new("unchanged_error", mean));
    }
    if context.wants_sections {
        let columns: Vec<(f64, &[Made])> =
            columns.iter().map(|(guidance, made, _)| (*guidance, &made[..])).collect();
        evaluation.sections = page::sections(pipeline, config, &prompts, &columns)?;
    }
    Ok(evaluation)
}

/// The loss of each sample, and the number that could not be read.
fn losses(
    pipeline: &DiffusionPipeline,
    config: &DiffusionRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<(Vec<f64>, usize)> {
    let schedule = match config.objective {
        ObjectiveConfig::Flow(_) => None,
        ObjectiveConfig::Ddpm(_) => Some(pipeline.scheduler.noise_schedule()?),
    };
    let (objective, input) = (&config.objective, &config.input);
    let denoising = Denoising { pipeline, objective, input, schedule: schedule.as_ref() };
    let mut own = Vec::new();
    let reader = PictureReader::new(config, pipeline, buckets(config, pipeline)?);
    let preprocess = preprocess::map(config, pipeline, reader, None);
    let read = set.for_each_batch(context, preprocess, |items, _| {
        for items in of_one_size(items) {
            let losses = inference_mode(|| -> Result<Tensor> { denoising.losses(&denoising.batch(items)?) })?;
            own.extend(Vec::<f64>::try_from(losses.to_kind(tch::Kind::Double)).map_err(crate::Error::from)?);
        }
        Ok(())
    })?;
    Ok((gather(context.group, &own)?, read.bad.len()))
}

/// The items in batches of one size of images each.
fn of_one_size(items: Vec<DiffusionItem>) -> Vec<Vec<DiffusionItem>> {
    let mut batches: Vec<Vec<DiffusionItem>> = Vec::new();
    for item in items {
        let size = item.pictures.image.size();
        match batches.iter_mut().find(|batch| batch[0].pictures.image.size() == size) {
            Some(batch) => batch.push(item),
            None => batches.push(vec![item]),
        }
    }
    batches
}

/// The shares of images that are right.
struct Shares {
    all: f64,
    count: f64,
    colours: f64,
    shapes: f64,
    /// Of prompts for objects of one kind, and for two different ones.
    one_kind: Option<f64>,
    pairs: Option<f64>,
    relation: Option<f64>,
}

impl Shares {
    const COLUMNS: [&str; 8] =
        ["guidance", "all right", "one kind", "two different", "number", "colors", "shapes", "relation"];

    fn of(prompts: &[Prompt], judged: &[Judged]) -> Self {
        let verdicts: Vec<_> = prompts
            .iter()
            .zip(judged)
            .filter_map(|(prompt, judged)| Some((prompt.scene.as_ref()?, judged.verdict?)))
            .collect();
        let share = |right: &mut dyn Iterator<Item = bool>| {
            let (mut all, mut count) = (0usize, 0usize);
            for is_right in right {
                all += 1;
                count += usize::from(is_right);
            }
            (all > 0).then(|| count as f64 / all as f64)
        };
        let of = |is_right: &dyn Fn(&crate::judge::SceneVerdict) -> bool| {
            share(&mut verdicts.iter().map(|(_, verdict)| is_right(verdict))).unwrap_or_default()
        };
        let with_relation =
            |has: bool| verdicts.iter().filter(move |(_, verdict)| verdict.relation.is_some() == has);
        Self {
            all: of(&|verdict| verdict.all_right()),
            count: of(&|verdict| verdict.count),
            colours: of(&|verdict| verdict.colours),
            shapes: of(&|verdict| verdict.shapes),
            one_kind: share(&mut with_relation(false).map(|(_, verdict)| verdict.all_right())),
            pairs: share(&mut with_relation(true).map(|(_, verdict)| verdict.all_right())),
            relation: share(&mut with_relation(true).map(|(_, verdict)| verdict.relation == Some(true))),
        }
    }

    fn row(&self, guidance: f64) -> Vec<Cell> {
        let maybe = |share: Option<f64>| share.map_or(Cell::Missing, Cell::Share);
        vec![
            Cell::Number(guidance),
            Cell::Share(self.all),
            maybe(self.one_kind),
            maybe(self.pairs),
            Cell::Share(self.count),
            Cell::Share(self.colours),
            Cell::Share(self.shapes),
            maybe(self.relation),
        ]
    }
}
