//! Tests without METEOR's data, and the comparison with its Java program where the data are at hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::data::Synonyms;
use super::*;

/// Function words of the tests.
const FUNCTION_WORDS: [&str; 6] = ["a", "the", "is", "of", "on", "in"];

/// Data with these modules: exact, stem, and synonym if there are synsets.
fn data(exceptions: &str, synsets: &str) -> MeteorData {
    MeteorData {
        function_words: FUNCTION_WORDS.map(str::to_owned).into(),
        prefixes: [("Dr".to_owned(), false)].into(),
        synonyms: Some(Synonyms::parse(exceptions, synsets).unwrap()),
        paraphrases: None,
    }
}

fn score(data: &MeteorData, hypothesis: &str, references: &[&str]) -> f64 {
    data.score(&[hypothesis], &[references.to_vec()]).unwrap().segments[0]
}

fn assert_near(one: f64, other: f64) {
    assert!((one - other).abs() < 1e-12, "{one} is not {other}");
}

#[test]
fn the_best_reference_counts() {
    let data = data("", "");
    assert_eq!(score(&data, "a dog runs", &["the cat", "a dog runs"]), 1.0);
    assert_eq!(score(&data, "a dog runs", &["red", "green"]), 0.0);
    assert_eq!(score(&data, "", &["a dog"]), 0.0);
    assert_eq!(score(&data, "a dog", &[""]), 0.0);
}

#[test]
fn stems_and_synonyms_match_with_their_weights() {
    // One content word on both sides; precision, recall and their mean are the weight, and the penalty is
    // that of a single match, as the text does not match exactly in one chunk of all words.
    let plain = data("", "");
    assert_near(score(&plain, "running", &["runs"]), 0.6);
    let synonyms = data("geese\ngoose", "couch\n1 2\nsofa\n2 3\ngoose\n7\nchair\n3\n");
    assert_near(score(&synonyms, "couch", &["sofa"]), 0.8);
    assert_near(score(&synonyms, "couches", &["sofas"]), 0.8);
    assert_eq!(score(&synonyms, "couch", &["chair"]), 0.0);
    assert_eq!(score(&synonyms.without_synonyms(), "couch", &["sofa"]), 0.0);
}

#[test]
fn irregular_forms_have_the_synsets_of_their_base() {
    let synonyms = data("goose\ngeese gooses", "goose\n7\nbird\n7\n");
    assert_near(score(&synonyms, "geese", &["bird"]), 0.8);
}

#[test]
fn words_in_another_order_cost_a_penalty() {
    let data = data("", "");
    let near = score(&data, "red dog big cat", &["big cat red dog"]);
    let far = score(&data, "red dog big cat", &["cat big dog red"]);
    assert_near(near, 1.0 - 0.6 * 0.5_f64.powf(0.2));
    assert_near(far, 0.4);
}

#[test]
fn the_corpus_score_is_not_the_mean_of_the_segments() {
    let scores = data("", "").score(&["dog", "cat big"], &[vec!["dog"], vec!["red big house"]]).unwrap();
    assert_eq!(scores.segments[0], 1.0);
    let mean: f64 = 1.0 / (0.15 / (2.0 / 3.0) + 0.85 / 0.5);
    // The first pair matches in one chunk and adds none.
    assert_near(scores.corpus, mean * (1.0 - 0.6 * 0.5_f64.powf(0.2)));
}

#[test]
fn paraphrases_match_phrases_of_different_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paraphrase-en.gz");
    let write = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
        std::fs::write(&path, gzip.finish().unwrap()).unwrap();
    };
    let paraphrases = MeteorData { paraphrases: Some(path.clone()), ..data("", "") };
    write("0.5\nbig house\nvilla\n0.25\nvilla\ncastle\n0.1\nnot here\nvilla\n");
    assert_near(score(&paraphrases, "villa", &["big house"]), 0.6);
    assert_near(score(&paraphrases, "big house", &["villa"]), 0.6);
    assert_eq!(score(&paraphrases, "castle", &["big house"]), 0.0);
    write("0.5\nbig house\n");
    let message = paraphrases.score(&["a"], &[vec!["b"]]).unwrap_err().to_string();
    assert!(message.contains("paraphrase-en.gz: its last entry is not complete"), "{message}");
    std::fs::write(&path, b"text").unwrap();
    assert!(matches!(paraphrases.score(&["a"], &[vec!["b"]]), Err(MeteorError::Io { .. })));
}

#[test]
fn wrong_input_is_an_error_with_the_reason() {
    let plain = data("", "");
    let message = plain.score(&["a"], &[]).unwrap_err().to_string();
    assert_eq!(message, "1 hypotheses, but 0 lists of references");
    let message = plain.score(&["a"], &[vec![]]).unwrap_err().to_string();
    assert_eq!(message, "hypothesis 0 (from 0) has no reference");
    let message = Synonyms::parse("", "dog\n1 x\n").unwrap_err();
    assert!(message.starts_with("english.synsets, line 2: synsets of \"dog\": "), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let message = MeteorData::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("no meteor-1.5.jar: give the folder"), "{message}");
    std::fs::write(folder.path().join("meteor-1.5.jar"), b"no zip").unwrap();
    let message = MeteorData::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("no data/paraphrase-en.gz"), "{message}");
    std::fs::write(folder.path().join("paraphrase-en.gz"), b"").unwrap();
    let message = MeteorData::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("not a jar"), "{message}");
}

#[test]
fn odd_texts_are_scored() {
    let plain = data("", "");
    let texts =
        ["", " ", "|||", "a ||| b", "’", "...", "\u{a0}", "ß İ ſ", "'' '", "🦊 🦊", ". , -", "dr. who"];
    for hypothesis in texts {
        for reference in texts {
            let score = score(&plain, hypothesis, &[reference]);
            assert!((0.0..=1.0).contains(&score), "{hypothesis:?} {reference:?}: {score}");
        }
    }
}

/// Captions with the scores of the Java program, by modules.
#[derive(serde::Deserialize)]
struct Golden {
    function_words: Vec<String>,
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    scores: BTreeMap<String, GoldenScores>,
}

#[derive(serde::Deserialize)]
struct GoldenScores {
    corpus: f64,
    segments: Vec<f64>,
}

fn golden() -> Golden {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption-meteor/meteor.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_scores_equal(data: &MeteorData, golden: &Golden, modules: &str) {
    let scores = data.score(&golden.hypotheses, &golden.references).unwrap();
    let expected = &golden.scores[modules];
    for (place, (score, expected)) in scores.segments.iter().zip(&expected.segments).enumerate() {
        let [hypothesis, references] =
            [format!("{:?}", golden.hypotheses[place]), format!("{:?}", golden.references[place])];
        let is_near = (score - expected).abs() < 1e-12;
        assert!(is_near, "{modules}: {hypothesis} against {references}: {score}, not {expected}");
    }
    assert_near(scores.corpus, expected.corpus);
}

#[test]
fn scores_of_exact_and_stem_equal_those_of_the_java_program() {
    let golden = golden();
    let function_words = golden.function_words.iter().cloned().collect();
    let data = MeteorData { function_words, ..data("", "") }.without_synonyms();
    assert_scores_equal(&data, &golden, "exact stem");
}

/// The folder with METEOR's data: `MM_METEOR`, or `data/coco-captions` of the workspace.
fn installed() -> Option<MeteorData> {
    let path = std::env::var_os("MM_METEOR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/coco-captions"),
        PathBuf::from,
    );
    match MeteorData::open(&path) {
        Ok(data) => Some(data),
        Err(error) => {
            eprintln!("skipped: {error}; set MM_METEOR to this folder");
            None
        }
    }
}

#[test]
fn scores_with_the_data_of_meteor_equal_those_of_the_java_program() {
    let Some(data) = installed() else { return };
    let golden = golden();
    assert_scores_equal(&data, &golden, "exact stem synonym paraphrase");
    let data = data.without_paraphrases();
    assert_scores_equal(&data, &golden, "exact stem synonym");
    assert_scores_equal(&data.without_synonyms(), &golden, "exact stem");
}
