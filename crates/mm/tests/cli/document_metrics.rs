//! Answers about documents and charts measured by `mm eval vqa`.

use crate::common::{failure, success};
use serde_json::Value;
use std::fs;

#[test]
fn documents_are_measured_by_anls_and_charts_by_relaxed_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let questions = write(
        "val.json",
        r#"{"data": [{"questionId": 7, "answers": ["$12.50"], "question_types": ["table/list"]},
            {"questionId": 8, "answers": ["ITC"]}]}"#,
    );
    let results =
        write("results.json", r#"[{"questionId": 7, "answer": "$12.51"}, {"questionId": 8, "answer": "x"}]"#);
    let arguments = ["eval", "vqa", "--set", "docvqa", "--questions", &questions, "--results", &results];
    let printed = success(&arguments);
    for expected in ["ANLS (RRC)", "ANLS (package anls)", "exact", "ANLS (RRC): table/list"] {
        assert!(printed.contains(expected), "{printed}");
    }
    let json: Value = serde_json::from_str(&success(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!((&json["set"], &json["anls_rrc"]["percent"]), (&"docvqa".into(), &41.67.into()));

    let charts =
        write("test.json", r#"[{"label": "100", "imgname": "a.png"}, {"label": "red", "imgname": "b.png"}]"#);
    let results = write(
        "answers.jsonl",
        "{\"question_id\": 0, \"answer\": \"96\"}\n{\"question_id\": 1, \"answer\": \"blue\"}\n",
    );
    let arguments = ["eval", "vqa", "--set", "chartqa", "--questions", &charts, "--results", &results];
    let printed = success(&arguments);
    assert!(printed.contains("relaxed accuracy") && printed.contains("50.00"), "{printed}");
    let json: Value = serde_json::from_str(&success(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!((&json["set"], &json["relaxed"]["percent"]), (&"chartqa".into(), &50.0.into()));
    assert!(failure(&[&arguments[..], &["--protocol", "strict"]].concat(), 1).contains("does not apply"));
}
