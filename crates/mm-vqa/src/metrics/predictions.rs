//! Files of predicted answers.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::id::Id;
use super::json;

/// A predicted answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The question's id: `question_id` in VQA v2, `questionId` in GQA, `qid` in medical sets.
    #[serde(alias = "questionId", alias = "question_index", alias = "qid", alias = "id")]
    pub question_id: Id,
    /// The answer: `answer` in VQA v2, `prediction` in GQA, `text` in files of LLaVA's scripts.
    #[serde(alias = "prediction", alias = "text")]
    pub answer: String,
    /// The model's confidence in the answer, for calibration; the challenge's form has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// Reads predictions in the form of a challenge: `[{"question_id": 1, "answer": "yes"}]`, or in a `.jsonl`
/// file one object a line. Other keys are ignored.
///
/// # Errors
/// The file cannot be read or has another form, or an answer is no text.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>> {
    let text = mm_data::text::read(path)?;
    json::list(path, &text, "{\"question_id\": ..., \"answer\": \"...\"}")
}

/// Writes predictions as VQA v2's challenge reads them: `[{"question_id": 1, "answer": "yes"}]`.
///
/// # Errors
/// The file cannot be written.
pub fn write_vqa_results(path: &Path, predictions: &[Prediction]) -> Result<()> {
    write(path, "question_id", "answer", predictions, |id| serde_json::to_value(id))
}

/// Writes predictions as GQA's evaluation reads them: `[{"questionId": "1", "prediction": "yes"}]`.
///
/// # Errors
/// The file cannot be written.
pub fn write_gqa_results(path: &Path, predictions: &[Prediction]) -> Result<()> {
    write(path, "questionId", "prediction", predictions, |id| serde_json::to_value(id.to_string()))
}

fn write(
    path: &Path,
    id_key: &str,
    answer_key: &str,
    predictions: &[Prediction],
    id: fn(&Id) -> serde_json::Result<serde_json::Value>,
) -> Result<()> {
    let lines = || -> std::io::Result<Vec<u8>> {
        let mut out = b"[".to_vec();
        for (number, prediction) in predictions.iter().enumerate() {
            out.extend_from_slice(if number == 0 { b"\n" } else { b",\n" });
            let answer = serde_json::to_string(&prediction.answer)?;
            write!(out, "{{\"{id_key}\": {}, \"{answer_key}\": {answer}}}", id(&prediction.question_id)?)?;
        }
        out.extend_from_slice(b"\n]\n");
        Ok(out)
    };
    let written = lines().and_then(|lines| std::fs::write(path, lines));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn every_form_of_predictions_is_read() {
        let vqa = r#"[{"question_id": 1, "answer": "yes"}, {"question_id": 2, "answer": "a \"b\""}]"#;
        let gqa =
            r#"[{"questionId": "1", "prediction": "yes"}, {"questionId": "2", "prediction": "a \"b\""}]"#;
        let lines = "{\"question_id\": 1, \"text\": \"yes\", \"model\": 3}\n\n{\"qid\": 2, \"answer\": \
                     \"a \\\"b\\\"\"}\n";
        let read = |name, text| read_predictions(&written(name, text).1).unwrap_or_default();
        let (_folder, path) = written("r.json", vqa);
        let expected = read_predictions(&path).unwrap();
        assert_eq!(expected[1].answer, "a \"b\"");
        let (_folder, path) = written("r.json", gqa);
        assert_eq!(read_predictions(&path).unwrap(), expected);
        let (_folder, path) = written("r.jsonl", lines);
        assert_eq!(read_predictions(&path).unwrap(), expected);
        assert!(read("gone.json", "[]").is_empty());
    }

    #[test]
    fn written_results_have_the_form_of_the_challenge() {
        let (_folder, path) = written("r.json", "");
        let prediction = |id: &str, answer: &str| Prediction {
            question_id: id.into(),
            answer: answer.into(),
            confidence: Some(0.5),
        };
        let predictions = [prediction("262148000", "é\n"), prediction("x", "")];
        write_vqa_results(&path, &predictions).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "[\n{\"question_id\": 262148000, \"answer\": \"é\\n\"},\n{\"question_id\": \"x\", \"answer\": \
             \"\"}\n]\n"
        );
        write_gqa_results(&path, &predictions[..1]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "[\n{\"questionId\": \"262148000\", \"prediction\": \"é\\n\"}\n]\n");
    }

    #[test]
    fn bad_predictions_are_errors_that_name_the_entry() {
        for (name, text, expected) in [
            ("r.json", r#"[{"question_id": 1, "answer": "a"}, {"question_id": 2}]"#, "[1]: missing field"),
            ("r.json", r#"[{"question_id": 1, "answer": 3}]"#, "[0]: invalid type: integer `3`"),
            ("r.json", r#"{"1": "a"}"#, "expected a list of {\"question_id\""),
            ("r.jsonl", "{\"question_id\": 1, \"answer\": \"a\"}\n{}", "line 2: missing field"),
        ] {
            let (_folder, path) = written(name, text);
            let error = read_predictions(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        assert!(read_predictions(Path::new("none.json")).is_err());
    }
}
