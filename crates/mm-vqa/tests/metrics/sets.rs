//! The metrics of GQA, CLEVR and POPE on small files in the published layouts, with numbers computed by hand.

use std::path::PathBuf;

use mm_vqa::metrics::gqa::{GqaOptions, GqaReport};
use mm_vqa::metrics::pope::{Label, PopeReport, parse_answer};
use mm_vqa::metrics::{Accuracy, FindingKind, Group, OnProblem, Prediction, clevr, gqa, pope};

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn given(pairs: &[(&str, &str)]) -> Vec<Prediction> {
    let prediction = |&(id, answer): &(&str, &str)| Prediction {
        question_id: id.into(),
        answer: answer.into(),
        confidence: None,
    };
    pairs.iter().map(prediction).collect()
}

fn percents(groups: &[Group]) -> Vec<(&str, f64)> {
    groups.iter().map(|group| (group.name.as_str(), group.accuracy.percent)).collect()
}

const GQA: &str = r#"{
"001": {"imageId": "1", "question": "Is there a red cat?", "answer": "yes", "isBalanced": true,
  "types": {"structural": "verify", "semantic": "obj", "detailed": "existAttr"},
  "groups": {"global": null, "local": "x"}, "entailed": ["001", "002", "003", "009"],
  "semantic": [{"operation": "select", "dependencies": [], "argument": "cat (1)"},
    {"operation": "exist", "dependencies": [0], "argument": "?"}]},
"002": {"question": "What color is it?", "answer": "red", "isBalanced": true,
  "types": {"structural": "query", "semantic": "attr", "detailed": "color"}, "groups": {"global": "color"},
  "semantic": [{"operation": "query", "argument": "color"}]},
"003": {"question": "Is it?", "answer": "no", "isBalanced": false,
  "types": {"structural": "verify", "semantic": "obj", "detailed": "x"}, "groups": {"global": "color"}},
"004": {"question": "What color?", "answer": "red", "isBalanced": true,
  "types": {"structural": "query", "semantic": "attr", "detailed": "color"}, "groups": {"global": "color"}},
"005": {"question": "What is common?", "answer": "shape", "isBalanced": true,
  "types": {"structural": "compare", "semantic": "attr", "detailed": "twoCommon"}}
}"#;

#[test]
fn gqa_measures_the_balanced_questions_and_the_consistency_of_entailed_ones() {
    let (_folder, path) = file("q.json", GQA);
    let questions = gqa::read_questions(&path).unwrap();
    let choices = r#"{"001": {"valid": ["yes", "no"], "plausible": ["yes"]},
        "002": {"valid": ["red", "blue"], "plausible": ["red"]}, "005": {"valid": [], "plausible": []}}"#;
    let (_folder, path) = file("c.json", choices);
    let choices = gqa::read_choices(&path).unwrap();
    let predictions =
        given(&[("001", "yes"), ("002", "blue"), ("003", "no"), ("004", "red"), ("005", "color")]);
    let options = GqaOptions { consistency: true, choices: Some(&choices), on_problem: OnProblem::Refuse };
    let report = GqaReport::new(&questions, &predictions, options).unwrap();
    assert_eq!((report.overall.questions, report.overall.percent), (4, 50.0));
    assert_eq!((report.binary.percent, report.open.percent), (50.0, 50.0));
    // Of the right 001: 002 wrong, 003 right, 009 unknown. 004 entails nothing.
    assert_eq!(report.consistency, Some(Accuracy { questions: 1, percent: 50.0, mean: 0.5 }));
    assert_eq!(report.findings.count(FindingKind::UnknownEntailedQuestions), 1);
    // 001, 002, 005 (common: color is valid); 004 has no choices.
    assert_eq!(report.validity.unwrap().percent, 100.0);
    assert_eq!(report.plausibility.unwrap().percent, 66.67);
    assert_eq!(report.findings.count(FindingKind::QuestionsWithoutChoices), 1);
    // Two of red are right, one is predicted: (1 - 2)^2 / 2.
    assert_eq!(report.distribution, Some(0.5 / 100.0));
    assert_eq!(percents(&report.by_structural_type), [("compare", 0.0), ("query", 50.0), ("verify", 100.0)]);
    assert_eq!(percents(&report.by_steps), [("00", 50.0), ("01", 50.0)]);
    assert_eq!(report.by_words.len(), 4);
}

#[test]
fn gqa_needs_predictions_for_balanced_questions_alone_without_consistency() {
    let (_folder, path) = file("q.json", GQA);
    let questions = gqa::read_questions(&path).unwrap();
    let predictions = given(&[("001", "yes"), ("002", "Red"), ("004", "red"), ("005", "shape")]);
    let report = GqaReport::new(&questions, &predictions, GqaOptions::default()).unwrap();
    assert_eq!(report.overall.percent, 75.0);
    assert_eq!((report.consistency, report.validity), (None, None));
    let options = GqaOptions { consistency: true, ..GqaOptions::default() };
    let error = GqaReport::new(&questions, &predictions, options).unwrap_err().to_string();
    assert!(error.contains("1 questions have no prediction (003)"), "{error}");
}

#[test]
fn clevr_groups_questions_by_family_and_last_function() {
    let text = r#"{"info": {}, "questions": [
        {"question_index": 0, "answer": "yes", "question_family_index": 3, "program": [{"function": "scene"},
          {"function": "equal_color"}]},
        {"question_index": 1, "answer": "2", "question_family_index": 3, "program": [{"type": "count"}]},
        {"question_index": 2, "answer": "red", "program": [{"function": "query_color"}]},
        {"question_index": 3, "answer": "no", "program": [{"function": "less_than"}]}]}"#;
    let (_folder, path) = file("q.json", text);
    let questions = clevr::read_questions(&path).unwrap();
    let predictions = given(&[("0", "yes"), ("1", "3"), ("2", "red"), ("3", "No")]);
    let report = clevr::ClevrReport::new(&questions, &predictions, OnProblem::Refuse).unwrap();
    assert_eq!(report.overall.percent, 50.0);
    let kinds =
        [("compare attribute", 100.0), ("compare integer", 0.0), ("count", 0.0), ("query attribute", 100.0)];
    assert_eq!(percents(&report.by_kind), kinds);
    assert_eq!(percents(&report.by_family), [("(none)", 50.0), ("03", 50.0)]);
    let (_folder, path) = file("q.json", r#"{"questions": [{"question_index": 1}]}"#);
    let error = clevr::read_questions(&path).unwrap_err().to_string();
    assert!(error.contains("questions[0]: missing field `answer`"), "{error}");
}

#[test]
fn pope_reads_answers_as_the_published_script() {
    for (answer, expected) in [
        ("Yes, there is a dog.", Label::Yes),
        ("No, there is not.", Label::No),
        ("There is no dog", Label::No),
        ("It is. no", Label::Yes),
        ("NO", Label::Yes),
        ("nothing", Label::Yes),
        ("", Label::Yes),
    ] {
        assert_eq!(parse_answer(answer), expected, "{answer:?}");
    }
}

#[test]
fn pope_counts_hallucinated_objects() {
    let text = "{\"question_id\": 1, \"image\": \"a.jpg\", \"text\": \"?\", \"label\": \"yes\"}\n\
        {\"question_id\": 2, \"label\": \"no\", \"category\": \"random\"}\n\
        {\"question_id\": 3, \"label\": \"no\"}\n{\"question_id\": 4, \"label\": \"yes\"}\n";
    let (_folder, path) = file("coco_pope_random.json", text);
    let questions = pope::read_questions(&path).unwrap();
    let predictions = given(&[("1", "Yes."), ("2", "maybe"), ("3", "no")]);
    let report = PopeReport::new(&questions, &predictions, OnProblem::Wrong).unwrap();
    let all = &report.overall;
    assert_eq!((all.true_positives, all.false_positives), (1, 1));
    assert_eq!((all.true_negatives, all.false_negatives), (1, 1));
    assert_eq!((all.accuracy, all.precision, all.recall, all.f1), (0.5, Some(0.5), Some(0.5), Some(0.5)));
    assert_eq!(all.yes_ratio, 0.5);
    assert_eq!(report.by_category["random"].questions, 1);
    assert_eq!(report.by_category["random"].recall, None);
    assert_eq!(report.findings.count(FindingKind::UnreadablePredictions), 1);
    let (_folder, path) = file("p.json", "{\"question_id\": 1, \"label\": \"maybe\"}");
    let error = pope::read_questions(&path).unwrap_err().to_string();
    assert!(error.contains("line 1: unknown variant `maybe`"), "{error}");
}
