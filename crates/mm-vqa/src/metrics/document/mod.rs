//! The metrics of fields that are read in documents: invoices, receipts, forms.
//!
//! A document is JSON: keys with texts, lists and objects. Predictions and right documents are compared in
//! the form of Donut's evaluation (Kim et al., 2022): scalars are texts without white space at their ends, a
//! single value equals a list of one, and what is empty, null, false or 0 is left out.
//!
//! - [`FieldScores`]: exact match and F1 of each field, and of all.
//! - [`tree_edit_accuracy`]: how much of a nested document is right.
//! - [`document_scores`] sums up a set: these and ANLS, whether confidences are true, and how often a page
//!   without text is read as what it is.

mod fields;
mod normalize;
mod tree_edit;

pub use fields::{FieldCounts, FieldScore, FieldScores};
pub use tree_edit::{tree_edit_accuracy, tree_edit_distance};

use super::anls::{AnlsVariant, anls, mean_anls};
use super::calibration::{Answer, Answers, Binning};
use super::error::Result;
use normalize::{flatten, normalize, text_at};
use serde_json::Value;

/// The bins of the expected calibration error.
const BINS: usize = 15;

/// A document that a model has read.
#[derive(Clone, Debug)]
pub struct DocumentPrediction {
    /// What the model has read.
    pub predicted: Value,
    /// What is on the page.
    pub right: Value,
    /// The model's confidence in its values; may leave values out.
    pub confidences: Vec<FieldConfidence>,
    /// Whether the page is blank: then nothing is right.
    pub is_blank: bool,
}

/// A model's confidence in a value.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldConfidence {
    /// Where the value is in the prediction: keys and places in lists joined by points, `items.0.price`.
    pub path: String,
    /// The probability that it is right, from 0 to 1.
    pub confidence: f64,
}

/// The metrics of a set of documents. Pages that are blank count for `micro`, which invented values lower,
/// for the calibration and for `blank_nothing_found`, not for the rest.
#[derive(Clone, Debug)]
pub struct DocumentScores {
    /// The number of documents that are not blank.
    pub documents: usize,
    /// The number of blank ones.
    pub blank_documents: usize,
    /// Each field of the documents that are not blank, by name.
    pub fields: Vec<FieldScore>,
    /// The share of documents that are right as a whole.
    pub all_fields_exact: Option<f64>,
    /// The values of all documents: the F1 over fields.
    pub micro: FieldCounts,
    /// The mean of the fields' F1.
    pub macro_f1: f64,
    /// The mean of [`tree_edit_accuracy`].
    pub tree_edit_accuracy: Option<f64>,
    /// The mean ANLS of right values, each compared with the predicted one at its place.
    pub anls: Option<f64>,
    /// The values with a confidence, and whether they are right; `None` if there are none.
    pub calibration: Option<Answers>,
    /// The expected calibration error of those, in 15 bins of equal width.
    pub expected_calibration_error: Option<f64>,
    /// The share of blank pages on which no value is found.
    pub blank_nothing_found: Option<f64>,
}

/// Measures a set of documents.
///
/// # Errors
/// A confidence is not from 0 to 1.
pub fn document_scores(documents: &[DocumentPrediction]) -> Result<DocumentScores> {
    let (blank, written): (Vec<_>, Vec<_>) = documents.iter().partition(|document| document.is_blank);
    let (mut fields, mut all) = (FieldScores::default(), FieldScores::default());
    written.iter().for_each(|document| fields.add(&document.predicted, &document.right));
    documents.iter().for_each(|document| all.add(&document.predicted, &document.right));
    let mean = |values: Vec<f64>| {
        let count = values.len();
        (count > 0).then(|| values.iter().sum::<f64>() / count as f64)
    };
    let trees = written.iter().map(|document| tree_edit_accuracy(&document.predicted, &document.right));
    let similarities: Vec<f64> = written.iter().flat_map(|document| similarities(document)).collect();
    let is_empty = |document: &&DocumentPrediction| flatten(&normalize(&document.predicted)).is_empty();
    let found_nothing = blank.iter().filter(|document| is_empty(document)).count();
    let answers: Vec<Answer> = documents.iter().flat_map(DocumentPrediction::answers).collect();
    let calibration = if answers.is_empty() { None } else { Some(Answers::new(answers)?) };
    let error = |answers: &Answers| answers.expected_calibration_error(Binning::EqualWidth, BINS);
    Ok(DocumentScores {
        documents: written.len(),
        blank_documents: blank.len(),
        fields: fields.fields().cloned().collect(),
        all_fields_exact: fields.all_exact(),
        micro: all.micro(),
        macro_f1: fields.macro_f1(),
        tree_edit_accuracy: mean(trees.collect()),
        anls: (!similarities.is_empty()).then(|| mean_anls(similarities)),
        expected_calibration_error: calibration.as_ref().map(error).transpose()?,
        calibration,
        blank_nothing_found: (!blank.is_empty()).then(|| found_nothing as f64 / blank.len() as f64),
    })
}

/// The ANLS of each right value: that of the predicted value of the same field at the same place.
fn similarities(document: &DocumentPrediction) -> Vec<f64> {
    let (predicted, right) = (normalize(&document.predicted), normalize(&document.right));
    let (mut found, right) = (flatten(&predicted), flatten(&right));
    let similarity = |(field, text): &(String, &str)| {
        let place = found.iter().position(|(name, _)| name == field)?;
        let (_, value) = found.remove(place);
        Some(anls(AnlsVariant::Rrc, value, &[text]))
    };
    right.iter().map(similarity).map(Option::unwrap_or_default).collect()
}

impl DocumentPrediction {
    /// Values with their confidences: right where the page has the same text at the same path. A path
    /// without a value in the prediction is left out.
    fn answers(&self) -> Vec<Answer> {
        let answer = |field: &FieldConfidence| {
            let value = text_at(&self.predicted, &field.path)?;
            let is_right = text_at(&self.right, &field.path).is_some_and(|right| right == value);
            Some(Answer { confidence: field.confidence, score: f64::from(u8::from(is_right)) })
        };
        self.confidences.iter().filter_map(answer).collect()
    }
}

impl DocumentScores {
    /// The numbers by name, those that sum the set up first: `all_fields_exact`, `field_f1`,
    /// `field_f1_macro`, `tree_edit_accuracy`, `anls`, `ece`, `aurc`, `blank_nothing_found`, and for each
    /// field `exact/FIELD` and `f1/FIELD`. A number without a document to measure is left out.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let has_documents = self.documents > 0;
        let risk = self.calibration.as_ref().map(Answers::area_under_risk_coverage);
        let summary = [
            ("all_fields_exact", self.all_fields_exact),
            ("field_f1", (has_documents || self.blank_documents > 0).then(|| self.micro.f1())),
            ("field_f1_macro", has_documents.then_some(self.macro_f1)),
            ("tree_edit_accuracy", self.tree_edit_accuracy),
            ("anls", self.anls),
            ("ece", self.expected_calibration_error),
            ("aurc", risk),
            ("blank_nothing_found", self.blank_nothing_found),
        ];
        let mut metrics: Vec<(String, f64)> =
            summary.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        for field in &self.fields {
            let exact = field.exact_share().map(|share| (format!("exact/{}", field.field), share));
            metrics.extend(exact);
            metrics.push((format!("f1/{}", field.field), field.counts.f1()));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prediction(predicted: Value, right: Value, confidences: &[(&str, f64)]) -> DocumentPrediction {
        let confidence =
            |&(path, confidence): &(&str, f64)| FieldConfidence { path: path.to_owned(), confidence };
        let is_blank = right == json!({});
        DocumentPrediction {
            predicted,
            right,
            confidences: confidences.iter().map(confidence).collect(),
            is_blank,
        }
    }

    #[test]
    fn a_set_is_summed_up() {
        let right = json!({"total": "12.50", "date": "2026-11-28"});
        let set = [
            prediction(right.clone(), right.clone(), &[("total", 0.9), ("date", 0.9), ("absent", 0.1)]),
            prediction(json!({"total": "12.51"}), right, &[("total", 0.5)]),
            prediction(json!({}), json!({}), &[]),
            prediction(json!({"total": "1"}), json!({}), &[("total", 0.3)]),
        ];
        let scores = document_scores(&set).unwrap();
        assert_eq!((scores.documents, scores.blank_documents), (2, 2));
        let metrics = scores.metrics();
        let metric = |name: &str| metrics.iter().find(|(found, _)| found == name).unwrap().1;
        let close = |name: &str, expected: f64| {
            assert!((metric(name) - expected).abs() < 1e-12, "{name}: {}, not {expected}", metric(name));
        };
        close("all_fields_exact", 0.5);
        close("exact/total", 0.5);
        close("exact/date", 0.5);
        // Two right of four expected and four predicted.
        close("field_f1", 0.5);
        close("f1/total", 0.5);
        close("field_f1_macro", (0.5 + 2.0 / 3.0) / 2.0);
        // Of 17 for two keys and 15 characters, one character and the date's 11 are missing.
        close("tree_edit_accuracy", (1.0 + (1.0 - 12.0 / 17.0)) / 2.0);
        close("anls", (1.0 + 1.0 + 0.8 + 0.0) / 4.0);
        // Two of 0.9 that are right, one of 0.5 and one of 0.3 that are wrong.
        close("ece", (2.0 * 0.1 + 0.5 + 0.3) / 4.0);
        close("blank_nothing_found", 0.5);
        assert!(document_scores(&[prediction(json!({"a": "b"}), json!({}), &[("a", 1.5)])]).is_err());
    }

    #[test]
    fn a_set_without_documents_has_no_numbers() {
        assert_eq!(document_scores(&[]).unwrap().metrics(), []);
        let blank = [prediction(json!({}), json!({}), &[])];
        let names: Vec<_> = document_scores(&blank).unwrap().metrics();
        assert_eq!(names, [("field_f1".to_owned(), 1.0), ("blank_nothing_found".to_owned(), 1.0)]);
    }
}
