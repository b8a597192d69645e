//! ChartQA: JSON lists of questions about charts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::asked::{Asked, AskedDataset, AskedList, text_or_number};
use crate::sources::json_file::{JsonFile, entry};
use crate::{Fault, Question, Result};

/// Questions as [ChartQA](https://github.com/vis-nlp/ChartQA) publishes them (Masry et al. 2022,
/// <https://arxiv.org/abs/2203.10244>): `train_human.json`, `train_augmented.json` and others.
///
/// A sample is a question. The files have no ids: its key and [`Question::id`] are its place in the file,
/// from 0. The group is the chart. [`Question::question_type`] is `human` or `augmented`, from the name of
/// the file: results are reported for both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChartQaConfig {
    /// The JSON file of questions.
    pub path: PathBuf,
    /// The folder of the charts; by default `png` beside the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Entry {
    imgname: String,
    query: String,
    #[serde(deserialize_with = "text_or_number")]
    label: String,
}

/// Opens the file. An invalid question is a bad sample in its place.
pub(crate) fn open(config: &ChartQaConfig) -> Result<AskedDataset> {
    let json = JsonFile::read(&config.path)?;
    let rows: Vec<&RawValue> = json.parse("ChartQA: a list of questions")?;
    let name = config.path.file_stem().unwrap_or_default().to_string_lossy();
    let origin = ["human", "augmented"].into_iter().find(|origin| name.contains(origin));
    let mut list = AskedList::default();
    for (number, &raw) in rows.iter().enumerate() {
        let asked = entry::<Entry>(raw).map(|entry| asked(entry, number as u64, origin));
        list.add(Fault::Json, &format!("row {number}"), asked);
    }
    let beside = || config.path.parent().unwrap_or(Path::new("")).join("png");
    let root = config.images_root.clone().unwrap_or_else(beside);
    list.open(&config.path, Some(&root))
}

fn asked(Entry { imgname, query, label }: Entry, id: u64, origin: Option<&str>) -> Asked {
    let question = Question {
        id,
        text: query,
        answers: vec![label],
        question_type: origin.map(str::to_owned),
        ..Question::default()
    };
    Asked { group: Some(imgname.clone()), ..Asked::one(id.to_string(), imgname, question) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn open_rows(rows: &str) -> Result<AskedDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test_human.json");
        std::fs::write(&path, format!("[{rows}]")).unwrap();
        open(&ChartQaConfig { path, images_root: None })
    }

    #[test]
    fn a_row_is_a_question_about_a_chart() {
        let source = open_rows(
            r#"{"imgname": "41699051005347.png", "query": "How many food items are shown?", "label": "14"},
{"imgname": "41699051005347.png", "query": "What is the difference?", "label": 0.57}"#,
        )
        .unwrap();
        let (question, image) = one(&source, 1);
        assert!(image.ends_with("png/41699051005347.png"), "{image}");
        assert_eq!((question.id, question.answers.join("|")), (1, "0.57".to_owned()));
        assert_eq!(question.question_type.as_deref(), Some("human"));
        assert_eq!(source.sample(0).unwrap().group.as_deref(), Some("41699051005347.png"));
    }

    #[test]
    fn invalid_rows_are_counted() {
        let source = open_rows(
            r#"{"imgname": "a.png", "query": "How many?", "label": "14"},
{"imgname": "a.png", "query": " ", "label": "14"},
{"imgname": "a.png", "query": "How many?", "label": ["14"]},
{"imgname": "a.png", "query": "How many?"}"#,
        )
        .unwrap();
        let expected = [
            "row 1: question 1 is empty",
            "row 2: [\"14\"] is neither a text nor a number",
            "row 3: missing field `label`",
        ];
        assert_bad(&source, 1, &expected);
        let error = open_rows("").err().unwrap().to_string();
        assert!(error.contains("the file lists none"), "{error}");
    }
}
