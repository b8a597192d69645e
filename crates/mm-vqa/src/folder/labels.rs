//! Answers as the `id2label` of a config.

use crate::{Error, Result};
use serde_json::{Value, json};

/// The labels of an `id2label`, whose keys are numbers from 0 as strings.
pub(super) fn answers(labels: &Value) -> Result<Vec<String>> {
    let wrong = |problem: String| Err(Error::Model(format!("id2label, the answers: {problem}")));
    let Some(labels) = labels.as_object() else { return wrong("it is missing".to_owned()) };
    let mut answers: Vec<Option<String>> = vec![None; labels.len()];
    for (key, label) in labels {
        let place = key.parse::<usize>().ok().and_then(|index| answers.get_mut(index));
        match (place, label.as_str()) {
            (Some(place), Some(label)) => *place = Some(label.to_owned()),
            _ => return wrong(format!("{key:?} is {label}: expected numbers from 0 with texts")),
        }
    }
    match answers.iter().position(Option::is_none) {
        Some(index) => wrong(format!("number {index} is missing")),
        None => Ok(answers.into_iter().flatten().collect()),
    }
}

/// `answers` as an `id2label`.
pub(super) fn labels(answers: &[String]) -> Value {
    answers.iter().enumerate().map(|(index, answer)| (index.to_string(), json!(answer))).collect()
}
