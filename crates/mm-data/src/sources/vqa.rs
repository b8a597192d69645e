//! VQA v2: a JSON file of questions, and one of ten human answers to each.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::broken::{Broken, check_some};
use crate::sources::json_file::{JsonFile, entry};
use crate::sources::listed::root_beside;
use crate::{Dataset, Error, Fault, Question, Result, Sample, SampleImage};

/// Questions as [VQA v2](https://visualqa.org/download.html) publishes them:
/// `v2_OpenEnded_mscoco_val2014_questions.json` with `v2_mscoco_val2014_annotations.json`.
///
/// A sample is a question with all ten answers and without captions. The key is the question's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaConfig {
    /// The JSON file of questions.
    pub path: PathBuf,
    /// The JSON file of answers; omitted where they are withheld, as for the test questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<PathBuf>,
    /// The folder of the images, such as `val2014`; by default the folder of the questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The path of an image relative to the folder. `{image_id}` is replaced by its id, `{image_id:012}` by
    /// the id with twelve digits, and `{data_subtype}` by that field of the file of questions, with
    /// `test2015` for `test-dev2015`.
    #[serde(default = "image_name")]
    pub image_name: String,
}

fn image_name() -> String {
    "COCO_{data_subtype}_{image_id:012}.jpg".into()
}

#[derive(Deserialize)]
struct Questions<'a> {
    #[serde(borrow)]
    questions: Vec<&'a RawValue>,
    data_subtype: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    image_id: u64,
    question: String,
    question_id: u64,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow)]
    annotations: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: u64,
    image_id: u64,
    answer_type: Option<String>,
    question_type: Option<String>,
    multiple_choice_answer: Option<String>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
}

/// A question with its annotation.
struct Entry {
    asked: Asked,
    annotation: Option<Answered>,
}

/// The questions as a [`Dataset`], in the order of the file.
pub(crate) struct VqaDataset {
    name: String,
    root: PathBuf,
    image_name: String,
    texts: Texts,
    entries: Vec<std::result::Result<Entry, Broken>>,
}

impl VqaDataset {
    /// Opens the files. A question without an annotation, or with one of another image, is a bad sample in
    /// its place. An annotation of a question that the file does not have is a bad sample after the last
    /// question.
    ///
    /// # Errors
    /// A file cannot be read or has another layout, or `image_name` is invalid.
    pub(crate) fn open(config: &VqaConfig) -> Result<Self> {
        let json = JsonFile::read(&config.path)?;
        let file: Questions = json.parse("VQA questions: an object with `questions`")?;
        let image_name = named(config, file.data_subtype.as_deref())?;
        let mut texts = Texts::default();
        let answers =
            config.annotations.as_deref().map(|path| Answers::read(path, &mut texts)).transpose()?;
        let mut lost = Vec::new();
        let mut answers = answers.map(|answers| {
            lost = answers.broken;
            answers.by_question
        });
        let mut seen = HashSet::new();
        let mut entries = Vec::with_capacity(file.questions.len());
        for (number, &raw) in file.questions.iter().enumerate() {
            let bad = |reason| Broken::new(Fault::Json, format!("questions[{number}]: {reason}"));
            entries.push(entry::<Asked>(raw).map_err(bad).and_then(|asked| {
                let id = asked.question_id;
                if !seen.insert(id) {
                    return Err(bad(format!("an earlier question has the same id {id}")));
                }
                let answered = answers.as_mut().map(|answers| answers.remove(&id));
                match answered {
                    _ if asked.question.trim().is_empty() => Err(bad(format!("question {id} is empty"))),
                    Some(None) => Err(bad(format!("question {id} has no annotation"))),
                    Some(Some(answered)) if answered.image != asked.image_id => Err(bad(format!(
                        "question {id} is of image {}, its annotation of image {}",
                        asked.image_id, answered.image
                    ))),
                    annotation => Ok(Entry { asked, annotation: annotation.flatten() }),
                }
            }));
        }
        let mut unasked: Vec<_> = answers.into_iter().flatten().map(|(question, _)| question).collect();
        unasked.sort();
        let reason =
            |id| format!("an annotation has question id {id}, which the file of questions does not have");
        lost.extend(unasked.into_iter().map(|id| Broken::new(Fault::Json, reason(id))));
        entries.extend(lost.into_iter().map(Err));
        let name = config.path.display().to_string();
        check_some(&name, &entries)?;
        let root = root_beside(&config.path, config.images_root.as_ref());
        Ok(Self { name, root, image_name, texts, entries })
    }
}

/// The annotation of a question. Its texts are numbers into [`Texts`]: four million answers have few distinct
/// texts.
struct Answered {
    image: u64,
    answer_type: Option<u32>,
    question_type: Option<u32>,
    multiple_choice_answer: Option<u32>,
    answers: Box<[u32]>,
}

struct Answers {
    by_question: HashMap<u64, Answered>,
    broken: Vec<Broken>,
}

impl Answers {
    fn read(path: &Path, texts: &mut Texts) -> Result<Self> {
        let json = JsonFile::read(path)?;
        let file: Annotations = json.parse("VQA annotations: an object with `annotations`")?;
        let mut by_question = HashMap::with_capacity(file.annotations.len());
        let mut broken = Vec::new();
        for (number, &raw) in file.annotations.iter().enumerate() {
            let mut bad =
                |reason| broken.push(Broken::new(Fault::Json, format!("annotations[{number}]: {reason}")));
            match entry::<Annotation>(raw) {
                Err(reason) => bad(reason),
                Ok(annotation) if annotation.answers.is_empty() => bad("no answers".into()),
                Ok(annotation) if by_question.contains_key(&annotation.question_id) => {
                    bad(format!("an earlier annotation is of the same question {}", annotation.question_id));
                }
                Ok(annotation) => {
                    let mut number = |text: Option<String>| text.map(|text| texts.number(text));
                    let answered = Answered {
                        image: annotation.image_id,
                        answer_type: number(annotation.answer_type),
                        question_type: number(annotation.question_type),
                        multiple_choice_answer: number(annotation.multiple_choice_answer),
                        answers: annotation.answers.into_iter().map(|it| texts.number(it.answer)).collect(),
                    };
                    by_question.insert(annotation.question_id, answered);
                }
            }
        }
        Ok(Self { by_question, broken })
    }
}

/// Distinct texts, numbered in order of appearance.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Texts {
    fn number(&mut self, text: String) -> u32 {
        *self.numbers.entry(text).or_insert_with_key(|text| {
            self.all.push(text.clone());
            self.all.len() as u32 - 1
        })
    }

    fn text(&self, number: u32) -> String {
        self.all[number as usize].clone()
    }
}

/// The path template with `{data_subtype}` filled in.
///
/// # Errors
/// No image id, or unknown braces.
fn named(config: &VqaConfig, data_subtype: Option<&str>) -> Result<String> {
    let template = &config.image_name;
    let known = ["{image_id}", "{image_id:012}", "{data_subtype}"];
    let rest = known.iter().fold(template.clone(), |rest, part| rest.replace(part, ""));
    if rest.contains(['{', '}']) || !known[..2].iter().any(|part| template.contains(part)) {
        return Err(Error::Setting(format!(
            "image_name = `{template}`: it must have {{image_id}} or {{image_id:012}}, may have \
             {{data_subtype}}, and has no other braces"
        )));
    }
    match data_subtype {
        // The questions of test-dev are a subset of test, with the same images.
        Some(subtype) => Ok(template.replace(known[2], &subtype.replace("-dev", ""))),
        None if template.contains(known[2]) => Err(Error::Setting(format!(
            "image_name = `{template}`: {} has no `data_subtype`: write the name instead, such as `val2014`",
            config.path.display()
        ))),
        None => Ok(template.clone()),
    }
}

impl Dataset for VqaDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let Entry { asked, annotation } =
            self.entries[index].as_ref().map_err(|broken| broken.error(&self.name))?;
        let image = self.image_name.replace("{image_id:012}", &format!("{:012}", asked.image_id));
        let image = image.replace("{image_id}", &asked.image_id.to_string());
        let mut question =
            Question { id: asked.question_id, text: asked.question.clone(), ..Question::default() };
        if let Some(annotation) = annotation {
            let text = |number: Option<u32>| number.map(|number| self.texts.text(number));
            question.answers = annotation.answers.iter().map(|&answer| self.texts.text(answer)).collect();
            question.kind = text(annotation.answer_type);
            question.question_type = text(annotation.question_type);
            question.multiple_choice_answer = text(annotation.multiple_choice_answer);
        }
        let image = SampleImage::File(self.root.join(image));
        Ok(Sample { questions: vec![question], ..Sample::new(asked.question_id.to_string(), image) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The fields around the list in the published files.
    const INFO: &str = r#""info": {"description": "This is Balanced Binary Abstract Scenes VQA dataset.",
"url": "http://visualqa.org", "version": "2.0", "year": 2017, "contributor": "VQA Team",
"date_created": "2017-04-26 17:00:44"}, "data_type": "mscoco",
"license": {"url": "http://creativecommons.org/licenses/by/4.0/",
"name": "Creative Commons Attribution 4.0 International License"}"#;

    fn question(image: u64, id: u64, text: &str) -> String {
        format!(r#"{{"image_id": {image}, "question": "{text}", "question_id": {id}}}"#)
    }

    fn annotation(image: u64, id: u64) -> String {
        let answers: Vec<_> = (1..=10)
            .map(|n| {
                let (answer, sure) = if n % 3 == 0 { ("no", "maybe") } else { ("yes", "yes") };
                format!(r#"{{"answer": "{answer}", "answer_confidence": "{sure}", "answer_id": {n}}}"#)
            })
            .collect();
        format!(
            r#"{{"question_type": "is the", "multiple_choice_answer": "yes", "answers": [{}],
"image_id": {image}, "answer_type": "yes/no", "question_id": {id}}}"#,
            answers.join(", ")
        )
    }

    fn open(
        subtype: &str,
        questions: &[String],
        annotations: Option<&[String]>,
        keys: &str,
    ) -> Result<VqaDataset> {
        let folder = tempfile::tempdir().unwrap();
        let (path, answers) = (folder.path().join("questions.json"), folder.path().join("annotations.json"));
        let head = format!(r#"{{{INFO}, "task_type": "Open-Ended", "data_subtype": "{subtype}""#);
        fs::write(&path, format!(r#"{head}, "questions": [{}]}}"#, questions.join(", "))).unwrap();
        let mut text = format!("path = {:?}\nimages_root = 'coco'\n{keys}\n", path.to_str().unwrap());
        if let Some(annotations) = annotations {
            fs::write(&answers, format!(r#"{head}, "annotations": [{}]}}"#, annotations.join(", "))).unwrap();
            text += &format!("annotations = {:?}", answers.to_str().unwrap());
        }
        VqaDataset::open(&toml::from_str(&text).unwrap())
    }

    fn image(source: &VqaDataset, index: usize) -> String {
        let sample = source.sample(index).unwrap();
        let SampleImage::File(path) = sample.image().unwrap() else { panic!("a file") };
        path.display().to_string()
    }

    #[test]
    fn a_question_has_ten_answers_and_an_image() {
        let questions =
            [question(262148, 262148000, "Where is he looking?"), question(262148, 262148001, "Is it?")];
        let annotations = [annotation(262148, 262148001), annotation(262148, 262148000)];
        let source = open("val2014", &questions, Some(&annotations), "").unwrap();
        let sample = source.sample(0).unwrap();
        let [question] = &sample.questions[..] else { panic!("one question") };
        assert_eq!((sample.key.as_str(), question.id), ("262148000", 262148000));
        assert_eq!(
            (question.text.as_str(), question.kind.as_deref()),
            ("Where is he looking?", Some("yes/no"))
        );
        assert_eq!(question.answers.join(" "), "yes yes no yes yes no yes yes no yes");
        assert_eq!(question.question_type.as_deref(), Some("is the"));
        assert_eq!(question.multiple_choice_answer.as_deref(), Some("yes"));
        assert!(sample.captions.is_empty());
        assert_eq!(image(&source, 1), "coco/COCO_val2014_000000262148.jpg");
    }

    #[test]
    fn test_questions_have_no_answers_and_test_dev_has_the_images_of_test() {
        let source = open("test-dev2015", &[question(9, 90, "What?")], None, "").unwrap();
        assert!(source.sample(0).unwrap().questions[0].answers.is_empty());
        assert_eq!(image(&source, 0), "coco/COCO_test2015_000000000009.jpg");
        let source = open("x", &[question(9, 90, "What?")], None, "image_name = 'n{image_id}.png'").unwrap();
        assert_eq!(image(&source, 0), "coco/n9.png");
    }

    #[test]
    fn inconsistent_entries_are_counted() {
        let questions = [
            question(1, 10, "Whole?"),
            question(1, 11, "No annotation?"),
            question(1, 12, "Other image?"),
            question(1, 10, "Again?"),
            question(1, 13, ""),
            r#"{"image_id": "x", "question": "?", "question_id": 14}"#.into(),
        ];
        let unanswered = r#"{"question_id": 15, "image_id": 1, "answer_type": "other", "answers": []}"#;
        let annotations = [
            annotation(1, 10),
            annotation(2, 12),
            annotation(1, 10),
            annotation(1, 99),
            annotation(1, 13),
            unanswered.into(),
        ];
        let source = open("val2014", &questions, Some(&annotations), "").unwrap();
        assert!(source.sample(0).is_ok());
        let expected = [
            "questions[1]: question 11 has no annotation",
            "questions[2]: question 12 is of image 1, its annotation of image 2",
            "questions[3]: an earlier question has the same id 10",
            "questions[4]: question 13 is empty",
            "questions[5]: invalid type: string \"x\", expected u64",
            "annotations[2]: an earlier annotation is of the same question 10",
            "annotations[5]: no answers",
            "an annotation has question id 99, which the file of questions does not have",
        ];
        assert_eq!(source.len(), 1 + expected.len());
        for (index, reason) in expected.iter().enumerate() {
            let error = source.sample(1 + index).unwrap_err();
            assert_eq!(error.fault(), Fault::Json);
            assert!(error.to_string().ends_with(reason), "{error}");
        }
    }

    #[test]
    fn files_that_cannot_be_opened_give_the_reason() {
        let error =
            |keys: &str| open("val2014", &[question(1, 1, "?")], None, keys).err().unwrap().to_string();
        assert!(error("image_name = '{id}.jpg'").contains("it must have {image_id}"));
        assert!(error("image_name = 'one.jpg'").contains("it must have {image_id}"));
        assert!(error("annotations = '/no/such.json'").contains("/no/such.json: No such file"));
        let message = open("val2014", &[], None, "").err().unwrap().to_string();
        assert!(message.contains("the file lists none"), "{message}");
        let swapped =
            open("val2014", &[question(1, 1, "?")], Some(&[question(1, 1, "?")]), "").err().unwrap();
        assert!(swapped.to_string().contains("none of its 2 entries is valid"), "{swapped}");
    }
}
