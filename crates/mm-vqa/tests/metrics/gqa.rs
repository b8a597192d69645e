//! GQA's metrics equal those of the published evaluation, on `data/goldens/vqa-gqa`.

use std::collections::BTreeMap;
use std::path::Path;

use mm_vqa::metrics::gqa::{GqaOptions, GqaReport, read_choices, read_questions};
use mm_vqa::metrics::{Group, OnProblem, read_predictions};
use serde_json::Value;

/// The mean and the number of questions of each group; names that are numbers without leading zeros.
fn means(groups: &[Group]) -> BTreeMap<String, (f64, usize)> {
    let name = |group: &Group| group.name.parse::<usize>().map_or(group.name.clone(), |it| it.to_string());
    let mean = |group: &Group| (100.0 * group.accuracy.mean, group.accuracy.questions);
    groups.iter().map(|group| (name(group), mean(group))).collect()
}

#[test]
fn every_metric_is_that_of_the_published_evaluation() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vqa-gqa");
    let path = |name: &str| folder.join(format!("{name}.json"));
    let expected: Value = serde_json::from_slice(&std::fs::read(path("scores")).unwrap()).unwrap();
    let questions = read_questions(&path("questions")).unwrap();
    let choices = read_choices(&path("choices")).unwrap();
    let predictions = read_predictions(&path("results")).unwrap();
    let options = GqaOptions { consistency: true, choices: Some(&choices), on_problem: OnProblem::Refuse };
    let found = GqaReport::new(&questions, &predictions, options).unwrap();
    let close = |name: &str, found: f64, expected: &Value| {
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() < 1e-9, "{name}: {found}, not {expected}");
    };
    for (name, accuracy) in [
        ("accuracy", Some(found.overall)),
        ("binary", Some(found.binary)),
        ("open", Some(found.open)),
        ("consistency", found.consistency),
        ("validity", found.validity),
        ("plausibility", found.plausibility),
    ] {
        close(name, 100.0 * accuracy.unwrap().mean, &expected[name]);
    }
    close("distribution", found.distribution.unwrap(), &expected["distribution"]);
    for (name, groups) in [
        ("accuracyPerStructuralType", &found.by_structural_type),
        ("accuracyPerSemanticType", &found.by_semantic_type),
        ("accuracyPerSteps", &found.by_steps),
        ("accuracyPerLength", &found.by_words),
    ] {
        let groups = means(groups);
        assert_eq!(groups.len(), expected[name].as_object().unwrap().len());
        for (group, (mean, questions)) in groups {
            close(&format!("{name} {group}"), mean, &expected[name][&group][0]);
            assert_eq!(Value::from(questions), expected[name][&group][1], "{name} {group}");
        }
    }
}
