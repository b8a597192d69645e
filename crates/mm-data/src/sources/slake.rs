//! SLAKE: a JSON list of questions about radiology images, in English and Chinese.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::asked::{Asked, AskedDataset, AskedList, tags, text_or_number};
use crate::sources::json_file::{JsonFile, entry};
use crate::{Fault, Question, Result};

/// Questions of SLAKE (Liu et al. 2021, <https://arxiv.org/abs/2102.09542>): `train.json`, `validate.json` or
/// `validation.json`, `test.json`.
///
/// A sample is a question. Its key and [`Question::id`] are its `qid`. [`Question::kind`] is `OPEN` or
/// `CLOSED`, [`Question::question_type`] the `content_type` (`Organ`, `Abnormality`). Tags are `modality`,
/// `location`, `base_type` and `language`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlakeConfig {
    /// The JSON file of a split.
    pub path: PathBuf,
    /// The folder of the images; by default `imgs` beside the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The language of the questions. Those of the other language are left out, and their number is in the
    /// name of the data set.
    #[serde(default)]
    pub lang: SlakeLanguage,
}

/// The language of the questions of SLAKE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlakeLanguage {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
    /// Both.
    All,
}

impl SlakeLanguage {
    /// The value of `q_lang`; `None` for any.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::En => Some("en"),
            Self::Zh => Some("zh"),
            Self::All => None,
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    qid: u64,
    img_name: String,
    question: String,
    #[serde(deserialize_with = "text_or_number")]
    answer: String,
    q_lang: String,
    location: Option<String>,
    modality: Option<String>,
    answer_type: Option<String>,
    base_type: Option<String>,
    content_type: Option<String>,
}

/// Opens the file. An invalid question is a bad sample in its place, whatever the language.
pub(crate) fn open(config: &SlakeConfig) -> Result<AskedDataset> {
    let json = JsonFile::read(&config.path)?;
    let rows: Vec<&RawValue> = json.parse("SLAKE: a list of questions")?;
    let mut list = AskedList::default();
    let mut left_out = 0;
    for (number, &raw) in rows.iter().enumerate() {
        let entry = entry::<Entry>(raw);
        let is_other = |entry: &Entry| config.lang.code().is_some_and(|code| entry.q_lang != code);
        if entry.as_ref().is_ok_and(is_other) {
            left_out += 1;
        } else {
            list.add(Fault::Json, &format!("row {number}"), entry.map(asked));
        }
    }
    let beside = || config.path.parent().unwrap_or(Path::new("")).join("imgs");
    let root = config.images_root.clone().unwrap_or_else(beside);
    let dataset = list.open(&config.path, Some(&root))?;
    Ok(match config.lang.code() {
        Some(code) => dataset.noted(&format!("{code}, {left_out} in other languages left out")),
        None => dataset,
    })
}

fn asked(entry: Entry) -> Asked {
    let question = Question {
        id: entry.qid,
        text: entry.question,
        answers: vec![entry.answer],
        kind: entry.answer_type.map(|kind| kind.trim().to_uppercase()),
        question_type: entry.content_type,
        tags: tags([
            ("modality", entry.modality),
            ("location", entry.location),
            ("base_type", entry.base_type),
            ("language", Some(entry.q_lang)),
        ]),
        ..Question::default()
    };
    Asked::one(entry.qid.to_string(), entry.img_name, question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn row(qid: u32, lang: &str, question: &str, answer: &str) -> String {
        format!(
            r#"{{"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "{question}", "answer": "{answer}",
"q_lang": "{lang}", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
"content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": {qid}}}"#
        )
    }

    fn open_rows(rows: &[String], keys: &str) -> Result<AskedDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.json");
        std::fs::write(&path, format!("[{}]", rows.join(",\n"))).unwrap();
        open(&toml::from_str(&format!("path = {path:?}\n{keys}")).unwrap())
    }

    #[test]
    fn one_language_is_read_and_the_others_are_counted() {
        let rows = [
            row(0, "en", "What modality is used to take this image?", "MRI"),
            row(1, "zh", "这张图片的成像方式是什么?", "核磁共振"),
            row(2, "zh", "图中有肝脏吗?", "有"),
        ];
        let source = open_rows(&rows, "").unwrap();
        assert!(
            source.name().ends_with("train.json (en, 2 in other languages left out)"),
            "{}",
            source.name()
        );
        let (question, image) = one(&source, 0);
        assert!(image.ends_with("imgs/xmlab1/source.jpg"), "{image}");
        assert_eq!((source.len(), question.id, question.kind.as_deref()), (1, 0, Some("OPEN")));
        assert_eq!(question.question_type.as_deref(), Some("Modality"));
        let tags: Vec<_> = question.tags.iter().map(|(name, tag)| format!("{name}={tag}")).collect();
        assert_eq!(tags.join(" "), "base_type=vqa language=en location=Abdomen modality=MRI");
        let chinese = open_rows(&rows, "lang = 'zh'\nimages_root = 'slake'").unwrap();
        assert_eq!((chinese.len(), one(&chinese, 1).0.answers.join("|")), (2, "有".to_owned()));
        assert_eq!(one(&chinese, 0).1, "slake/xmlab1/source.jpg");
        assert_eq!(open_rows(&rows, "lang = 'all'").unwrap().len(), 3);
    }

    #[test]
    fn invalid_rows_are_counted_whatever_the_language() {
        let rows = [
            row(0, "en", "What?", "MRI"),
            row(0, "en", "Again?", "MRI"),
            row(1, "en", " ", "MRI"),
            row(2, "en", "What?", ""),
            row(3, "zh", "什么?", "").replace("q_lang", "language"),
        ];
        let expected = [
            "row 1: an earlier question has the same id 0",
            "row 2: question 1 is empty",
            "row 3: the answer of question 2 is empty",
            "row 4: missing field `q_lang`",
        ];
        assert_bad(&open_rows(&rows, "").unwrap(), 1, &expected);
        let error = open_rows(&rows[..1], "lang = 'zh'").err().unwrap().to_string();
        assert!(error.contains("the file lists none"), "{error}");
    }
}
