//! CLEVR: a JSON file of questions about rendered scenes, each with its program.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::asked::{Asked, AskedDataset, AskedList, tags};
use crate::sources::json_file::{JsonFile, entry};
use crate::{Fault, Question, Result};

/// Questions as [CLEVR](https://cs.stanford.edu/people/jcjohns/clevr/) publishes them (Johnson et al. 2017,
/// <https://arxiv.org/abs/1612.06890>): `CLEVR_val_questions.json` and others.
///
/// A sample is a question. Its key and [`Question::id`] are its `question_index`.
/// [`Question::question_type`] is the last function of the program (`query_color`), [`Question::kind`] the
/// type that papers report for it: `count`, `exist`, `compare numbers`, `query attribute` or
/// `compare attribute`. The tag `family` is the `question_family_index`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClevrConfig {
    /// The JSON file of questions.
    pub path: PathBuf,
    /// The folder of the images, such as `images/val`; by default the folder of the questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    questions: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Entry {
    image_filename: String,
    question: String,
    question_index: u64,
    /// Absent in the test questions, like the program.
    answer: Option<String>,
    #[serde(default)]
    program: Vec<Step>,
    question_family_index: Option<u64>,
}

/// A step of a program.
#[derive(Deserialize)]
struct Step {
    /// The generator of CLEVR writes `type`, the published files have `function`.
    #[serde(alias = "type")]
    function: String,
}

/// Opens the file. An invalid question is a bad sample in its place.
pub(crate) fn open(config: &ClevrConfig) -> Result<AskedDataset> {
    let json = JsonFile::read(&config.path)?;
    let file: File = json.parse("CLEVR questions: an object with `questions`")?;
    let mut list = AskedList::default();
    for (number, &raw) in file.questions.iter().enumerate() {
        list.add(Fault::Json, &format!("questions[{number}]"), entry(raw).map(asked));
    }
    list.open(&config.path, config.images_root.as_ref())
}

fn asked(entry: Entry) -> Asked {
    let Entry { image_filename, question: text, question_index: id, answer, mut program, .. } = entry;
    let function = program.pop().map(|step| step.function);
    let question = Question {
        id,
        text,
        answers: answer.into_iter().collect(),
        kind: function.as_deref().and_then(kind).map(str::to_owned),
        question_type: function,
        tags: tags([("family", entry.question_family_index.map(|family| family.to_string()))]),
        ..Question::default()
    };
    Asked::one(id.to_string(), image_filename, question)
}

/// The type of a question by the last function of its program; `None` for an unknown function.
fn kind(function: &str) -> Option<&'static str> {
    match function {
        "count" => Some("count"),
        "exist" => Some("exist"),
        "equal_integer" | "less_than" | "greater_than" => Some("compare numbers"),
        _ if function.starts_with("query_") => Some("query attribute"),
        _ if function.starts_with("equal_") => Some("compare attribute"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn open_questions(questions: &str) -> Result<AskedDataset> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let info = r#""info": {"split": "val", "license": "Creative Commons Attribution (CC BY 4.0)"}"#;
        std::fs::write(file.path(), format!(r#"{{{info}, "questions": [{questions}]}}"#)).unwrap();
        open(&ClevrConfig { path: file.path().to_owned(), images_root: Some("images/val".into()) })
    }

    #[test]
    fn the_last_function_gives_the_type() {
        let scene = r#"{"inputs": [], "function": "scene", "value_inputs": []}"#;
        let question = |id: u32, function: &str| {
            format!(
                r#"{{"image_index": 0, "program": [{scene}, {{"inputs": [0], "function": "{function}",
"value_inputs": []}}], "question_index": {id}, "image_filename": "CLEVR_val_000000.png",
"question_family_index": 12, "split": "val", "answer": "no", "question": "Are there?"}}"#
            )
        };
        let functions =
            ["count", "exist", "less_than", "equal_integer", "query_color", "equal_shape", "unknown"];
        let questions: Vec<_> = (0..).zip(functions).map(|(id, function)| question(id, function)).collect();
        let source = open_questions(&questions.join(", ")).unwrap();
        let kinds: Vec<_> = (0..source.len()).map(|at| one(&source, at).0.kind.unwrap_or_default()).collect();
        let expected = [
            "count",
            "exist",
            "compare numbers",
            "compare numbers",
            "query attribute",
            "compare attribute",
            "",
        ];
        assert_eq!(kinds, expected);
        let (question, image) = one(&source, 4);
        assert_eq!((question.id, image.as_str()), (4, "images/val/CLEVR_val_000000.png"));
        assert_eq!(
            (question.question_type.as_deref(), question.tags["family"].as_str()),
            (Some("query_color"), "12")
        );
        assert_eq!(
            (question.answers.join("|"), source.sample(4).unwrap().key),
            ("no".to_owned(), "4".to_owned())
        );
    }

    #[test]
    fn test_questions_have_neither_answer_nor_type_and_invalid_ones_are_counted() {
        let source = open_questions(
            r#"{"image_index": 0, "split": "test", "image_filename": "CLEVR_test_000000.png",
"question_index": 0, "question": "Is there anything else?"},
{"image_filename": "a.png", "question_index": 0, "question": "Again?"},
{"image_filename": "a.png", "question_index": 1, "question": ""},
{"image_filename": "a.png", "question": "No id?"}"#,
        )
        .unwrap();
        let (question, _) = one(&source, 0);
        assert_eq!((question.answers.len(), question.kind, question.question_type), (0, None, None));
        let expected = [
            "questions[1]: an earlier question has the same id 0",
            "questions[2]: question 1 is empty",
            "questions[3]: missing field `question_index`",
        ];
        assert_bad(&source, 1, &expected);
    }
}
