//! Answers to questions about images by `mm vqa`.

use crate::common::{failure, mm, success};
use crate::vqa_training::{MCAN, golden, write_config};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn photo(name: &str) -> String {
    format!("{}/../../data/goldens/images/photos/{name}.png", env!("CARGO_MANIFEST_DIR"))
}

/// Trains a model for a few steps and gives its folder.
fn trained(folder: &Path) -> String {
    let config = write_config(folder, MCAN, "");
    success(&["train", config.to_str().unwrap(), "--set", "train.steps=6"]);
    folder.join("small/model").to_str().unwrap().to_owned()
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn questions_about_an_image_are_answered_with_probabilities_maps_and_the_right_to_abstain() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path());
    let chelsea = photo("chelsea");
    let (what, many) = ("What colour is the star?", "How many shapes are there?");
    let printed = success(&["vqa", "--model", &model, "--top", "2", &chelsea, what, many]);
    assert_eq!(printed.lines().count(), 2 + 4, "{printed}");
    assert!(printed.contains(what) && printed.contains('%'), "{printed}");

    let answers = lines(&success(&["vqa", "--model", &model, "--json", &chelsea, what, many]));
    assert_eq!(answers.len(), 2);
    assert_eq!((&answers[1]["question_id"], &answers[1]["question"]), (&2.into(), &many.into()));
    let probability = |place: usize| answers[0]["answers"][place]["probability"].as_f64().unwrap();
    assert_eq!(answers[0]["answers"].as_array().unwrap().len(), 5);
    assert!(probability(0) >= probability(1) && probability(4) >= 0.0);
    assert_eq!(answers[0]["answer"], answers[0]["answers"][0]["answer"]);
    let unsure = lines(&success(&["vqa", "--model", &model, "--json", "--abstain", "1", &chelsea, what]));
    assert_eq!(unsure[0]["answer"], Value::Null);

    let strip = folder.path().join("maps.png");
    success(&["vqa", "--model", &model, "--attention", strip.to_str().unwrap(), &chelsea, what]);
    let strip = mm_image::decode(&fs::read(strip).unwrap(), [255; 3]).unwrap();
    // The image, a map for the block and one for the reduction, and all rolled out.
    assert_eq!(strip.dimensions(), (4 * 228 - 4, 224 + 24));
}

#[test]
fn a_file_of_questions_is_answered_as_its_lines_alone_and_bad_lines_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path());
    let file = folder.path().join("questions.jsonl");
    fs::copy(photo("chelsea"), folder.path().join("cat.png")).unwrap();
    fs::copy(photo("coffee"), folder.path().join("coffee.png")).unwrap();
    let questions = ["What colour is the star?", "Is there a red circle or a large heart to the left of it?"];
    let line =
        |image: &str, question: &str| format!("{{\"image\": \"{image}\", \"question\": \"{question}\"}}\n");
    let text = line("cat.png", questions[0])
        + &line("coffee.png", questions[1])
        + &line("none.png", "Why?")
        + "{}\n";
    fs::write(&file, text).unwrap();
    let arguments = ["vqa", "--model", &model, "--json", "--questions", file.to_str().unwrap()];
    let output = mm(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("2 of 4 images cannot be read") && error.contains("questions.jsonl:4"), "{error}");
    let answers = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(answers.len(), 2);
    for (answer, (image, question)) in
        answers.iter().zip([("chelsea", questions[0]), ("coffee", questions[1])])
    {
        let alone = lines(&success(&["vqa", "--model", &model, "--json", &photo(image), question]));
        let probability = |answer: &Value| answer["answers"][0]["probability"].as_f64().unwrap();
        assert_eq!(answer["answer"], alone[0]["answer"]);
        assert!((probability(answer) - probability(&alone[0])).abs() < 1e-5);
    }
}

#[test]
fn checkpoints_of_transformers_generate_rank_or_classify_and_show_where_they_look() {
    let folder = tempfile::tempdir().unwrap();
    let (chelsea, question) = (photo("chelsea"), "is it a cat?");
    let answers = |model: &str, more: &[&str]| {
        let arguments = ["vqa", "--model", &golden(model), "--json", &chelsea, question];
        let mut answered = lines(&success(&[&arguments[..], more].concat()));
        answered.remove(0)["answers"].as_array().unwrap().clone()
    };
    assert_eq!(answers("blip", &[]).len(), 1); // generated, greedily
    assert_eq!(answers("vilt", &["--top", "3"]).len(), 3);
    let list = folder.path().join("answers.txt");
    fs::write(&list, "yes\nno\n\nred\n").unwrap();
    let ranked = answers("blip", &["--answers", list.to_str().unwrap()]);
    let sum: f64 = ranked.iter().map(|answer| answer["probability"].as_f64().unwrap()).sum();
    assert!(ranked.len() == 3 && (sum - 1.0).abs() < 1e-5, "{ranked:?}");
    for model in ["blip", "vilt"] {
        let strip = folder.path().join(format!("{model}.png"));
        success(&[
            "vqa",
            "--model",
            &golden(model),
            "--attention",
            strip.to_str().unwrap(),
            &chelsea,
            question,
        ]);
        assert!(mm_image::decode(&fs::read(strip).unwrap(), [255; 3]).unwrap().width() > 224);
    }
    let refused = failure(&["vqa", "--model", &golden("vilt"), "--generate", &chelsea, question], 1);
    assert!(refused.contains("neither generates nor ranks"), "{refused}");
}

#[test]
fn a_model_is_described_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path());
    let printed = success(&["inspect", &model]);
    assert!(printed.contains("MCAN") && printed.contains("answers"), "{printed}");
    let half = folder.path().join("half");
    success(&["convert", "--from", &model, "--to", half.to_str().unwrap(), "--dtype", "bf16"]);
    let chelsea = photo("chelsea");
    let answer = |model: &str| {
        lines(&success(&["vqa", "--model", model, "--json", &chelsea, "How many shapes are there?"]))
            .remove(0)
    };
    let [whole, half] = [answer(&model), answer(half.to_str().unwrap())];
    let probability = |answer: &Value| answer["answers"][0]["probability"].as_f64().unwrap();
    assert!((probability(&whole) - probability(&half)).abs() < 0.05, "{whole} {half}");
    let refused = failure(&["convert", "--from", &model, "--to", "x", "--format", "openai"], 1);
    assert!(refused.contains("has --format hf alone"), "{refused}");
}

#[test]
fn wrong_arguments_are_refused_with_what_to_do() {
    let (chelsea, model) = (photo("chelsea"), "nowhere");
    let failed = |arguments: &[&str], code| failure(&[&["vqa", "--model", model], arguments].concat(), code);
    assert!(failed(&[&chelsea, " "], 1).contains("the question is empty"));
    assert!(failed(&[&chelsea, "Why?", "--abstain", "2"], 1).contains("from 0 to 1"));
    assert!(failed(&[&chelsea, "Why?", "How?", "--attention", "a.png"], 1).contains("a single QUESTION"));
    assert!(failed(&[&chelsea, "Why?"], 1).contains("nowhere"));
    assert!(failed(&[&chelsea], 2).contains("required arguments"));
}
