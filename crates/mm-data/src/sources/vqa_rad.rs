//! VQA-RAD: a JSON list of questions about radiology images.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::asked::{Asked, AskedDataset, AskedList, tags, text_or_number};
use crate::sources::json_file::{JsonFile, entry};
use crate::sources::splits::{check_share, is_held_out};
use crate::{Fault, Question, Result};

/// Questions of VQA-RAD (Lau et al. 2018, <https://doi.org/10.1038/sdata.2018.251>): `VQA_RAD Dataset
/// Public.json` with `VQA_RAD Image Folder`.
///
/// A sample is a question. Its key is `qid`; [`Question::id`] is its place in the file, from 0.
/// [`Question::kind`] is `OPEN` or `CLOSED`, [`Question::question_type`] the type as the file has it (`PRES`,
/// `MODALITY`), [`Sample::group`](crate::Sample::group) the case of the image. Tags are `organ` and
/// `phrase_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaRadConfig {
    /// The JSON file.
    pub path: PathBuf,
    /// The folder of the images; by default `VQA_RAD Image Folder` beside the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The split.
    #[serde(default)]
    pub split: RadSplit,
    /// How the splits are made.
    #[serde(default)]
    pub split_by: RadSplitBy,
    /// With `split_by = "image"` or `"patient"`, the share of images or patients in the test split, above 0
    /// and below 1.
    #[serde(default = "held_out")]
    pub held_out: f64,
}

fn held_out() -> f64 {
    0.2
}

/// A split of VQA-RAD.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RadSplit {
    /// The training questions.
    #[default]
    Train,
    /// The test questions.
    Test,
    /// All questions.
    All,
}

/// How VQA-RAD is split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RadSplitBy {
    /// The split of the authors: test questions are those whose `phrase_type` begins with `test_`.
    /// Images have questions of both splits.
    #[default]
    Official,
    /// By a hash of the image: no image is in both splits.
    Image,
    /// By a hash of the case, which is one patient: neither an image nor a patient is in both splits.
    Patient,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(deserialize_with = "text_or_number")]
    qid: String,
    phrase_type: String,
    image_case_url: String,
    image_name: String,
    image_organ: Option<String>,
    question: String,
    question_type: Option<String>,
    #[serde(deserialize_with = "text_or_number")]
    answer: String,
    answer_type: Option<String>,
}

/// Opens the file. An invalid question is a bad sample of every split: its own is unknown.
pub(crate) fn open(config: &VqaRadConfig) -> Result<AskedDataset> {
    check_share("held_out", config.held_out)?;
    let json = JsonFile::read(&config.path)?;
    let rows: Vec<&RawValue> = json.parse("VQA-RAD: a list of questions")?;
    let mut list = AskedList::default();
    for (number, &raw) in (0..).zip(&rows) {
        let asked = entry::<Entry>(raw).and_then(|entry| {
            let phrase_type = entry.phrase_type.trim();
            if !["freeform", "para", "test_freeform", "test_para"].contains(&phrase_type) {
                return Err(format!("unknown phrase_type {phrase_type:?}"));
            }
            Ok(is_in_split(config, &entry).then(|| asked(number, entry)))
        });
        if let Some(asked) = asked.transpose() {
            list.add(Fault::Json, &format!("row {number}"), asked);
        }
    }
    let beside = || config.path.parent().unwrap_or(Path::new("")).join("VQA_RAD Image Folder");
    let root = config.images_root.clone().unwrap_or_else(beside);
    let dataset = list.open(&config.path, Some(&root))?;
    Ok(dataset.noted(&note(config)))
}

/// The split, for the name of the data set.
fn note(config: &VqaRadConfig) -> String {
    let split = match config.split {
        RadSplit::Train => "train",
        RadSplit::Test => "test",
        RadSplit::All => return "all".to_owned(),
    };
    match config.split_by {
        RadSplitBy::Official => split.to_owned(),
        RadSplitBy::Image => format!("{split}, split by image"),
        RadSplitBy::Patient => format!("{split}, split by patient"),
    }
}

fn is_in_split(config: &VqaRadConfig, entry: &Entry) -> bool {
    let is_test = match config.split_by {
        RadSplitBy::Official => entry.phrase_type.trim().starts_with("test_"),
        RadSplitBy::Image => is_held_out(&entry.image_name, config.held_out),
        RadSplitBy::Patient => is_held_out(&entry.image_case_url, config.held_out),
    };
    match config.split {
        RadSplit::Train => !is_test,
        RadSplit::Test => is_test,
        RadSplit::All => true,
    }
}

fn asked(id: u64, entry: Entry) -> Asked {
    let text = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let question = Question {
        id,
        text: entry.question,
        answers: vec![entry.answer],
        kind: text(entry.answer_type).map(|kind| kind.to_uppercase()),
        question_type: text(entry.question_type),
        tags: tags([("organ", entry.image_organ), ("phrase_type", Some(entry.phrase_type))]),
        ..Question::default()
    };
    Asked { group: Some(entry.image_case_url), ..Asked::one(entry.qid, entry.image_name, question) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    fn row(qid: usize, phrase_type: &str, image: usize, case: usize, answer: &str) -> String {
        format!(
            r#"{{"qid": {qid}, "phrase_type": "{phrase_type}", "qid_linked_id": "03f451ca-de62", 
"image_case_url": "https://medpix.nlm.nih.gov/case?id={case}", "image_name": "synpic{image}.jpg",
"image_organ": "HEAD", "evaluation": "not evaluated", "question": "Are regions of the brain infarcted?",
"question_rephrase": "NULL", "question_relation": "NULL", "question_frame": "NULL", "question_type": "PRES",
"answer": {answer}, "answer_type": "closed "}}"#
        )
    }

    fn open_rows(rows: &[String], keys: &str) -> Result<AskedDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("VQA_RAD Dataset Public.json");
        std::fs::write(&path, format!("[{}]", rows.join(", "))).unwrap();
        open(&toml::from_str(&format!("path = {path:?}\n{keys}")).unwrap())
    }

    #[test]
    fn the_official_split_is_that_of_the_phrase_types() {
        let rows = [
            row(0, "freeform", 1, 1, r#""Yes""#),
            row(1, "para", 1, 1, "2"),
            row(2, "test_freeform", 1, 1, r#"" no ""#),
            row(3, "test_para", 2, 2, r#""no""#),
        ];
        let source = open_rows(&rows, "split = 'test'").unwrap();
        assert!(source.name().ends_with("VQA_RAD Dataset Public.json (test)"), "{}", source.name());
        let (question, image) = one(&source, 0);
        assert!(image.ends_with("VQA_RAD Image Folder/synpic1.jpg"), "{image}");
        assert_eq!((question.id, question.answers.join("|")), (2, "no".to_owned()));
        assert_eq!(
            (question.kind.as_deref(), question.question_type.as_deref()),
            (Some("CLOSED"), Some("PRES"))
        );
        assert_eq!(question.tags["organ"], "HEAD");
        let sample = source.sample(1).unwrap();
        let group = sample.group.as_deref();
        assert_eq!((sample.key.as_str(), group), ("3", Some("https://medpix.nlm.nih.gov/case?id=2")));
        let train = open_rows(&rows, "images_root = 'x'").unwrap();
        assert_eq!((train.len(), one(&train, 1).0.answers.join("|")), (2, "2".to_owned()));
        assert_eq!(open_rows(&rows, "split = 'all'").unwrap().len(), 4);
    }

    #[test]
    fn a_split_by_image_or_patient_shares_none() {
        // Two images to a patient, three questions to an image.
        let rows: Vec<_> = (0..600).map(|at| row(at, "freeform", at / 3, at / 6, r#""yes""#)).collect();
        for (by, name) in [("image", "image"), ("patient", "patient")] {
            let values = |split: &str| {
                let keys = format!("split = '{split}'\nsplit_by = '{by}'\nheld_out = 0.3");
                let source = open_rows(&rows, &keys).unwrap();
                assert!(source.name().ends_with(&format!("({split}, split by {name})")));
                let images = (0..source.len()).map(|at| one(&source, at).1);
                let groups = (0..source.len()).filter_map(|at| source.sample(at).unwrap().group);
                (source.len(), images.collect::<BTreeSet<_>>(), groups.collect::<BTreeSet<_>>())
            };
            let (train, test) = (values("train"), values("test"));
            assert_eq!(train.0 + test.0, 600);
            assert!((100..260).contains(&test.0), "{}", test.0);
            let name = |path: &String| path.rsplit('/').next().unwrap().to_owned();
            let images = |set: &BTreeSet<String>| set.iter().map(name).collect::<BTreeSet<_>>();
            assert!(images(&train.1).is_disjoint(&images(&test.1)));
            assert_eq!(train.2.is_disjoint(&test.2), by == "patient");
        }
        let error = open_rows(&rows, "split_by = 'image'\nheld_out = 1.0").err().unwrap().to_string();
        assert_eq!(error, "held_out = 1: it must be above 0 and below 1");
    }

    #[test]
    fn invalid_rows_are_counted_in_every_split() {
        let valid = row(0, "test_para", 1, 1, r#""yes""#);
        let rows = [
            valid.clone(),
            row(1, "other", 1, 1, r#""yes""#),
            row(0, "test_para", 1, 1, r#""yes""#),
            row(2, "test_para", 1, 1, "[]"),
            row(3, "test_para", 1, 1, r#""""#),
        ];
        let expected = [
            "row 1: unknown phrase_type \"other\"",
            "row 2: an earlier question has the same id 0",
            "row 3: [] is neither a text nor a number",
            "row 4: the answer of question 3 is empty",
        ];
        assert_bad(&open_rows(&rows, "split = 'test'").unwrap(), 1, &expected);
        let train = open_rows(&[rows[1].clone(), row(4, "para", 1, 1, "1")], "").unwrap();
        assert_eq!((train.len(), train.sample(0).is_err()), (2, true));
    }
}
