//! Evaluation: images of held-out prompts before and after, with the same noise.

use super::Comparison;
use super::drift::Drift;
use super::guard::{GUARDS_FALLEN, GuardNumbers, GuardReward};
use super::model::{AlignedModel, Baseline};
use super::page;
use crate::moments::Moments;
use crate::policy::pictures;
use crate::{Error, Result, RewardSum};
use mm_core::seed;
use mm_diffusion::{DiffusionPipeline, GenerateOptions, ImageRequest};
use mm_image::RgbImage;
use mm_train::{Cell, EvalContext, EvalSet, Evaluation, Metric, Table, gather};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The quantiles of a reward that are reported.
const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];

/// A held-out prompt.
pub(super) struct Prompt {
    pub index: usize,
    pub text: String,
}

/// The images of a prompt.
pub(crate) struct Made {
    pub index: usize,
    pub pictures: Vec<RgbImage>,
    pub scores: PromptScores,
}

/// What is measured of the images of a prompt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PromptScores {
    /// The prompt's number.
    index: usize,
    /// The scores of each image: first by the trained reward, a weighted sum, then by each that is watched.
    scores: Vec<Vec<f32>>,
    /// The mean distance between two images; none where there is one.
    diversity: Option<f64>,
}

impl PromptScores {
    /// The trained reward of each image.
    pub fn reward(&self) -> &[f32] {
        &self.scores[0]
    }
}

/// Makes and rates the images of one model.
pub(super) struct Maker<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub comparison: &'a Comparison<'a>,
    pub baseline: &'a Baseline,
    pub context: &'a EvalContext<'a>,
}

/// Measures the policy beside the initial model on the prompts of `set`.
///
/// # Errors
/// A prompt cannot be read or rated, or another process is lost.
pub(crate) fn evaluate(
    model: &AlignedModel,
    comparison: &Comparison,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let baseline = model.baseline(comparison)?;
    let prompts = prompts(comparison, set)?;
    let (rank, world) = (context.group.rank(), context.group.world());
    let own: Vec<&Prompt> = prompts.iter().filter(|prompt| prompt.index % world == rank).collect();
    let maker = Maker { pipeline: &model.policy.pipeline, comparison, baseline, context };
    let mut drift = Drift::default();
    let after = maker.make(&own, "images after", &mut |requests, samples| {
        drift.add(&model.policy.pipeline, &baseline.reference, comparison, requests, samples)
    })?;
    let make_before = || maker.make(&own, "images before", &mut |_, _| Ok(()));
    let before = baseline.images(&set.name, make_before)?;
    let drift = drift.of_all(context.group)?;
    let (all_before, all_after) = (gathered(&before, context)?, gathered(&after, context)?);

    let guard_names = baseline.guards.iter().flat_map(RewardSum::names).map(|name| format!("guard {name}"));
    let (mut metrics, mut rows, mut guards) = (Vec::new(), Vec::new(), Vec::new());
    for (reward, name) in std::iter::once("reward".to_owned()).chain(guard_names).enumerate() {
        let scores = |all: &[PromptScores]| -> Vec<f64> {
            all.iter().flat_map(|prompt| &prompt.scores[reward]).copied().map(f64::from).collect()
        };
        let scores = [scores(&all_before), scores(&all_after)];
        let [before, after] = [0, 1].map(|time| Moments::of(scores[time].iter().copied()));
        let metric = name.replace(' ', "_");
        metrics.push(Metric::headline(metric.clone(), after.mean));
        metrics.push(Metric::new(format!("{metric}_before"), before.mean));
        for (time, scores) in ["before", "after"].into_iter().zip(scores) {
            rows.push(row(&format!("{name}, {time}"), scores));
        }
        if reward > 0 {
            guards.push(GuardReward { name, before, after });
        }
    }
    let diversity = mean_diversity(&all_before).zip(mean_diversity(&all_after)).map(<[f64; 2]>::from);
    if let Some([before, after]) = diversity {
        metrics.push(Metric::new("diversity_before", before));
        metrics.push(Metric::headline("diversity", after));
    }
    metrics.push(Metric::headline("kl", drift.kl));
    metrics.push(Metric::new("norm_ratio", drift.norm_ratio));
    let numbers = GuardNumbers { rewards: guards, diversity, norm_ratio: drift.norm_ratio, kl: drift.kl };
    let fallen = comparison.guard.fallen(&numbers);
    let has_risen = metrics[0].value > metrics[1].value;
    let count = if has_risen { fallen.len() } else { 0 };
    metrics.push(Metric::headline(GUARDS_FALLEN, count as f64));
    let fallen = if fallen.is_empty() { "none".to_owned() } else { fallen.join(", ") };
    let table = Table {
        title: format!(
            "{} images of {} held-out prompts, the same noise before and after; fallen guards: {fallen}",
            all_after.len() * comparison.guard.images,
            all_after.len()
        ),
        columns: ["", "mean", "sd", "10 %", "50 %", "90 %"].map(str::to_owned).to_vec(),
        rows,
    };
    let sections = match context.wants_sections {
        true => page::sections(&maker, &prompts, (&before, &after))?,
        false => Vec::new(),
    };
    Ok(Evaluation {
        set: set.name.clone(),
        samples: all_after.len(),
        metrics,
        tables: vec![table],
        sections,
        credit: set.credit().to_owned(),
        ..Evaluation::default()
    })
}

/// The first prompts of `set`.
fn prompts(comparison: &Comparison, set: &EvalSet) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for index in 0..set.len().min(comparison.guard.prompts) {
        let sample = set.sample(index)?;
        let missing = || Error::Request(format!("{}: sample {index} has no prompt", set.name));
        let text = sample.captions.into_iter().next().ok_or_else(missing)?;
        prompts.push(Prompt { index, text });
    }
    Ok(prompts)
}

impl Maker<'_> {
    /// The images of `prompts`, with the pipeline's weights as they are now. `each` gets the samples of each
    /// batch with their requests.
    pub fn make(
        &self,
        prompts: &[&Prompt],
        work: &str,
        each: &mut dyn FnMut(&[ImageRequest], &Tensor) -> Result<()>,
    ) -> Result<Vec<Made>> {
        let images = self.comparison.guard.images;
        let mut made: Vec<Made> = Vec::with_capacity(prompts.len());
        for chunk in prompts.chunks((self.context.batch_size / images).max(1)) {
            let requests: Vec<ImageRequest> = chunk
                .iter()
                .flat_map(|prompt| {
                    (0..images as u64).map(|image| ImageRequest {
                        prompt: prompt.text.clone(),
                        negative_prompt: None,
                        seed: seed::derive(prompt.index as u64, "guard", image),
                    })
                })
                .collect();
            let texts: Vec<&str> = requests.iter().map(|request| request.prompt.as_str()).collect();
            let sample = self.pipeline.sample(&requests, None, &self.options(), &mut |_| Ok(()))?.copy();
            let pictures = pictures(self.pipeline, &sample)?;
            let mut scores = vec![self.baseline.rewards()?.score_parts(&pictures, &texts)?.total];
            if let Some(guards) = &self.baseline.guards {
                scores.extend(guards.score_parts(&pictures, &texts)?.parts);
            }
            each(&requests, &sample)?;
            for (place, prompt) in chunk.iter().enumerate() {
                let range = place * images..(place + 1) * images;
                let pictures = pictures[range.clone()].to_vec();
                let scores = PromptScores {
                    index: prompt.index,
                    scores: scores.iter().map(|scores| scores[range.clone()].to_vec()).collect(),
                    diversity: diversity(&pictures),
                };
                made.push(Made { index: prompt.index, pictures, scores });
            }
            self.context.progress.report(work, made.len() as u64, prompts.len() as u64);
        }
        Ok(made)
    }

    fn options(&self) -> GenerateOptions {
        let Comparison { guard, steps, guidance_scale, .. } = *self.comparison;
        GenerateOptions {
            steps: Some(guard.steps.unwrap_or(steps)),
            guidance_scale: Some(guard.guidance_scale.unwrap_or(guidance_scale)),
            ..GenerateOptions::default()
        }
    }
}

/// The scores of all processes, in the order of the prompts.
fn gathered(made: &[Made], context: &EvalContext) -> Result<Vec<PromptScores>> {
    let own: Vec<PromptScores> = made.iter().map(|made| made.scores.clone()).collect();
    let mut all = gather(context.group, &own)?;
    all.sort_unstable_by_key(|scores| scores.index);
    Ok(all)
}

/// The mean distance between two of `pictures`: the root of the mean squared difference of their pixels, from
/// 0 to 1.
fn diversity(pictures: &[RgbImage]) -> Option<f64> {
    let mut distances = Vec::new();
    for (index, one) in pictures.iter().enumerate() {
        for other in &pictures[index + 1..] {
            let differences = one.as_raw().iter().zip(other.as_raw());
            let squares = differences.map(|(&a, &b)| (f64::from(a.abs_diff(b)) / 255.0).powi(2));
            distances.push((squares.sum::<f64>() / one.as_raw().len().max(1) as f64).sqrt());
        }
    }
    (!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64)
}

fn mean_diversity(all: &[PromptScores]) -> Option<f64> {
    let each: Option<Vec<f64>> = all.iter().map(|scores| scores.diversity).collect();
    each.filter(|each| !each.is_empty()).map(|each| each.iter().sum::<f64>() / each.len() as f64)
}

/// Mean, deviation and quantiles: never the largest, which says nothing of a policy.
fn row(name: &str, mut values: Vec<f64>) -> Vec<Cell> {
    let Moments { mean, std } = Moments::of(values.iter().copied());
    values.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| match values.len() {
        0 => Cell::Missing,
        count => Cell::Number(values[((count - 1) as f64 * share).round() as usize]),
    };
    [Cell::Text(name.to_owned()), Cell::Number(mean), Cell::Number(std)]
        .into_iter()
        .chain(QUANTILES.map(quantile))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_image::image::Rgb;

    #[test]
    fn diversity_is_the_mean_distance_of_pairs() {
        let plain = |level| RgbImage::from_pixel(2, 2, Rgb([level; 3]));
        assert_eq!(diversity(&[plain(9)]), None);
        assert_eq!(diversity(&[plain(0), plain(255), plain(0)]), Some(2.0 / 3.0));
    }

    #[test]
    fn a_row_has_mean_deviation_and_quantiles() {
        let values = (0..=10).map(f64::from).collect();
        let cells: Vec<String> = row("x", values).iter().map(Cell::text).collect();
        assert_eq!(cells, ["x", "5", "3.162", "1", "5", "9"]);
    }
}
