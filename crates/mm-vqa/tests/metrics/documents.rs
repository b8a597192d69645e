//! The metrics of documents equal those of the published programs, on `data/goldens/document-metrics`, and
//! are in their ranges.

use std::path::Path;

use mm_vqa::metrics::anls::{AnlsVariant, anls};
use mm_vqa::metrics::document::{
    DocumentPrediction, FieldConfidence, FieldScores, document_scores, tree_edit_accuracy, tree_edit_distance,
};
use mm_vqa::metrics::relaxed::{RELATIVE_ERROR, relaxed_match};
use proptest::prelude::*;
use serde_json::{Value, json};

fn golden(name: &str) -> Vec<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/document-metrics");
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

fn is_close(found: f64, expected: &Value) -> bool {
    (found - expected.as_f64().unwrap()).abs() < 1e-12
}

#[test]
fn answers_score_as_the_published_programs_score_them() {
    let rows = golden("answers.json");
    assert!(rows.len() > 500);
    for row in rows {
        let prediction = row[0].as_str().unwrap();
        let answers: Vec<&str> = row[1].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        for (variant, expected) in AnlsVariant::ALL.into_iter().zip(&row[2..4]) {
            let found = anls(variant, prediction, &answers);
            assert!(
                is_close(found, expected),
                "{variant} {prediction:?} {answers:?}: {found}, not {expected}"
            );
        }
        let found = relaxed_match(prediction, answers[0], RELATIVE_ERROR);
        assert_eq!(Value::from(found), row[4], "{prediction:?} {:?}", answers[0]);
    }
}

#[test]
fn documents_score_as_donuts_evaluation_scores_them() {
    let rows = golden("documents.json");
    let (f1, documents) = rows.split_first().unwrap();
    assert!(documents.len() > 150);
    for row in documents {
        let (predicted, right) = (&row[0], &row[1]);
        assert_eq!(Value::from(tree_edit_distance(predicted, right)), row[3], "{predicted} {right}");
        let found = tree_edit_accuracy(predicted, right);
        assert!(row[2].is_null() || is_close(found, &row[2]), "{predicted} {right}: {found}, not {}", row[2]);
    }
    let of = |rows: &mut dyn Iterator<Item = &Vec<Value>>| {
        let mut scores = FieldScores::default();
        rows.for_each(|row| scores.add(&row[0], &row[1]));
        scores.micro().f1()
    };
    assert!(is_close(of(&mut documents.iter()), &f1[0]));
    for (tenth, expected) in f1[1..].iter().enumerate() {
        let found = of(&mut documents.iter().skip(tenth).step_by(10));
        assert!(is_close(found, expected), "{found}, not {expected}");
    }
}

/// JSON of the sort that models write.
fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ a-c0-9.]{0,6}".prop_map(Value::from),
        ".{0,4}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc.]{0,2}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn answers_are_in_their_range_and_a_text_equals_itself(a in ".{0,12}", b in "[a-c é%.0-9]{0,12}") {
        for variant in AnlsVariant::ALL {
            prop_assert_eq!(anls(variant, &b, &[&a, &b]), 1.0);
            let found = anls(variant, &a, &[&b]);
            prop_assert!(found == 0.0 || (0.5..=1.0).contains(&found));
            prop_assert_eq!(found, anls(variant, &b, &[&a]));
        }
        prop_assert!(relaxed_match(&b, &b, RELATIVE_ERROR));
    }

    #[test]
    fn documents_are_in_their_range_and_equal_themselves(
        a in document(),
        b in document(),
        confidence in 0.0..=1.0_f64,
        path in "[abc.0-9]{0,6}",
    ) {
        prop_assert_eq!(tree_edit_accuracy(&a, &a), 1.0);
        prop_assert_eq!(tree_edit_distance(&a, &b), tree_edit_distance(&b, &a));
        let empty = json!({});
        let by_way_of_empty = tree_edit_distance(&a, &empty) + tree_edit_distance(&empty, &b);
        prop_assert!(tree_edit_distance(&a, &b) <= by_way_of_empty);
        let prediction = |predicted: &Value, right: &Value| DocumentPrediction {
            predicted: predicted.clone(),
            right: right.clone(),
            confidences: vec![FieldConfidence { path: path.clone(), confidence }],
            is_blank: false,
        };
        let scores = document_scores(&[prediction(&a, &b), prediction(&b, &a)]).unwrap();
        let swapped = document_scores(&[prediction(&b, &a), prediction(&a, &b)]).unwrap();
        prop_assert_eq!(scores.micro.f1(), swapped.micro.f1());
        for (name, value) in scores.metrics() {
            prop_assert!((0.0..=1.0).contains(&value), "{} is {}", name, value);
        }
        let same = document_scores(&[prediction(&a, &a)]).unwrap();
        for (name, value) in same.metrics() {
            prop_assert!(value == 1.0 || name == "ece" || name == "aurc", "{} is {}", name, value);
        }
    }
}
