//! Which fields of documents are read right: exact match and F1, by field and over all.

use super::normalize::{flatten, normalize};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Counts of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FieldCounts {
    /// Values that are predicted and right.
    pub right: usize,
    /// Values that are predicted.
    pub predicted: usize,
    /// Values that are on the pages.
    pub expected: usize,
}

impl FieldCounts {
    /// The share of predicted values that are right; 1 if none is predicted and none expected.
    pub fn precision(&self) -> f64 {
        ratio(self.right, self.predicted, self.expected)
    }

    /// The share of expected values that are found; 1 if none is predicted and none expected.
    pub fn recall(&self) -> f64 {
        ratio(self.right, self.expected, self.predicted)
    }

    /// The harmonic mean of both: `right / (right + (missed + invented) / 2)`.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.right, self.predicted + self.expected, 0)
    }

    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.predicted += other.predicted;
        self.expected += other.expected;
    }
}

/// A part of a number; where that is 0, 1 if `others` is 0 too.
fn ratio(part: usize, of: usize, others: usize) -> f64 {
    match of {
        0 if others == 0 => 1.0,
        0 => 0.0,
        _ => part as f64 / of as f64,
    }
}

/// How one field is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FieldScore {
    /// The keys that lead to it, joined by points, without places in lists: `items.price`.
    pub field: String,
    /// The number of documents that have it.
    pub documents: usize,
    /// How many of those have all its values right, in order, and no other one.
    pub exact: usize,
    /// Its values.
    pub counts: FieldCounts,
}

impl FieldScore {
    /// The share of documents with the field in which it is exact; `None` if no document has it.
    pub fn exact_share(&self) -> Option<f64> {
        (self.documents > 0).then(|| self.exact as f64 / self.documents as f64)
    }
}

/// Sums of fields over documents.
#[derive(Clone, Debug, Default)]
pub struct FieldScores {
    fields: BTreeMap<String, FieldScore>,
    documents: usize,
    exact_documents: usize,
}

impl FieldScores {
    /// Adds a document.
    pub fn add(&mut self, predicted: &Value, right: &Value) {
        let (predicted, right) = (normalize(predicted), normalize(right));
        self.documents += 1;
        self.exact_documents += usize::from(predicted == right);
        let (found, expected) = (by_field(flatten(&predicted)), by_field(flatten(&right)));
        for field in found.keys().chain(expected.keys().filter(|&field| !found.contains_key(field))) {
            let (found, expected) = (values(&found, field), values(&expected, field));
            let score = self.fields.entry(field.clone()).or_default();
            score.field.clone_from(field);
            score.counts.add(&FieldCounts {
                right: common(found, expected),
                predicted: found.len(),
                expected: expected.len(),
            });
            if !expected.is_empty() {
                score.documents += 1;
                score.exact += usize::from(found == expected);
            }
        }
    }

    /// Each field, by name.
    pub fn fields(&self) -> impl Iterator<Item = &FieldScore> {
        self.fields.values()
    }

    /// The counts of all values together, whose F1 is that of Donut's `cal_f1`.
    pub fn micro(&self) -> FieldCounts {
        let mut all = FieldCounts::default();
        self.fields.values().for_each(|field| all.add(&field.counts));
        all
    }

    /// The mean F1 of the fields; 1 if there are none.
    pub fn macro_f1(&self) -> f64 {
        match self.fields.len() {
            0 => 1.0,
            count => self.fields.values().map(|field| field.counts.f1()).sum::<f64>() / count as f64,
        }
    }

    /// The share of documents that are right as a whole; `None` without documents.
    pub fn all_exact(&self) -> Option<f64> {
        (self.documents > 0).then(|| self.exact_documents as f64 / self.documents as f64)
    }
}

fn by_field(pairs: Vec<(String, &str)>) -> BTreeMap<String, Vec<&str>> {
    let mut fields: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (field, text) in pairs {
        fields.entry(field).or_default().push(text);
    }
    fields
}

fn values<'a, 'b>(fields: &'a BTreeMap<String, Vec<&'b str>>, field: &str) -> &'a [&'b str] {
    fields.get(field).map_or(&[], Vec::as_slice)
}

/// The number of values that both have, each as often as both have it.
fn common(a: &[&str], b: &[&str]) -> usize {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    b.iter().for_each(|text| *left.entry(text).or_default() += 1);
    let is_taken = |text: &&&str| match left.get_mut(**text) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    a.iter().filter(is_taken).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_counted_by_name_and_over_all() {
        let mut scores = FieldScores::default();
        let right = json!({"total": "5", "items": [{"name": "a"}, {"name": "b"}]});
        scores.add(&json!({"total": "5", "items": [{"name": "b"}, {"name": "a"}], "tax": "1"}), &right);
        scores.add(&json!({"total": " 5 ", "items": [{"name": "a"}, {"name": "b"}]}), &right);
        scores.add(&json!({}), &json!({"total": 7}));
        let found: Vec<_> =
            scores.fields().map(|it| (it.field.as_str(), it.documents, it.exact, it.counts.right)).collect();
        assert_eq!(found, [("items.name", 2, 1, 4), ("tax", 0, 0, 0), ("total", 3, 2, 2)]);
        let micro = scores.micro();
        assert_eq!((micro.right, micro.predicted, micro.expected), (6, 7, 7));
        assert_eq!(micro.f1(), 6.0 / 7.0);
        assert_eq!(scores.macro_f1(), (1.0 + 0.0 + 4.0 / 5.0) / 3.0);
        assert_eq!(scores.all_exact(), Some(1.0 / 3.0));
        let total = scores.fields().last().unwrap();
        assert_eq!((total.counts.precision(), total.counts.recall()), (1.0, 2.0 / 3.0));
        assert_eq!(total.exact_share(), Some(2.0 / 3.0));
        assert_eq!(FieldScores::default().all_exact(), None);
        assert_eq!((FieldCounts::default().f1(), FieldCounts::default().precision()), (1.0, 1.0));
    }
}
