//! easy-VQA: simple questions about a shape of one color.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::asked::{Asked, AskedDataset};
use crate::sources::broken::Broken;
use crate::sources::json_file::{JsonFile, entry};
use crate::{Fault, Question, Result};

/// The questions of [easy-VQA](https://github.com/vzhou842/easy-VQA), in the layout of its package.
///
/// A sample is an image with all its questions. The key is the id of the image, the id of a question is its
/// place in `questions.json`, from 0. [`Question::kind`] is derived from the answer: `yes/no`, `shape` or
/// `color`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EasyVqaConfig {
    /// The folder that contains `train` and `test`.
    pub path: PathBuf,
    /// The split.
    #[serde(default)]
    pub split: EasyVqaSplit,
}

/// A split of easy-VQA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EasyVqaSplit {
    /// 4,000 images with 38,575 questions.
    #[default]
    Train,
    /// 1,000 images with 9,673 questions.
    Test,
}

/// Opens the split. Invalid rows are bad samples after the last image.
pub(crate) fn open(config: &EasyVqaConfig) -> Result<AskedDataset> {
    let split = match config.split {
        EasyVqaSplit::Train => "train",
        EasyVqaSplit::Test => "test",
    };
    let folder = config.path.join(split);
    let file = folder.join("questions.json");
    let json = JsonFile::read(&file)?;
    let rows: Vec<&RawValue> = json.parse("easy-VQA: a list of [question, answer, image id]")?;
    let mut images: Vec<Asked> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut lost = Vec::new();
    for (number, &raw) in rows.iter().enumerate() {
        let bad = |reason| Broken::new(Fault::Json, format!("row {number}: {reason}"));
        match entry::<(String, String, u64)>(raw) {
            Err(reason) => lost.push(bad(reason)),
            Ok((text, answer, _)) if text.trim().is_empty() || answer.trim().is_empty() => {
                lost.push(bad("the question or its answer is empty".into()));
            }
            Ok((text, answer, image)) => {
                let place = *places.entry(image).or_insert_with(|| {
                    images.push(Asked {
                        key: image.to_string(),
                        image: format!("{image}.png"),
                        group: None,
                        questions: Vec::new(),
                    });
                    images.len() - 1
                });
                let kind = Some(kind(&answer).to_owned());
                let id = number as u64;
                images[place].questions.push(Question {
                    id,
                    text,
                    answers: vec![answer],
                    kind,
                    ..Question::default()
                });
            }
        }
    }
    let entries = images.into_iter().map(Ok).chain(lost.into_iter().map(Err)).collect();
    AskedDataset::new(&file, Some(&folder.join("images")), entries)
}

/// The type of an answer: all answers but yes, no and the three shapes are colors.
fn kind(answer: &str) -> &'static str {
    match answer {
        "yes" | "no" => "yes/no",
        "circle" | "rectangle" | "triangle" => "shape",
        _ => "color",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Dataset, SampleImage};

    fn open_rows(rows: &str) -> Result<AskedDataset> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("test")).unwrap();
        fs::write(folder.path().join("test/questions.json"), rows).unwrap();
        open(&EasyVqaConfig { path: folder.path().to_owned(), split: EasyVqaSplit::Test })
    }

    #[test]
    fn an_image_has_all_its_questions_with_ids_and_types_of_the_answers() {
        let rows = r#"[["what is the blue shape?", "rectangle", 7], ["is there a circle?", "no", 3],
["what color is the shape?", "teal", 7]]"#;
        let source = open_rows(rows).unwrap();
        assert_eq!(source.len(), 2);
        let sample = source.sample(0).unwrap();
        let asked: Vec<_> = sample
            .questions
            .iter()
            .map(|it| (it.id, it.text.as_str(), it.answers[0].as_str(), it.kind.as_deref().unwrap()))
            .collect();
        let expected = [
            (0, "what is the blue shape?", "rectangle", "shape"),
            (2, "what color is the shape?", "teal", "color"),
        ];
        assert_eq!((sample.key.as_str(), asked.as_slice()), ("7", &expected[..]));
        let SampleImage::File(path) = sample.image().unwrap() else { panic!("a file") };
        assert!(path.ends_with("test/images/7.png"), "{}", path.display());
        assert_eq!(source.sample(1).unwrap().questions[0].kind.as_deref(), Some("yes/no"));
    }

    #[test]
    fn invalid_rows_are_counted_after_the_images() {
        let source = open_rows(r#"[["a?", "yes"], ["", "no", 1], ["b?", "no", 1], ["c?", 2, 1]]"#).unwrap();
        let reasons: Vec<_> =
            (1..source.len()).map(|at| source.sample(at).unwrap_err().to_string()).collect();
        assert_eq!(source.sample(0).unwrap().questions.len(), 1);
        let expected = [
            "row 0: invalid length 2, expected a tuple of size 3",
            "row 1: the question or its answer is empty",
            "row 3: invalid type: integer `2`, expected a string",
        ];
        assert_eq!(reasons.len(), expected.len());
        for (reason, expected) in reasons.iter().zip(expected) {
            assert!(reason.ends_with(expected), "{reason}");
        }
        let error = open_rows("{}").err().unwrap().to_string();
        assert!(error.contains("expected easy-VQA: a list of [question, answer, image id]"), "{error}");
    }
}
