//! POPE: yes/no questions about the objects of an image, one JSON object a line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sources::asked::{Asked, AskedDataset, AskedList};
use crate::sources::lines::rows;
use crate::{Fault, Question, Result, json, text};

/// Questions of [POPE](https://github.com/RUCAIBox/POPE) (Li et al. 2023,
/// <https://arxiv.org/abs/2305.10355>), which probe a model for objects that are not in the image:
/// `coco_pope_random.json`, `coco_pope_popular.json`, `coco_pope_adversarial.json`.
///
/// A sample is a question, answered `yes` or `no`. Its key and [`Question::id`] are its `question_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopeConfig {
    /// The file, with a JSON object on each line.
    pub path: PathBuf,
    /// The folder of the images, such as `val2014`; by default the folder of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Entry {
    question_id: u64,
    image: String,
    text: String,
    label: String,
}

/// Opens the file. An invalid line is a bad sample in its place.
pub(crate) fn open(config: &PopeConfig) -> Result<AskedDataset> {
    let parse = |line: &str| json::parse::<Entry>(line).map_err(|error| error.to_string());
    let mut list = AskedList::default();
    for (line, row) in rows(&config.path, text::open(&config.path)?, |line| Ok(parse(line)))? {
        list.add(Fault::Row, &format!("line {line}"), row.and_then(asked));
    }
    list.open(&config.path, config.images_root.as_ref())
}

fn asked(entry: Entry) -> std::result::Result<Asked, String> {
    let Entry { question_id: id, image, text, label } = entry;
    let answer = label.trim().to_lowercase();
    if answer != "yes" && answer != "no" {
        return Err(format!("the label is {label:?}, not `yes` or `no`"));
    }
    let kind = Some("yes/no".to_owned());
    let question = Question { id, text, answers: vec![answer], kind, ..Question::default() };
    Ok(Asked::one(id.to_string(), image, question))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::sources::asked::tests::{assert_bad, one};

    #[test]
    fn lines_are_questions_and_invalid_ones_are_counted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = r#"
{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard?", "label": "yes"}
{"question_id": 2, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a dog?", "label": "no"}

{"question_id": 3, "image": "a.jpg", "text": "Is there?", "label": "maybe"}
{"question_id": 4, "image": "a.jpg", "text": "Is there?"}
{"question_id": 2, "image": "a.jpg", "text": "Is there?", "label": "no"}
"#;
        std::fs::write(file.path(), lines).unwrap();
        let source =
            open(&PopeConfig { path: file.path().to_owned(), images_root: Some("val2014".into()) }).unwrap();
        let (question, image) = one(&source, 1);
        assert_eq!((question.id, question.text.as_str()), (2, "Is there a dog?"));
        assert_eq!((question.answers.join("|"), question.kind.as_deref()), ("no".to_owned(), Some("yes/no")));
        assert_eq!(image, "val2014/COCO_val2014_000000310196.jpg");
        assert_eq!(source.sample(0).unwrap().key, "1");
        let expected = [
            "line 5: the label is \"maybe\", not `yes` or `no`",
            "line 6: missing field `label` at line 1 column 57",
            "line 7: an earlier question has the same id 2",
        ];
        assert_bad(&source, 2, &expected);
    }
}
