//! VQA v2's files of questions and annotations.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::error::Result;
use super::super::id::Id;
use super::super::json;
use super::super::matching::{FindingKind, Findings, last_of_each};

/// A question with the answers of its annotators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnsweredQuestion {
    /// The question's text, where the file of questions is given.
    pub question: Option<String>,
    /// The first words, such as `how many`.
    pub question_type: Option<String>,
    /// `yes/no`, `number` or `other`.
    pub answer_type: Option<String>,
    /// The answers, ten in VQA v2, in the order of the annotators.
    pub answers: Vec<String>,
    /// Where annotators cannot be distinguished by the other keys of their answers (`answer_id`,
    /// `answer_confidence`): for each answer the number of its group of equal keys; else empty. The official
    /// program takes entries of one group with equal answers for one annotator, without others.
    pub twins: Vec<u32>,
}

/// The annotated questions of a set, in the order of the annotations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VqaSet {
    /// The ids and questions.
    pub questions: Vec<(Id, AnsweredQuestion)>,
    /// What does not correspond in the files.
    pub findings: Findings,
}

#[derive(Deserialize)]
struct QuestionFile<'a> {
    #[serde(borrow)]
    questions: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct QuestionEntry {
    question_id: Id,
    question: String,
}

#[derive(Deserialize)]
struct AnnotationFile<'a> {
    #[serde(borrow)]
    annotations: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct AnnotationEntry<'a> {
    question_id: Id,
    question_type: Option<String>,
    answer_type: Option<String>,
    #[serde(borrow)]
    answers: Vec<AnswerEntry<'a>>,
}

#[derive(Deserialize)]
struct AnswerEntry<'a> {
    #[serde(borrow)]
    answer: Cow<'a, str>,
    #[serde(borrow)]
    answer_id: Option<&'a RawValue>,
}

impl VqaSet {
    /// Reads annotations, and the texts of the questions where their file is given.
    ///
    /// # Errors
    /// A file cannot be read or has another layout. Questions and annotations that do not correspond are
    /// findings, not errors.
    pub fn read(annotations: &Path, questions: Option<&Path>) -> Result<Self> {
        let (annotated, texts) =
            rayon::join(|| read_annotations(annotations), || questions.map(read_questions).transpose());
        let mut set = annotated?;
        if let Some(texts) = texts? {
            set.add_texts(texts);
        }
        Ok(set)
    }

    fn add_texts(&mut self, texts: Vec<(Id, String)>) {
        let texts = last_of_each(texts, |(id, _)| id, FindingKind::RepeatedQuestions, &mut self.findings);
        let order: Vec<Id> = texts.iter().map(|(id, _)| id.clone()).collect();
        let mut texts: HashMap<Id, String> = texts.into_iter().collect();
        for (id, question) in &mut self.questions {
            question.question = texts.remove(id);
            if question.question.is_none() {
                self.findings.add(FindingKind::AnnotationsWithoutQuestion, id);
            }
        }
        for id in order.iter().filter(|id| texts.contains_key(id)) {
            self.findings.add(FindingKind::QuestionsWithoutAnnotation, id);
        }
    }
}

fn read_questions(path: &Path) -> Result<Vec<(Id, String)>> {
    let text = mm_data::text::read(path)?;
    let file: QuestionFile = json::parse(path, &text, "VQA questions: an object with `questions`")?;
    let entries: Vec<QuestionEntry> =
        json::entries(path, "questions", &file.questions, serde_json::from_str)?;
    Ok(entries.into_iter().map(|entry| (entry.question_id, entry.question)).collect())
}

fn read_annotations(path: &Path) -> Result<VqaSet> {
    let text = mm_data::text::read(path)?;
    let file: AnnotationFile = json::parse(path, &text, "VQA annotations: an object with `annotations`")?;
    let entries = json::entries(path, "annotations", &file.annotations, annotation)?;
    let mut findings = Findings::default();
    let mut questions = last_of_each(entries, |(id, _)| id, FindingKind::RepeatedAnnotations, &mut findings);
    questions.retain(|(id, question)| {
        if question.answers.is_empty() {
            findings.add(FindingKind::AnnotationsWithoutAnswers, id);
        }
        !question.answers.is_empty()
    });
    Ok(VqaSet { questions, findings })
}

fn annotation(text: &str) -> serde_json::Result<(Id, AnsweredQuestion)> {
    let entry: AnnotationEntry = serde_json::from_str(text)?;
    let ids = entry.answers.iter().map_while(|answer| answer.answer_id.map(RawValue::get));
    let numbers: HashSet<&str> = ids.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())).collect();
    let twins = if numbers.len() == entry.answers.len() { Vec::new() } else { twins(text)? };
    let question = AnsweredQuestion {
        question: None,
        question_type: entry.question_type,
        answer_type: entry.answer_type,
        answers: entry.answers.into_iter().map(|answer| answer.answer.into_owned()).collect(),
        twins,
    };
    Ok((entry.question_id, question))
}

/// For each answer the number of the first one whose keys but `answer` have equal values; empty where all
/// differ.
fn twins(annotation: &str) -> serde_json::Result<Vec<u32>> {
    #[derive(Deserialize)]
    struct Answers {
        answers: Vec<Map<String, Value>>,
    }
    let mut answers = serde_json::from_str::<Answers>(annotation)?.answers;
    answers.iter_mut().for_each(|answer| drop(answer.remove("answer")));
    let first = |answer: &Map<String, Value>| {
        answers.iter().zip(0..).find(|(other, _)| *other == answer).map_or(0, |(_, number)| number)
    };
    let twins: Vec<u32> = answers.iter().map(first).collect();
    Ok(if twins.iter().copied().eq(0..twins.len() as u32) { Vec::new() } else { twins })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &str, questions: Option<&str>) -> Result<VqaSet> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let annotations = write("annotations.json", annotations);
        let questions = questions.map(|text| write("questions.json", text));
        VqaSet::read(&annotations, questions.as_deref())
    }

    fn annotation(id: u64, answers: &str) -> String {
        format!(
            r#"{{"question_id": {id}, "image_id": 1, "question_type": "is the", "answer_type": "yes/no",
            "multiple_choice_answer": "yes", "answers": [{answers}]}}"#
        )
    }

    fn file(annotations: &[String]) -> String {
        format!(r#"{{"info": {{}}, "annotations": [{}]}}"#, annotations.join(","))
    }

    #[test]
    fn questions_and_annotations_are_joined_and_what_does_not_correspond_is_found() {
        let answers = r#"{"answer": "yes", "answer_confidence": "no", "answer_id": 1},
            {"answer": "a \"b\"", "answer_id": 2}"#;
        let annotations = file(&[
            annotation(1, answers),
            annotation(3, answers),
            annotation(1, answers),
            annotation(4, ""),
        ]);
        let questions = r#"{"questions": [{"image_id": 1, "question": "Is it?", "question_id": 1},
            {"question": "Was it?", "question_id": 2}, {"question": "Why?", "question_id": 4}]}"#;
        let set = read(&annotations, Some(questions)).unwrap();
        let ids: Vec<_> = set.questions.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(ids, ["3", "1"]);
        let question = &set.questions[1].1;
        assert_eq!(question.question.as_deref(), Some("Is it?"));
        assert_eq!(question.answers, ["yes", "a \"b\""]);
        assert!(question.twins.is_empty());
        let found: Vec<_> = set.findings.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "1 ids are of several annotations (1)",
                "1 annotations have no answers (4)",
                "1 annotations are of questions that the questions do not have (3)",
                "2 questions have no annotation (2, 4)",
            ]
        );
    }

    #[test]
    fn answers_that_their_other_keys_do_not_distinguish_are_twins() {
        let answers = r#"{"answer": "a"}, {"answer": "b", "answer_confidence": "yes"}, {"answer": "c"},
            {"answer": "a", "answer_confidence": "yes"}"#;
        let set = read(&file(&[annotation(1, answers)]), None).unwrap();
        assert_eq!(set.questions[0].1.twins, [0, 1, 0, 1]);
        let equal_ids = r#"{"answer": "a", "answer_id": 1}, {"answer": "b", "answer_id": 1}"#;
        let set = read(&file(&[annotation(1, equal_ids)]), None).unwrap();
        assert_eq!(set.questions[0].1.twins, [0, 0]);
    }

    #[test]
    fn bad_files_are_errors_that_name_file_and_place() {
        for (text, expected) in [
            ("{", "EOF while parsing"),
            (r#"{"questions": []}"#, "missing field `annotations`"),
            (r#"{"annotations": [{"question_id": 1}]}"#, "annotations[0]: missing field `answers`"),
            (&file(&[annotation(1, r#"{"answer": 3}"#)]), "annotations[0]: invalid type: integer `3`"),
            (&file(&[annotation(1, r#""yes""#)]), "annotations[0]: invalid type: string \"yes\""),
        ] {
            let error = read(text, None).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("annotations.json: "), "{error}");
        }
        let annotations = file(&[annotation(1, r#"{"answer": "a"}"#)]);
        let error = read(&annotations, Some(r#"{"questions": [{"question_id": 1}]}"#)).unwrap_err();
        assert!(error.to_string().contains("questions.json: questions[0]: missing field"), "{error}");
    }
}
