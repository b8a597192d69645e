//! `mm eval caption` on files of captions.

use crate::common::{failure, success};
use serde_json::{Value, json};
use std::path::Path;

/// Writes `value` as the file `name` of `folder` and gives its path.
fn write(folder: &Path, name: &str, value: &Value) -> String {
    let file = folder.join(name);
    std::fs::write(&file, value.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn references() -> Value {
    json!({ "7": ["a dog on a bench", "a brown dog sits"], "12": ["two cats", "cats on a couch"] })
}

#[test]
fn captions_are_measured_with_chair_and_for_each_image() {
    let folder = tempfile::tempdir().unwrap();
    let refs = write(folder.path(), "refs.json", &references());
    let hypotheses = json!([{ "image_id": 7, "caption": "a dog on a bench" },
                            { "image_id": 12, "caption": "a cat and a dog on a bed" }]);
    let hyps = write(folder.path(), "hyps.json", &hypotheses);
    // A bed is in image 12, although no reference names it; a dog is not.
    let instances = json!({
        "images": [{ "id": 7 }, { "id": 12 }],
        "categories": [{ "id": 65, "name": "bed" }],
        "annotations": [{ "image_id": 12, "category_id": 65 }],
    });
    let instances = write(folder.path(), "instances.json", &instances);
    let rows = folder.path().join("rows.jsonl");
    let arguments = ["eval", "caption", "--refs", &refs, "--hyps", &hyps, "--json"];
    let more = ["--instances", &instances, "--per-image", rows.to_str().unwrap()];
    let report: Value = serde_json::from_str(&success(&[&arguments[..], &more].concat())).unwrap();
    assert_eq!((&report["images"], &report["references"]), (&json!(2), &json!(4)));
    let scores = &report["scores"];
    assert_eq!((scores["chair_s"].as_f64(), scores["chair_i"].as_f64()), (Some(0.5), Some(0.2)));
    assert!(scores["rouge_l"].as_f64().unwrap() > 0.5);
    let rows = std::fs::read_to_string(rows).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // In the order of their names.
    assert_eq!((&rows[1]["image_id"], &rows[1]["rouge_l"]), (&json!("7"), &json!(1.0)));
    assert_eq!((&rows[0]["chair_s"], &rows[1]["chair_s"]), (&json!(1.0), &json!(0.0)));
}

#[test]
fn files_that_do_not_belong_together_are_refused_with_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let refs = write(folder.path(), "refs.json", &references());
    let hyps = |value: Value| write(folder.path(), "hyps.json", &value);
    let refused = |hyps: &str| failure(&["eval", "caption", "--refs", &refs, "--hyps", hyps], 1);
    assert!(refused(&hyps(json!({ "7": "a dog", "12": "a cat", "99": "a bird" }))).contains("99"));
    assert!(refused(&hyps(json!({ "7": "a dog" }))).contains("12"));
    let twice = json!([{ "image_id": 7, "caption": "a" }, { "image_id": 7, "caption": "b" }]);
    assert!(refused(&hyps(twice)).contains('7'));
    assert!(refused("no/such/file.json").contains("no/such/file.json"));
    let named = write(folder.path(), "named.json", &json!({ "a": ["a dog"], "b": ["a cat"] }));
    let hyps = hyps(json!({ "a": "a dog", "b": "a cat" }));
    let instances =
        write(folder.path(), "instances.json", &json!({ "images": [], "categories": [], "annotations": [] }));
    let arguments = ["eval", "caption", "--refs", &named, "--hyps", &hyps, "--instances", &instances];
    assert!(failure(&arguments, 1).contains("\"a\" is none"));
}
