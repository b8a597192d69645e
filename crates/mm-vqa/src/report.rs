//! The numbers of an evaluation, from the answers to its questions.

use crate::QuestionAnswers;
use crate::answers::normalized;
use crate::metrics::vqa::{Consensus, Protocol, clean, normalize, soft_targets};
use crate::run_config::MetricsConfig;
use mm_data::Question;
use mm_train::{Cell, Evaluation, Metric, Table};
use std::collections::BTreeMap;

/// Measures the answers to the questions of the set `name`. Questions without a given answer are counted and
/// not measured.
pub(crate) fn measure(name: &str, answered: &[QuestionAnswers], config: &MetricsConfig) -> Evaluation {
    let measured: Vec<&QuestionAnswers> =
        answered.iter().filter(|question| !question.question.answers.is_empty()).collect();
    let best = |question: &QuestionAnswers| question.answers.first().map(|answer| answer.answer.clone());
    let score = |question: &QuestionAnswers, answer: Option<String>| {
        answer.map_or(0.0, |answer| score(config.protocol, &answer, &question.question))
    };
    let scores: Vec<f64> = measured.iter().map(|question| score(question, best(question))).collect();
    let blind: Vec<f64> =
        measured.iter().map(|question| score(question, question.blind_answer.clone())).collect();
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, question) in measured.iter().enumerate() {
        kinds.entry(question.question.kind.as_deref().unwrap_or("all")).or_default().push(place);
    }
    let of = |scores: &[f64], places: &[usize]| -> f64 {
        places.iter().map(|&place| scores[place]).sum::<f64>() / places.len().max(1) as f64
    };
    let mut metrics =
        vec![Metric::headline("accuracy", mean(&scores)), Metric::new("accuracy_blind", mean(&blind))];
    let mut rows = vec![row("all", measured.len(), mean(&scores), mean(&blind))];
    for (kind, places) in &kinds {
        metrics.push(Metric::new(format!("accuracy_{kind}"), of(&scores, places)));
        rows.push(row(kind, places.len(), of(&scores, places), of(&blind, places)));
    }
    let columns = ["answers", "questions", "accuracy", "blind"].map(str::to_owned).into();
    let title = format!("{name}: {} questions, protocol {}", measured.len(), config.protocol);
    Evaluation {
        set: name.to_owned(),
        samples: measured.len(),
        metrics,
        tables: vec![Table { title, columns, rows }],
        ..Evaluation::default()
    }
}

fn row(kind: &str, count: usize, accuracy: f64, blind: f64) -> Vec<Cell> {
    vec![Cell::Text(kind.to_owned()), Cell::Count(count as u64), Cell::Share(accuracy), Cell::Share(blind)]
}

/// The accuracy of `answer` against the given ones: equality where there is one, else VQA v2's by `protocol`.
fn score(protocol: Protocol, answer: &str, question: &Question) -> f64 {
    match &question.answers[..] {
        [given] => f64::from(u8::from(normalized(given) == normalized(answer))),
        given => {
            let is_unanimous = given.iter().all(|other| *other == given[0]);
            let compared = match protocol {
                Protocol::Official if is_unanimous => clean(answer),
                _ => normalize(protocol, answer).text,
            };
            let targets = soft_targets(protocol, Consensus::LeaveOneOut, given);
            targets.into_iter().find(|(target, _)| *target == compared).map_or(0.0, |(_, score)| score)
        }
    }
}
