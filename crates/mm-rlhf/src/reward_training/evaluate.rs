//! Evaluation of a reward on a set: order, calibration and disagreement.

use super::item::Preprocess;
use super::metrics::{
    ScoredPair, brier_score, disagreement_auroc, mean, pair_accuracy, pearson, preference_answers, spearman,
};
use super::{Objective, RewardBatch, RewardItem, RewardModel};
use mm_clip::check_rows;
use mm_core::loss::bradley_terry;
use mm_train::{Cell, Error, EvalContext, EvalSet, Evaluation, Metric, Plot, Result, Table, gather};
use mm_vqa::metrics::calibration::Binning;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// The bins of the expected calibration error, of equal width from 0 to 1.
const BINS: usize = 15;

/// The largest number of labels that have rows of their own in a table.
const MAX_LABELS: usize = 20;

/// The scores of an item.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    /// The number of its sample in the set.
    index: usize,
    label: Option<String>,
    target: f32,
    /// By member, for the images of the item.
    scores: Vec<Vec<f32>>,
}

/// A number with its name in logs and in tables.
struct Measured {
    name: &'static str,
    text: &'static str,
    value: Option<f64>,
}

/// Measures `model` on `set`.
///
/// # Errors
/// The set cannot be read, no sample of it can, a score is not finite, or another process is lost.
pub(super) fn evaluate(
    model: &RewardModel,
    objective: Objective,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let mut preprocess = Preprocess::new(model, objective, set.background);
    preprocess.fast_decode = set.fast_decode;
    let mut own = Vec::new();
    let read = set.for_each_batch(context, preprocess.into_map(), |items, indices| {
        own.extend(score(model, items, &indices)?);
        Ok(())
    })?;
    let mut rows = gather(context.group, &own)?;
    if rows.is_empty() {
        return Err(Error::Evaluation(format!("no sample of the set {} can be read", set.name)));
    }
    rows.sort_by_key(|row| row.index);
    let (metrics, tables, plots) = match objective {
        Objective::Regression => of_ratings(&rows),
        Objective::Preferences | Objective::Ranking => of_pairs(&rows, objective)?,
    };
    Ok(Evaluation {
        set: set.name.clone(),
        samples: rows.len(),
        bad_samples: read.bad.len(),
        metrics,
        tables,
        plots,
        credit: set.credit().to_owned(),
        ..Evaluation::default()
    })
}

fn score(model: &RewardModel, items: Vec<RewardItem>, indices: &[usize]) -> Result<Vec<Row>> {
    let facts: Vec<(String, Option<String>, f32)> =
        items.iter().map(|item| (item.key.clone(), item.label.clone(), item.target)).collect();
    let batch = RewardBatch::new(items, model).map_err(Error::task)?;
    let scores = tch::no_grad(|| model.scores(&batch)).map_err(Error::task)?; // [K, M]
    let owners = Vec::<i64>::try_from(batch.items.to_device(tch::Device::Cpu)).map_err(Error::task)?;
    check_rows(&scores.transpose(0, 1), |image| facts[owners[image] as usize].0.clone())?;
    let lists = batch.listed(&scores).map_err(Error::task)?;
    let row = |((scores, (_, label, target)), &index)| Row { index, label, target, scores };
    Ok(lists.into_iter().zip(facts).zip(indices).map(row).collect())
}

/// Mean and standard deviation, over members, of a number that each of them gives.
fn over_members(row: &Row, of_member: impl Fn(&[f32]) -> f64) -> (f64, f64) {
    let numbers: Vec<f64> = row.scores.iter().map(|scores| of_member(scores)).collect();
    let center = mean(numbers.iter().copied()).unwrap_or(0.0);
    let variance = mean(numbers.iter().map(|number| (number - center).powi(2)));
    (center, variance.unwrap_or(0.0).sqrt())
}

/// The pairs of images of `row`: its two, or of a ranked list each with each behind it.
fn pairs_of(row: &Row) -> Vec<ScoredPair> {
    let count = row.scores.first().map_or(0, Vec::len);
    let pair = |(first, second): (usize, usize)| {
        let (difference, disagreement) =
            over_members(row, |scores| f64::from(scores[first]) - f64::from(scores[second]));
        ScoredPair { preferred: f64::from(row.target), difference, disagreement }
    };
    (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second))).map(pair).collect()
}

type Report = (Vec<Metric>, Vec<Table>, Vec<Plot>);

fn of_pairs(rows: &[Row], objective: Objective) -> Result<Report> {
    let by_row: Vec<Vec<ScoredPair>> = rows.iter().map(pairs_of).collect();
    let pairs = by_row.concat();
    let answers = preference_answers(&pairs).map_err(Error::task)?;
    let calibration = answers.expected_calibration_error(Binning::EqualWidth, BINS).map_err(Error::task)?;
    let accuracy = Measured { name: "accuracy", text: "in the right order", value: pair_accuracy(&pairs) };
    let mut measured = vec![
        Measured { name: "brier", text: "Brier score", value: brier_score(&pairs) },
        Measured { name: "calibration_error", text: "calibration error", value: Some(calibration) },
        Measured { name: "bradley_terry", text: "Bradley-Terry loss", value: Some(mean_loss(&pairs)?) },
    ];
    if objective == Objective::Ranking {
        let is_first = |pairs: &Vec<ScoredPair>, row: &Row| {
            // The first pairs of a list are those of its best image.
            let others = row.scores.first().map_or(0, Vec::len).saturating_sub(1);
            f64::from(pairs[..others].iter().all(|pair| pair.difference > 0.0))
        };
        let value = mean(by_row.iter().zip(rows).map(|(pairs, row)| is_first(pairs, row)));
        measured.push(Measured { name: "top_1", text: "best image first", value });
    }
    if rows[0].scores.len() > 1 {
        let value = mean(pairs.iter().map(|pair| pair.disagreement));
        measured.push(Measured { name: "disagreement", text: "disagreement", value });
        let value = disagreement_auroc(&pairs);
        measured.push(Measured {
            name: "disagreement_auroc",
            text: "disagreement of wrong pairs above that of right ones (AUROC)",
            value,
        });
    }

    let bins = answers.reliability(Binning::EqualWidth, BINS).map_err(Error::task)?;
    let points = bins.iter().filter(|bin| bin.answers > 0).map(|bin| (bin.confidence, bin.accuracy));
    let plot = Plot {
        title: "Calibration: how often the image of the higher score is preferred".to_owned(),
        x: "probability by the scores".to_owned(),
        lines: vec![
            ("measured".to_owned(), points.collect()),
            ("calibrated".to_owned(), vec![(0.5, 0.5), (1.0, 1.0)]),
        ],
    };
    let metrics = metrics(&accuracy, &measured);
    let tables = vec![order_table(rows, &by_row), numbers_table(&measured, pairs.len())];
    Ok((metrics, tables, vec![plot]))
}

/// The mean Bradley-Terry loss.
fn mean_loss(pairs: &[ScoredPair]) -> Result<f64> {
    let tensor = |number: fn(&ScoredPair) -> f64| {
        Tensor::from_slice(&pairs.iter().map(|pair| number(pair) as f32).collect::<Vec<f32>>())
    };
    let (differences, labels) = (tensor(|pair| pair.difference), tensor(|pair| pair.preferred));
    let losses = bradley_terry(&differences, &differences.zeros_like(), &labels);
    losses.f_mean(Kind::Double).and_then(|mean| mean.f_double_value(&[])).map_err(Error::task)
}

fn of_ratings(rows: &[Row]) -> Report {
    let scored: Vec<(f64, f64)> =
        rows.iter().map(|row| over_members(row, |scores| f64::from(scores[0]))).collect();
    let (scores, disagreements): (Vec<f64>, Vec<f64>) = scored.into_iter().unzip();
    let ratings: Vec<f64> = rows.iter().map(|row| f64::from(row.target)).collect();
    let errors: Vec<f64> =
        scores.iter().zip(&ratings).map(|(score, rating)| (score - rating).abs()).collect();
    let rank = Measured { name: "spearman", text: "rank correlation", value: spearman(&scores, &ratings) };
    let squared = mean(errors.iter().map(|error| error * error));
    let mut measured = vec![
        Measured { name: "pearson", text: "correlation", value: pearson(&scores, &ratings) },
        Measured { name: "squared_error", text: "mean squared error", value: squared },
    ];
    if rows[0].scores.len() > 1 {
        let value = mean(disagreements.iter().copied());
        measured.push(Measured { name: "disagreement", text: "disagreement", value });
        measured.push(Measured {
            name: "disagreement_spearman",
            text: "rank correlation of disagreement and error",
            value: spearman(&disagreements, &errors),
        });
    }
    let metrics = metrics(&rank, &measured);
    measured.insert(0, rank);
    (metrics, vec![numbers_table(&measured, rows.len())], Vec::new())
}

/// The numbers that there are, `headline` first.
fn metrics(headline: &Measured, others: &[Measured]) -> Vec<Metric> {
    let headline = headline.value.map(|value| Metric::headline(headline.name, value));
    let others = others.iter().filter_map(|other| Some(Metric::new(other.name, other.value?)));
    headline.into_iter().chain(others).collect()
}

fn numbers_table(measured: &[Measured], count: usize) -> Table {
    let row = |number: &Measured| {
        vec![Cell::Text(number.text.to_owned()), number.value.map_or(Cell::Missing, Cell::Number)]
    };
    Table {
        title: format!("Scores beside {count} judgements"),
        columns: ["", "value"].map(str::to_owned).into(),
        rows: measured.iter().map(row).collect(),
    }
}

/// The shares of pairs in the right order, of all and by label.
fn order_table(rows: &[Row], pairs: &[Vec<ScoredPair>]) -> Table {
    let row = |name: &str, pairs: Vec<ScoredPair>| {
        let ties = pairs.iter().filter(|pair| pair.accuracy().is_none()).count();
        vec![
            Cell::Text(name.to_owned()),
            Cell::Count((pairs.len() - ties) as u64),
            Cell::Count(ties as u64),
            pair_accuracy(&pairs).map_or(Cell::Missing, Cell::Share),
        ]
    };
    let labels: BTreeSet<&str> = rows.iter().filter_map(|row| row.label.as_deref()).collect();
    let labels = if (2..=MAX_LABELS).contains(&labels.len()) { labels } else { BTreeSet::new() };
    let of_label = |label: &str| {
        let own = rows.iter().zip(pairs).filter(|(row, _)| row.label.as_deref() == Some(label));
        own.flat_map(|(_, pairs)| pairs).copied().collect()
    };
    let by_label = labels.iter().map(|label| row(label, of_label(label)));
    Table {
        title: "Pairs in the right order".to_owned(),
        columns: ["", "pairs", "ties", "right"].map(str::to_owned).into(),
        rows: std::iter::once(row("all", pairs.concat())).chain(by_label).collect(),
    }
}
