//! Scores equal those of VQA v2's official program and of MMF's, on `data/goldens/vqa-metrics`. The
//! environment variable `VQA_GOLDENS` names another folder of `xtask/goldens/vqa-metrics.py`, such as one of
//! 20,000 questions.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use mm_vqa::metrics::vqa::{Protocol, VqaAccuracy, VqaSet, normalize};
use mm_vqa::metrics::{Group, Id, OnProblem, read_predictions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    /// Id, official score in percent, MMF's score from 0 to 1 for questions with ten answers.
    questions: Vec<(Id, f64, Option<f64>)>,
    accuracy: Accuracies,
    /// Text, official normalisation, MMF's.
    normalized: Vec<[String; 3]>,
}

#[derive(Deserialize)]
struct Accuracies {
    overall: f64,
    #[serde(rename = "perQuestionType")]
    by_question_type: BTreeMap<String, f64>,
    #[serde(rename = "perAnswerType")]
    by_answer_type: BTreeMap<String, f64>,
}

/// The folder of goldens, with its files unpacked.
struct Goldens {
    unpacked: tempfile::TempDir,
    expected: Expected,
}

impl Goldens {
    fn read() -> Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vqa-metrics");
        let folder = std::env::var_os("VQA_GOLDENS").map_or(data, PathBuf::from);
        let unpacked = tempfile::tempdir().unwrap();
        for name in ["questions", "annotations", "results", "scores"] {
            let packed = std::fs::File::open(folder.join(format!("{name}.json.gz"))).unwrap();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(packed).read_to_end(&mut text).unwrap();
            std::fs::write(unpacked.path().join(format!("{name}.json")), text).unwrap();
        }
        let scores = std::fs::read(unpacked.path().join("scores.json")).unwrap();
        Self { expected: serde_json::from_slice(&scores).unwrap(), unpacked }
    }

    fn measure(&self, protocol: Protocol) -> VqaAccuracy {
        let path = |name: &str| self.unpacked.path().join(format!("{name}.json"));
        let set = VqaSet::read(&path("annotations"), Some(&path("questions"))).unwrap();
        let predictions = read_predictions(&path("results")).unwrap();
        VqaAccuracy::new(protocol, set, &predictions, OnProblem::Refuse).unwrap()
    }
}

fn percents(groups: &[Group]) -> BTreeMap<String, f64> {
    groups.iter().map(|group| (group.name.clone(), group.accuracy.percent)).collect()
}

#[test]
fn texts_are_normalised_as_both_programs_do() {
    for [text, official, mmf] in Goldens::read().expected.normalized {
        assert_eq!(normalize(Protocol::Official, &text).text, official, "{text:?}");
        assert_eq!(normalize(Protocol::Evalai, &text).text, mmf, "{text:?}");
    }
}

#[test]
fn each_question_has_the_official_score() {
    let goldens = Goldens::read();
    let found = goldens.measure(Protocol::Official);
    assert_eq!(found.per_question.len(), goldens.expected.questions.len());
    for (found, (id, score, _)) in found.per_question.iter().zip(&goldens.expected.questions) {
        assert_eq!(found.question_id, *id);
        assert!((100.0 * found.score - score).abs() < 1e-9, "{id}: {}, not {score}", 100.0 * found.score);
    }
    let accuracy = &goldens.expected.accuracy;
    assert_eq!(found.overall.percent, accuracy.overall);
    assert_eq!(percents(&found.by_question_type), accuracy.by_question_type);
    assert_eq!(percents(&found.by_answer_type), accuracy.by_answer_type);
}

#[test]
fn each_question_has_the_score_of_mmf() {
    let goldens = Goldens::read();
    let found = goldens.measure(Protocol::Evalai);
    let expected = goldens.expected.questions.iter().zip(&found.per_question);
    let mut compared = 0;
    for ((id, _, score), found) in
        expected.filter_map(|((id, _, score), found)| Some(((id, (), (*score)?), found)))
    {
        compared += 1;
        assert!((found.score - score).abs() < 1e-9, "{id}: {}, not {score}", found.score);
    }
    assert!(compared > 1000);
}

#[test]
fn every_rule_is_used_and_counted() {
    let goldens = Goldens::read();
    let official = goldens.measure(Protocol::Official);
    let names = |report: &VqaAccuracy| report.rules.iter().map(|rule| rule.rule).collect::<Vec<_>>();
    use mm_vqa::metrics::vqa::Rule;
    let expected: Vec<Rule> = Rule::ALL.into_iter().filter(|&rule| rule != Rule::Tokenization).collect();
    assert_eq!(names(&official), expected);
    assert!(official.unanimous.wrong_without_rules > 0);
    let strict = goldens.measure(Protocol::Strict);
    assert_eq!(names(&strict), [Rule::Whitespace, Rule::LowerCase, Rule::Emptied]);
    assert!(strict.overall.mean < official.overall.mean);
}
