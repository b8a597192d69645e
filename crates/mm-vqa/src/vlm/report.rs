//! The numbers of an evaluation, from the answers of a model.

use super::conversation::Reference;
use super::evaluate::EvalAnswer;
use crate::Result;
use crate::answers::score;
use crate::metrics::document::{DocumentPrediction, document_scores};
use crate::metrics::vqa::Protocol;
use mm_data::{DocumentValue, Question};
use mm_train::{Cell, Evaluation, Metric, Table};
use std::collections::BTreeMap;

/// The metric of documents that are right as a whole.
const ALL: &str = "all_fields_exact";

/// Measures the answers to a set: the loss and the perplexity of the right answers, the accuracy of those to
/// questions by `protocol`, and the fields of documents.
///
/// # Errors
/// As [`document_scores`].
pub(crate) fn measure(name: &str, answers: &[EvalAnswer], protocol: Protocol) -> Result<Evaluation> {
    let mut evaluation = Evaluation { set: name.to_owned(), samples: answers.len(), ..Evaluation::default() };
    questions(answers, protocol, &mut evaluation);
    documents(answers, &mut evaluation)?;
    let is_headline = evaluation.metrics.is_empty();
    let finished = answers.iter().filter(|answer| answer.finished).count() as f64;
    evaluation.metrics.extend([
        Metric { name: "loss".to_owned(), value: loss(answers.iter()), is_headline },
        Metric::new("perplexity", loss(answers.iter()).exp()),
        Metric::new("finished", finished / answers.len().max(1) as f64),
    ]);
    evaluation.tables.push(by_content(name, answers));
    Ok(evaluation)
}

/// The mean over all labels.
fn loss<'a>(answers: impl Iterator<Item = &'a EvalAnswer>) -> f64 {
    let (sum, count) = answers.fold((0.0, 0), |(sum, count), it| (sum + it.loss, count + it.tokens));
    sum / count.max(1) as f64
}

/// The accuracy of answers to questions, beside that of answers about a blank image.
fn questions(answers: &[EvalAnswer], protocol: Protocol, evaluation: &mut Evaluation) {
    let asked = |answer: &EvalAnswer| -> Option<(Question, f64, Option<f64>)> {
        let Reference::Question(question) = &answer.reference else { return None };
        let score = |text: &String| score(protocol, text, &question.answers);
        Some((question.clone(), score(&answer.answer), answer.blind_answer.as_ref().map(score)))
    };
    let asked: Vec<_> = answers.iter().filter_map(asked).collect();
    if asked.is_empty() {
        return;
    }
    let mut types: BTreeMap<&str, Vec<(f64, Option<f64>)>> = BTreeMap::new();
    for (question, score, blind) in &asked {
        types.entry(question.kind.as_deref().unwrap_or("other")).or_default().push((*score, *blind));
    }
    let accuracy = |of: &[(f64, Option<f64>)]| mean(of.iter().map(|(score, _)| Some(*score)));
    let blind = |of: &[(f64, Option<f64>)]| mean(of.iter().map(|(_, blind)| *blind));
    let all: Vec<(f64, Option<f64>)> = asked.iter().map(|(_, score, blind)| (*score, *blind)).collect();
    evaluation.metrics.extend(accuracy(&all).map(|value| Metric::headline("accuracy", value)));
    evaluation.metrics.extend(blind(&all).map(|value| Metric::new("accuracy_blind", value)));
    let row = |name: &str, of: &[(f64, Option<f64>)]| {
        let share = |share: Option<f64>| share.map_or(Cell::Missing, Cell::Share);
        vec![Cell::Text(name.to_owned()), Cell::Count(of.len() as u64), share(accuracy(of)), share(blind(of))]
    };
    let mut rows = vec![row("all", &all)];
    for (name, of) in &types {
        rows.push(row(name, of));
        let accuracy = accuracy(of);
        evaluation.metrics.extend(accuracy.map(|value| Metric::new(format!("accuracy_{name}"), value)));
    }
    let has_one = asked.iter().all(|(question, ..)| question.answers.len() == 1);
    let rule = if has_one {
        "equality with the one given answer".to_owned()
    } else {
        format!("protocol {protocol}")
    };
    evaluation.tables.push(Table {
        title: format!("{}: {} questions, {rule}", evaluation.set, asked.len()),
        columns: ["type of answer", "questions", "accuracy", "blind"].map(str::to_owned).into(),
        rows,
    });
}

/// The mean, if all are there.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The fields of documents, which are answers in JSON.
fn documents(answers: &[EvalAnswer], evaluation: &mut Evaluation) -> Result<()> {
    let mut invalid = 0;
    let mut predictions = Vec::new();
    for answer in answers {
        let Reference::Document(right) = &answer.reference else { continue };
        let predicted = serde_json::from_str::<DocumentValue>(&answer.answer);
        invalid += usize::from(predicted.is_err());
        predictions.push(DocumentPrediction {
            // What is no JSON says nothing.
            predicted: predicted.unwrap_or_default().to_json(),
            right: right.clone(),
            confidences: Vec::new(),
            is_blank: right.as_object().is_some_and(serde_json::Map::is_empty),
        });
    }
    if predictions.is_empty() {
        return Ok(());
    }
    let scores = document_scores(&predictions)?;
    let metric = |(name, value): (String, f64)| Metric { is_headline: name == ALL, name, value };
    evaluation.metrics.extend(scores.metrics().into_iter().map(metric));
    let valid = 1.0 - invalid as f64 / predictions.len() as f64;
    evaluation.metrics.push(Metric::new("valid_json", valid));
    let share = |share: Option<f64>| share.map_or(Cell::Missing, Cell::Share);
    let mut rows: Vec<Vec<Cell>> = scores
        .fields
        .iter()
        .map(|field| {
            vec![
                Cell::Text(field.field.clone()),
                Cell::Count(field.documents as u64),
                share(field.exact_share()),
                Cell::Share(field.counts.f1()),
            ]
        })
        .collect();
    rows.push(vec![
        Cell::Text("all of a page".to_owned()),
        Cell::Count(scores.documents as u64),
        share(scores.all_fields_exact),
        Cell::Share(scores.micro.f1()),
    ]);
    let (set, count) = (&evaluation.set, predictions.len());
    evaluation.tables.push(Table {
        title: format!("{set}: {count} pages, {:.1} % of the answers are JSON", 100.0 * valid),
        columns: ["field", "pages", "exact", "F1"].map(str::to_owned).into(),
        rows,
    });
    Ok(())
}

/// The loss of the right answers, by what they are.
fn by_content(name: &str, answers: &[EvalAnswer]) -> Table {
    let content = |answer: &EvalAnswer| match answer.reference {
        Reference::Chat => "conversations",
        Reference::Document(_) => "documents",
        Reference::Question(_) => "questions",
        Reference::Captions(_) => "captions",
    };
    let mut contents: BTreeMap<&str, Vec<&EvalAnswer>> = BTreeMap::new();
    for answer in answers {
        contents.entry(content(answer)).or_default().push(answer);
    }
    let row = |(name, of): (&str, Vec<&EvalAnswer>)| {
        let loss = loss(of.iter().copied());
        let finished = of.iter().filter(|answer| answer.finished).count();
        vec![
            Cell::Text(name.to_owned()),
            Cell::Count(of.len() as u64),
            Cell::Number(loss),
            Cell::Number(loss.exp()),
            Cell::share(finished, of.len()),
        ]
    };
    Table {
        title: format!("{name}: the right answers under the model, and how many of its own ended"),
        columns: ["content", "samples", "loss", "perplexity", "ended"].map(str::to_owned).into(),
        rows: contents.into_iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reference: Reference, answer: &str, blind: Option<&str>) -> EvalAnswer {
        EvalAnswer {
            index: 0,
            key: "a".to_owned(),
            prompt: String::new(),
            right: String::new(),
            reference,
            loss: 2.0,
            tokens: 4,
            answer: answer.to_owned(),
            finished: true,
            blind_answer: blind.map(str::to_owned),
        }
    }

    fn question(answer: &str, kind: &str) -> Reference {
        Reference::Question(Question {
            answers: vec![answer.to_owned()],
            kind: Some(kind.to_owned()),
            ..Question::default()
        })
    }

    #[test]
    fn questions_are_measured_by_type_beside_blind_answers_and_every_set_has_a_perplexity() {
        let answers = [
            answer(question("yes", "yes/no"), "Yes", Some("no")),
            answer(question("3", "number"), "two", Some("3")),
            answer(Reference::Captions(vec!["a star".to_owned()]), "a star", None),
        ];
        let evaluation = measure("test", &answers, Protocol::Official).unwrap();
        let metric = |name: &str| evaluation.metric(name).unwrap();
        assert_eq!((metric("accuracy"), metric("accuracy_blind")), (0.5, 0.5));
        assert_eq!((metric("accuracy_yes/no"), metric("accuracy_number")), (1.0, 0.0));
        assert_eq!((metric("loss"), metric("perplexity"), metric("finished")), (0.5, 0.5f64.exp(), 1.0));
        assert_eq!(evaluation.tables.len(), 2);
        assert_eq!(evaluation.tables[1].rows.len(), 2);
    }

    #[test]
    fn documents_are_measured_by_field_and_what_is_no_json_says_nothing() {
        let right = serde_json::json!({"total": "9.50", "date": "2026-11-28"});
        let document = |text: &str| answer(Reference::Document(right.clone()), text, None);
        let answers = [
            document(r#"{"total":"9.50","date":"2026-11-28"}"#),
            document(r#"{"total":"9.50","date":"2026-11-"#),
        ];
        let evaluation = measure("test", &answers, Protocol::Official).unwrap();
        let metric = |name: &str| evaluation.metric(name).unwrap();
        assert_eq!((metric(ALL), metric("valid_json"), metric("exact/total")), (0.5, 0.5, 0.5));
        assert!(evaluation.metrics.iter().any(|metric| metric.name == ALL && metric.is_headline));
    }
}
