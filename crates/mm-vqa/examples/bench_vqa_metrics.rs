//! Measures VQA v2's accuracy on a generated set of the size of val2014; prints seconds as JSON.
//!
//!     bench_vqa_metrics make FOLDER 214354      # writes questions.json, annotations.json, results.json
//!     bench_vqa_metrics score FOLDER [SCORES]   # with SCORES of the peer: the largest difference
//!
//! `xtask/peers/vqa_metrics.py` measures the official program on the same folder.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mm_vqa::metrics::vqa::{Protocol, VqaAccuracy, VqaSet};
use mm_vqa::metrics::{OnProblem, read_predictions};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: bench_vqa_metrics make FOLDER QUESTIONS | score FOLDER [SCORES]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["make", folder, questions] => make(Path::new(folder), questions),
        ["score", folder] => score(Path::new(folder), None),
        ["score", folder, scores] => score(Path::new(folder), Some(Path::new(scores))),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Answers of VQA v2's kinds, with the marks and words that the rules change.
const ANSWERS: [&str; 24] = [
    "yes",
    "no",
    "2",
    "two",
    "white",
    "black and white",
    "1",
    "on the table",
    "left",
    "tennis",
    "black-and-white",
    "10:30",
    "none",
    "the dog",
    "nike",
    "yes, it is",
    "1,000",
    "don't know",
    "dont know",
    "t-shirt",
    "St. Louis",
    "baseball bat",
    "a man",
    "blue/green",
];
const TYPES: [(&str, &str); 4] = [
    ("is the", "yes/no"),
    ("how many", "number"),
    ("what color is the", "other"),
    ("none of the above", "other"),
];
const CONFIDENCES: [&str; 3] = ["yes", "maybe", "no"];

fn make(folder: &Path, questions: &str) -> Result<()> {
    let questions: u64 = questions.parse()?;
    std::fs::create_dir_all(folder)?;
    let create = |name: &str| File::create(folder.join(name)).map(BufWriter::new);
    let (mut asked, mut annotated, mut results) =
        (create("questions.json")?, create("annotations.json")?, create("results.json")?);
    let info = r#"{"info": {}, "license": {}, "task_type": "Open-Ended", "data_type": "mscoco",
"data_subtype": "val2014", "#;
    write!(asked, "{info}\"questions\": [")?;
    write!(annotated, "{info}\"annotations\": [")?;
    write!(results, "[")?;
    // A linear congruential generator: the same files everywhere.
    let mut state = 23_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for number in 0..questions {
        let comma = if number == 0 { "" } else { ", " };
        let (id, image) = (1000 * number + 1, number / 4);
        let (question_type, answer_type) = TYPES[random(TYPES.len())];
        let pool =
            [random(ANSWERS.len()), random(ANSWERS.len()), random(ANSWERS.len())].map(|at| ANSWERS[at]);
        let chosen = |random: &mut dyn FnMut(usize) -> usize| pool[[0, 0, 0, 1, 1, 2][random(6)]];
        write!(
            asked,
            r#"{comma}{{"image_id": {image}, "question": "{question_type} it?", "question_id": {id}}}"#
        )?;
        write!(
            annotated,
            r#"{comma}{{"question_type": "{question_type}", "multiple_choice_answer": "{}", "answers": ["#,
            pool[0]
        )?;
        for annotator in 1..=10 {
            let comma = if annotator == 1 { "" } else { ", " };
            let (answer, sure) = (chosen(&mut random), CONFIDENCES[random(3)]);
            write!(
                annotated,
                r#"{comma}{{"answer": "{answer}", "answer_confidence": "{sure}", "answer_id": {annotator}}}"#
            )?;
        }
        write!(
            annotated,
            r#"], "image_id": {image}, "answer_type": "{answer_type}", "question_id": {id}}}"#
        )?;
        let answer = chosen(&mut random);
        write!(results, r#"{comma}{{"question_id": {id}, "answer": "{answer}"}}"#)?;
    }
    write!(asked, "]}}")?;
    write!(annotated, "]}}")?;
    write!(results, "]")?;
    [asked, annotated, results].iter_mut().try_for_each(Write::flush)?;
    Ok(())
}

fn score(folder: &Path, scores: Option<&Path>) -> Result<()> {
    let path = |name: &str| folder.join(name);
    let start = Instant::now();
    let (set, predictions) = rayon::join(
        || VqaSet::read(&path("annotations.json"), Some(&path("questions.json"))),
        || read_predictions(&path("results.json")),
    );
    let (set, predictions) = (set?, predictions?);
    let read = start.elapsed().as_secs_f64();
    let found = VqaAccuracy::new(Protocol::Official, set, &predictions, OnProblem::Refuse)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut difference = None;
    if let Some(scores) = scores {
        let expected: Vec<f64> = serde_json::from_slice(&std::fs::read(scores)?)?;
        if expected.len() != found.per_question.len() {
            return Err(format!("{} scores, not {}", expected.len(), found.per_question.len()).into());
        }
        let pairs = found.per_question.iter().zip(&expected);
        difference = Some(pairs.map(|(found, expected)| (found.score - expected).abs()).fold(0.0, f64::max));
    }
    let line = serde_json::json!({
        "questions": found.per_question.len(),
        "read_seconds": read,
        "score_seconds": seconds - read,
        "seconds": seconds,
        "accuracy": found.overall.percent,
        "largest_difference": difference,
    });
    println!("{line}");
    Ok(())
}
