//! DocVQA: a JSON file of questions about scanned pages.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::asked::{Asked, AskedDataset, AskedList, tags, text_or_number};
use crate::sources::json_file::{JsonFile, entry};
use crate::{Fault, Question, Result};

/// Questions as [DocVQA](https://www.docvqa.org) publishes them (Mathew et al. 2021,
/// <https://arxiv.org/abs/2007.00398>): `train_v1.0.json`, `val_v1.0.json`, `test_v1.0.json` and later forms.
///
/// A sample is a question. Its key and [`Question::id`] are its `questionId`; the group is the document that
/// the page is of. [`Question::question_type`] has the `question_types` (`handwritten, form`); the tag `page`
/// is the number of the page in its document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocVqaConfig {
    /// The JSON file of questions.
    pub path: PathBuf,
    /// The folder that `documents/` is in; by default the folder of the questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    question_id: u64,
    question: String,
    image: String,
    /// Absent in the test questions, like the types.
    #[serde(default)]
    answers: Vec<String>,
    #[serde(default, rename = "question_types")]
    types: Option<Vec<String>>,
    #[serde(default, rename = "ucsf_document_id")]
    document: Option<String>,
    #[serde(default, rename = "ucsf_document_page_no")]
    page: Option<Page>,
}

/// The number of a page: some files write it as a text.
#[derive(Deserialize)]
struct Page(#[serde(deserialize_with = "text_or_number")] String);

/// Opens the file. An invalid question is a bad sample in its place.
pub(crate) fn open(config: &DocVqaConfig) -> Result<AskedDataset> {
    let json = JsonFile::read(&config.path)?;
    let file: File = json.parse("DocVQA questions: an object with `data`")?;
    let mut list = AskedList::default();
    for (number, &raw) in file.data.iter().enumerate() {
        list.add(Fault::Json, &format!("data[{number}]"), entry(raw).map(asked));
    }
    list.open(&config.path, config.images_root.as_ref())
}

fn asked(entry: Entry) -> Asked {
    let Entry { question_id: id, question: text, image, answers, types, document, page } = entry;
    let question = Question {
        id,
        text,
        answers,
        question_type: types.map(|types| types.join(", ")).filter(|types| !types.is_empty()),
        tags: tags([("page", page.map(|page| page.0))]),
        ..Question::default()
    };
    Asked { group: document, ..Asked::one(id.to_string(), image, question) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn open_questions(questions: &str) -> Result<AskedDataset> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head = r#""dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val""#;
        std::fs::write(file.path(), format!(r#"{{{head}, "data": [{questions}]}}"#)).unwrap();
        open(&DocVqaConfig { path: file.path().to_owned(), images_root: Some("spdocvqa".into()) })
    }

    #[test]
    fn a_question_has_its_answers_types_and_document() {
        let source = open_questions(
            r#"{"questionId": 49153, "question": "What is the ‘actual’ value per 1000, during the year 1975?",
"question_types": ["figure/diagram", "form"], "image": "documents/pybv0228_81.png", "docId": 14465,
"ucsf_document_id": "pybv0228", "ucsf_document_page_no": "81", "answers": ["0.28", ".28"],
"data_split": "val"}"#,
        )
        .unwrap();
        let (question, image) = one(&source, 0);
        assert_eq!(image, "spdocvqa/documents/pybv0228_81.png");
        assert_eq!((question.id, question.answers.join("|")), (49153, "0.28|.28".to_owned()));
        assert_eq!(question.question_type.as_deref(), Some("figure/diagram, form"));
        assert_eq!(question.tags["page"], "81");
        let sample = source.sample(0).unwrap();
        assert_eq!((sample.key.as_str(), sample.group.as_deref()), ("49153", Some("pybv0228")));
    }

    #[test]
    fn test_questions_have_no_answers_and_invalid_ones_are_counted() {
        let source = open_questions(
            r#"{"questionId": 1, "question": "When?", "image": "documents/a_1.png", "docId": 1},
{"questionId": 1, "question": "Who?", "image": "documents/a_1.png"},
{"questionId": 2, "question": "Who?", "image": ""},
{"questionId": 3, "question": "Who?", "image": "documents/a_1.png", "answers": [""]},
{"question": "Who?", "image": "documents/a_1.png"}"#,
        )
        .unwrap();
        let (question, _) = one(&source, 0);
        assert_eq!((question.answers.len(), question.question_type), (0, None));
        let expected = [
            "data[1]: an earlier question has the same id 1",
            "data[2]: question 2 is of no image",
            "data[3]: the answer of question 3 is empty",
            "data[4]: missing field `questionId`",
        ];
        assert_bad(&source, 1, &expected);
    }
}
