//! The numbers of an evaluation, from the answers to its questions.

use crate::metrics::baselines::Baselines;
use crate::metrics::calibration::{AbstainTarget, Answer, Answers, Binning};
use crate::run_config::MetricsConfig;
use crate::{QuestionAnswers, Result, answers};
use mm_data::is_held_out;
use mm_train::{Cell, Evaluation, Metric, Plot, Table};
use std::collections::BTreeMap;

/// Bins of the expected calibration error.
const BINS: usize = 15;

/// A question with the scores of the answers to it.
struct Scored<'a> {
    question: &'a QuestionAnswers,
    /// The probability of the best answer.
    confidence: f64,
    /// Of the best answer.
    score: f64,
    /// Of the best answer without the image.
    blind: Option<f64>,
    /// Of the most frequent training answer to the question's text, and of its type.
    prior: Option<[f64; 2]>,
}

/// Measures the answers to the questions of the set `name`. Those without a given answer are counted and not
/// measured.
///
/// # Errors
/// A probability is not from 0 to 1, as from weights that are not finite.
pub(crate) fn measure(
    name: &str,
    answered: &[QuestionAnswers],
    baselines: Option<&Baselines>,
    config: &MetricsConfig,
) -> Result<Evaluation> {
    let scored: Vec<Scored> = answered
        .iter()
        .filter(|question| !question.question.answers.is_empty())
        .map(|question| Scored::new(question, baselines, config))
        .collect();
    let mut evaluation = Evaluation { set: name.to_owned(), samples: scored.len(), ..Evaluation::default() };
    let without = answered.len() - scored.len();
    let cut = answered.iter().filter(|question| question.is_cut).count();
    evaluation.metrics = means(&scored);
    evaluation
        .metrics
        .extend([Metric::new("without_answer", without as f64), Metric::new("cut_questions", cut as f64)]);
    let has_one = |question: &Scored| question.question.question.answers.len() == 1;
    let rule = if scored.iter().all(has_one) {
        "equality with the one given answer".to_owned()
    } else {
        format!("protocol {}", config.protocol)
    };
    let title = format!(
        "{name}: {} questions, {rule}{}{}",
        scored.len(),
        noted(without, "without a given answer"),
        noted(cut, "cut"),
    );
    evaluation.tables.push(by_type(title, &scored, &mut evaluation.metrics));
    calibrate(&scored, config, &mut evaluation)?;
    Ok(evaluation)
}

impl<'a> Scored<'a> {
    fn new(question: &'a QuestionAnswers, baselines: Option<&Baselines>, config: &MetricsConfig) -> Self {
        let score = |answer: &str| answers::score(config.protocol, answer, &question.question.answers);
        let best = question.answers.first();
        let kind = question.question.kind.as_deref();
        Self {
            confidence: best.map_or(0.0, |answer| f64::from(answer.probability)),
            score: best.map_or(0.0, |answer| score(&answer.answer)),
            blind: question.blind_answer.as_deref().map(score),
            prior: baselines.map(|baselines| {
                [baselines.blind(&question.question.text), baselines.of_type(kind)].map(score)
            }),
            question,
        }
    }
}

/// ", 3 cut", or nothing for none.
fn noted(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!(", {count} {what}") }
}

/// The score of a question's answer, where there is one.
type Score = fn(&Scored) -> Option<f64>;

/// An answer that is measured: the model's, or one to compare it with.
struct Measured {
    metric: &'static str,
    column: &'static str,
    score: Score,
}

const MEASURED: [Measured; 4] = [
    Measured { metric: "accuracy", column: "accuracy", score: |question| Some(question.score) },
    Measured { metric: "accuracy_blind", column: "blind", score: |question| question.blind },
    Measured {
        metric: "accuracy_prior",
        column: "prior of the question",
        score: |question| question.prior.map(|[of_text, _]| of_text),
    },
    Measured {
        metric: "accuracy_type_prior",
        column: "prior of the type",
        score: |question| question.prior.map(|[_, of_type]| of_type),
    },
];

fn mean<'a>(scored: impl IntoIterator<Item = &'a Scored<'a>>, score: Score) -> Option<f64> {
    let scores: Option<Vec<f64>> = scored.into_iter().map(score).collect();
    scores.filter(|scores| !scores.is_empty()).map(|scores| scores.iter().sum::<f64>() / scores.len() as f64)
}

fn means(scored: &[Scored]) -> Vec<Metric> {
    let metric = |measured: &Measured| {
        let (name, is_headline) = (measured.metric.to_owned(), measured.metric == "accuracy");
        Some(Metric { name, value: mean(scored, measured.score)?, is_headline })
    };
    MEASURED.iter().filter_map(metric).collect()
}

/// The accuracies of all questions and of each type of answer, as a table and as metrics.
fn by_type(title: String, scored: &[Scored], metrics: &mut Vec<Metric>) -> Table {
    let mut types: BTreeMap<&str, Vec<&Scored>> = BTreeMap::new();
    for question in scored {
        types
            .entry(question.question.question.kind.as_deref().unwrap_or("other"))
            .or_default()
            .push(question);
    }
    let row = |name: &str, questions: &[&Scored]| {
        let share = |score| mean(questions.iter().copied(), score).map_or(Cell::Missing, Cell::Share);
        let mut row = vec![Cell::Text(name.to_owned()), Cell::Count(questions.len() as u64)];
        row.extend(MEASURED.iter().map(|measured| share(measured.score)));
        row
    };
    let mut rows = vec![row("all", &scored.iter().collect::<Vec<_>>())];
    for (name, questions) in types {
        rows.push(row(name, &questions));
        let accuracy = mean(questions, |question| Some(question.score));
        metrics.extend(accuracy.map(|accuracy| Metric::new(format!("accuracy_{name}"), accuracy)));
    }
    let columns = ["type of answer", "questions"].into_iter().chain(MEASURED.iter().map(|it| it.column));
    Table { title, columns: columns.map(str::to_owned).collect(), rows }
}

/// Adds what the confidences are worth: calibration, the risk-coverage curve, and abstention below a
/// threshold that is chosen on half of the samples and measured on the other half.
fn calibrate(scored: &[Scored], config: &MetricsConfig, evaluation: &mut Evaluation) -> Result<()> {
    let answers = |questions: Vec<&Scored>| {
        let answer = |question: &Scored| Answer { confidence: question.confidence, score: question.score };
        Answers::new(questions.into_iter().map(answer).collect())
    };
    if scored.is_empty() {
        return Ok(());
    }
    let all = answers(scored.iter().collect())?;
    let ece = all.expected_calibration_error(Binning::EqualWidth, BINS)?;
    let area = all.area_under_risk_coverage();
    let (accuracy_at_coverage, _) = all.accuracy_at_coverage(config.coverage)?;
    let percent = 100.0 * config.coverage;
    let mut rows = vec![
        vec![Cell::Text(format!("expected calibration error, {BINS} bins")), Cell::Number(ece)],
        vec![Cell::Text("area under the risk-coverage curve".to_owned()), Cell::Number(area)],
        vec![Cell::Text(format!("accuracy at {percent:.0} % coverage")), Cell::Share(accuracy_at_coverage)],
    ];
    evaluation.metrics.extend([
        Metric::new("ece", ece),
        Metric::new("aurc", area),
        Metric::new("accuracy_at_coverage", accuracy_at_coverage),
    ]);
    // By sample, so that the questions of an image are on one side.
    let (chosen_on, measured_on): (Vec<&Scored>, Vec<&Scored>) =
        scored.iter().partition(|question| is_held_out(&question.question.key, 0.5));
    if !chosen_on.is_empty() && !measured_on.is_empty() {
        let target = AbstainTarget::Coverage(config.coverage);
        let report = answers(chosen_on)?.abstain(&answers(measured_on)?, target)?;
        let text = |text: &str| Cell::Text(text.to_owned());
        rows.extend([
            vec![
                text("threshold, chosen on half of the samples for this coverage"),
                Cell::Number(report.chosen.threshold),
            ],
            vec![text("the other half: coverage"), Cell::Share(report.coverage)],
            vec![
                text("accuracy of its answered questions"),
                report.accuracy_of_answered.map_or(Cell::Missing, Cell::Share),
            ],
            vec![
                text("accuracy of those left unanswered"),
                report.accuracy_of_abstained.map_or(Cell::Missing, Cell::Share),
            ],
        ]);
        evaluation.metrics.push(Metric::new("abstain_threshold", report.chosen.threshold));
    }
    let columns = ["confidence", "value"].map(str::to_owned).into();
    let title = format!("{}: what the probabilities are worth", evaluation.set);
    evaluation.tables.push(Table { title, columns, rows });
    let curve = all.risk_coverage().iter().map(|point| (point.coverage, point.risk)).collect();
    let risk = 1.0 - mean(scored, |question| Some(question.score)).unwrap_or(0.0);
    let unsorted = vec![(0.0, risk), (1.0, risk)];
    evaluation.plots.push(Plot {
        title: "Risk (share of wrong answers) by coverage (share of questions answered)".to_owned(),
        x: "coverage".to_owned(),
        lines: vec![("most confident first".to_owned(), curve), ("in any order".to_owned(), unsorted)],
    });
    Ok(())
}
