//! GQA: a JSON object of questions about photographs, by id.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sources::asked::{Asked, AskedDataset, AskedList, tags};
use crate::sources::json_file::{JsonFile, Members, entry};
use crate::{Fault, Question, Result};

/// Questions as [GQA](https://cs.stanford.edu/people/dorarad/gqa/) publishes them (Hudson and Manning 2019,
/// <https://arxiv.org/abs/1902.09506>): `val_balanced_questions.json` and others.
///
/// A sample is a question. The key is its id as the file writes it, with leading zeros; [`Question::id`] is
/// its place in the file, from 0. [`Question::kind`] is `open` or `binary` as in the official evaluation,
/// [`Question::question_type`] the structural type (`verify`, `query`, `choose`, `logical`, `compare`);
/// the semantic and the detailed type are the tags `semantic` and `detailed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GqaConfig {
    /// The JSON file of questions.
    pub path: PathBuf,
    /// The folder of the images, which are named `IMAGE_ID.jpg`; by default the folder of the questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    image_id: String,
    question: String,
    /// Absent in the test and challenge questions.
    answer: Option<String>,
    types: Option<Types>,
}

#[derive(Deserialize)]
struct Types {
    structural: Option<String>,
    semantic: Option<String>,
    detailed: Option<String>,
}

/// Opens the file. An invalid question is a bad sample in its place.
pub(crate) fn open(config: &GqaConfig) -> Result<AskedDataset> {
    let json = JsonFile::read(&config.path)?;
    let Members(members) = json.parse("GQA questions: an object of questions by id")?;
    let mut list = AskedList::default();
    for (number, (key, raw)) in (0..).zip(members) {
        let asked = entry::<Entry>(raw).map(|entry| asked(number, key.clone(), entry));
        list.add(Fault::Json, &format!("question {key}"), asked);
    }
    list.open(&config.path, config.images_root.as_ref())
}

fn asked(id: u64, key: String, entry: Entry) -> Asked {
    let Entry { image_id, question: text, answer, types } = entry;
    let mut question = Question { id, text, answers: answer.into_iter().collect(), ..Question::default() };
    if let Some(Types { structural, semantic, detailed }) = types {
        let kind = |structural: &String| if structural == "query" { "open" } else { "binary" };
        question.kind = structural.as_ref().map(|structural| kind(structural).to_owned());
        question.question_type = structural;
        question.tags = tags([("semantic", semantic), ("detailed", detailed)]);
    }
    let image = if image_id.is_empty() { image_id } else { format!("{image_id}.jpg") };
    Asked::one(key, image, question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn open_text(text: &str) -> Result<AskedDataset> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        open(&GqaConfig { path: file.path().to_owned(), images_root: Some("gqa".into()) })
    }

    #[test]
    fn ids_keep_their_zeros_and_types_are_kept() {
        let source = open_text(
            r#"{"07333408": {"semantic": [{"operation": "select", "dependencies": [],
"argument": "wall (722332)"}], "entailed": ["02930152"], "equivalent": ["07333408"],
"question": "What is on the white wall?", "imageId": "2375429", "isBalanced": true,
"groups": {"global": "", "local": "14-wall_on,s"},
"answer": "pipe", "semanticStr": "select: wall (722332)", "annotations": {"answer": {}, "question": {},
"fullAnswer": {}}, "types": {"detailed": "relS", "semantic": "rel", "structural": "query"},
"fullAnswer": "The pipe is on the wall."},
"02930152": {"question": "Is the sky dark?", "imageId": "n57721", "answer": "yes",
"types": {"detailed": "verifyAttrC", "semantic": "global", "structural": "verify"}},
"201307251": {"question": "Who?", "imageId": "1", "isBalanced": false}}"#,
        )
        .unwrap();
        assert_eq!((source.len(), source.sample(0).unwrap().key), (3, "07333408".to_owned()));
        let (question, image) = one(&source, 0);
        assert_eq!(
            (question.text.as_str(), image.as_str()),
            ("What is on the white wall?", "gqa/2375429.jpg")
        );
        assert_eq!((question.id, &question.answers[..]), (0, &["pipe".to_owned()][..]));
        assert_eq!(
            (question.kind.as_deref(), question.question_type.as_deref()),
            (Some("open"), Some("query"))
        );
        assert_eq!((question.tags["semantic"].as_str(), question.tags["detailed"].as_str()), ("rel", "relS"));
        assert_eq!(source.sample(1).unwrap().key, "02930152");
        assert_eq!(one(&source, 1).0.kind.as_deref(), Some("binary"));
        assert!(one(&source, 2).0.answers.is_empty());
    }

    #[test]
    fn invalid_questions_are_counted_in_their_place() {
        let source = open_text(
            r#"{"1": {"question": "What?", "imageId": "5"}, "2": {"question": " ", "imageId": "5"},
"1": {"question": "Again?", "imageId": "5"}, "3": {"question": "What?"},
"4": {"question": "What?", "imageId": ""}, "5": {"question": "What?", "imageId": "5", "answer": ""}}"#,
        )
        .unwrap();
        let expected = [
            "question 2: question 2 is empty",
            "question 1: an earlier question has the same id 1",
            "question 3: missing field `imageId`",
            "question 4: question 4 is of no image",
            "question 5: the answer of question 5 is empty",
        ];
        assert_bad(&source, 1, &expected);
        let error = open_text("[1]").err().unwrap().to_string();
        assert!(error.contains("expected GQA questions: an object of questions by id"), "{error}");
        assert!(open_text("{}").err().unwrap().to_string().contains("the file lists none"));
    }
}
