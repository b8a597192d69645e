//! Accuracy on medical sets with open and closed questions (VQA-RAD, SLAKE), by one strict parser.
//!
//! Published scripts differ, and some give points away: LLaVA-Med's finds `no` inside `normal`, and leaves
//! wrong closed answers out of the denominator. Here every measured question is in a denominator, and:
//!
//! - **Normalisation** of predictions and answers ([`words`]): lower case; every character but letters,
//!   digits and a period between digits separates words; `a`, `an` and `the` are dropped; a Chinese character
//!   is a word.
//! - **Closed**: where the right answer is yes or no, the first word `yes` or `no` of the prediction is
//!   compared, and a prediction without one is wrong. Any other right answer must be equal after the
//!   normalisation.
//! - **Open**: equality after the normalisation; the recall of the right answer's words; their F1. Words are
//!   counted as often as they are there.
//! - **Overall**: all questions, closed ones right or wrong, open ones equal or not.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::accuracy::{Accuracy, Group, groups, score};
use super::error::{Error, Result};
use super::id::Id;
use super::json;
use super::matching::{FindingKind, Findings, OnProblem, match_predictions};
use super::predictions::Prediction;

/// Whether a question has few possible answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerType {
    /// Any answer.
    Open,
    /// Yes or no, or one of a few options that the question names.
    Closed,
}

/// A question with its right answer.
#[derive(Clone, Debug, PartialEq)]
pub struct MedicalQuestion {
    /// The id.
    pub question_id: Id,
    /// The right answer.
    pub answer: String,
    /// Open or closed.
    pub answer_type: AnswerType,
    /// The kind of image, such as `MRI`.
    pub modality: Option<String>,
    /// The organ or the part of the body.
    pub organ: Option<String>,
    /// What is asked about, such as `Position`.
    pub question_type: Option<String>,
}

/// Which entries of a file are measured.
#[derive(Clone, Debug, Default)]
pub struct MedicalFilter {
    /// Those of this `q_lang`; all where it is `None`.
    pub language: Option<String>,
    /// Those whose `phrase_type` begins with `test`, VQA-RAD's official test set.
    pub test_phrases: bool,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "question_id", alias = "id")]
    qid: Id,
    answer: Text,
    answer_type: String,
    modality: Option<String>,
    #[serde(alias = "image_organ")]
    location: Option<String>,
    #[serde(alias = "question_type")]
    content_type: Option<String>,
    q_lang: Option<String>,
    phrase_type: Option<String>,
}

/// A text, or a number as in VQA-RAD.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(serde_json::Number),
}

/// Reads SLAKE's `test.json` or VQA-RAD's JSON, both lists, or a `.jsonl` file with the same keys. Also
/// returns how many entries the filter leaves out.
///
/// # Errors
/// The file cannot be read or has another layout, or an `answer_type` is neither open nor closed.
pub fn read_questions(path: &Path, filter: &MedicalFilter) -> Result<(Vec<MedicalQuestion>, usize)> {
    let text = mm_data::text::read(path)?;
    let layout = "{\"qid\": 1, \"answer\": \"...\", \"answer_type\": \"OPEN\"}";
    let entries: Vec<Entry> = json::list(path, &text, layout)?;
    let all = entries.len();
    let is_kept = |entry: &Entry| {
        filter.language.as_ref().is_none_or(|language| entry.q_lang.as_ref() == Some(language))
            && (!filter.test_phrases || entry.phrase_type.as_ref().is_some_and(|it| it.starts_with("test")))
    };
    let kept = entries.into_iter().filter(is_kept).map(|entry| entry.into_question(path));
    let kept = kept.collect::<Result<Vec<_>>>()?;
    let left_out = all - kept.len();
    Ok((kept, left_out))
}

impl Entry {
    fn into_question(self, path: &Path) -> Result<MedicalQuestion> {
        let answer_type = match self.answer_type.trim().to_ascii_uppercase().as_str() {
            "OPEN" => AnswerType::Open,
            "CLOSED" => AnswerType::Closed,
            other => {
                let problem = format!("question {}: answer_type {other:?} is not OPEN or CLOSED", self.qid);
                return Err(Error::invalid(path, problem));
            }
        };
        let answer = match self.answer {
            Text::Text(text) => text,
            Text::Number(number) => number.to_string(),
        };
        Ok(MedicalQuestion {
            question_id: self.qid,
            answer,
            answer_type,
            modality: self.modality,
            organ: self.location,
            question_type: self.content_type,
        })
    }
}

/// The words of a text after the normalisation of this module.
pub fn words(text: &str) -> Vec<String> {
    let lower: Vec<char> = text.to_lowercase().chars().collect();
    let mut words = vec![String::new()];
    for (at, &c) in lower.iter().enumerate() {
        let is_digit = |at: Option<usize>| at.and_then(|at| lower.get(at)).is_some_and(char::is_ascii_digit);
        let is_point = c == '.' && is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
        if is_ideograph(c) {
            words.extend([c.to_string(), String::new()]);
        } else if c.is_alphanumeric() || is_point {
            words.last_mut().into_iter().for_each(|word| word.push(c));
        } else {
            words.push(String::new());
        }
    }
    words.retain(|word| !matches!(word.as_str(), "" | "a" | "an" | "the"));
    words
}

/// Whether the character is of the blocks of Chinese characters.
fn is_ideograph(c: char) -> bool {
    let blocks = ['\u{3400}'..='\u{4dbf}', '\u{4e00}'..='\u{9fff}', '\u{f900}'..='\u{faff}'];
    blocks.iter().any(|block| block.contains(&c)) || ('\u{20000}'..='\u{3134f}').contains(&c)
}

/// The closed answer that a prediction gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosedAnswer {
    Right,
    Wrong,
    /// The right answer is yes or no, and the prediction has neither word.
    Unreadable,
}

fn closed_answer(prediction: &[String], answer: &[String]) -> ClosedAnswer {
    let is_binary = |word: &&String| matches!(word.as_str(), "yes" | "no");
    match answer {
        [answer] if is_binary(&answer) => match prediction.iter().find(is_binary) {
            None => ClosedAnswer::Unreadable,
            Some(given) if given == answer => ClosedAnswer::Right,
            Some(_) => ClosedAnswer::Wrong,
        },
        _ if prediction == answer => ClosedAnswer::Right,
        _ => ClosedAnswer::Wrong,
    }
}

/// The number of words that both have, each as often as both have it.
fn common_words(prediction: &[String], answer: &[String]) -> usize {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    answer.iter().for_each(|word| *counts.entry(word).or_default() += 1);
    let mut common = 0;
    for word in prediction {
        if let Some(count) = counts.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    common
}

/// The accuracy of a medical set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MedicalReport {
    /// Of all questions: closed right, open equal.
    pub overall: Accuracy,
    /// Of closed questions.
    pub closed: Accuracy,
    /// Of open questions: equal after the normalisation.
    pub open: Accuracy,
    /// The mean recall of the right answer's words, of open questions.
    pub open_recall: Accuracy,
    /// The mean F1 of words, of open questions.
    pub open_f1: Accuracy,
    /// As `overall`, by kind of image.
    pub by_modality: Vec<Group>,
    /// As `overall`, by organ.
    pub by_organ: Vec<Group>,
    /// As `overall`, by type of question.
    pub by_question_type: Vec<Group>,
    /// What does not correspond. `unreadable_predictions` have neither `yes` nor `no` where one of them is
    /// right.
    pub findings: Findings,
    /// The scores of each question.
    #[serde(skip)]
    pub per_question: Vec<MedicalScore>,
}

/// The scores of one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MedicalScore {
    /// The question's id.
    pub question_id: Id,
    /// Open or closed.
    pub answer_type: AnswerType,
    /// The right answer.
    pub answer: String,
    /// The prediction.
    pub prediction: Option<String>,
    /// 1 if the prediction is right.
    pub score: f64,
    /// The recall of the right answer's words.
    pub recall: f64,
    /// The F1 of words.
    pub f1: f64,
}

impl MedicalReport {
    /// Measures predictions.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[MedicalQuestion],
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let items: Vec<&MedicalQuestion> = questions.iter().collect();
        let matched = match_predictions(items, |it| &it.question_id, predictions, &mut findings, on_problem)?;
        let scored: Vec<(&MedicalQuestion, MedicalScore)> = matched
            .into_iter()
            .map(|(question, prediction)| (question, question.measure(prediction, &mut findings)))
            .collect();
        let of = |answer_type, value: fn(&MedicalScore) -> f64| {
            let measured = scored.iter().filter(|(_, score)| score.answer_type == answer_type);
            Accuracy::of(measured.map(|(_, score)| value(score)))
        };
        let by = |name: fn(&MedicalQuestion) -> &Option<String>| {
            groups(scored.iter().map(|(question, score)| (name(question).as_deref(), score.score)))
        };
        Ok(Self {
            overall: Accuracy::of(scored.iter().map(|(_, score)| score.score)),
            closed: of(AnswerType::Closed, |score| score.score),
            open: of(AnswerType::Open, |score| score.score),
            open_recall: of(AnswerType::Open, |score| score.recall),
            open_f1: of(AnswerType::Open, |score| score.f1),
            by_modality: by(|question| &question.modality),
            by_organ: by(|question| &question.organ),
            by_question_type: by(|question| &question.question_type),
            findings,
            per_question: scored.into_iter().map(|(_, score)| score).collect(),
        })
    }
}

impl MedicalQuestion {
    fn measure(&self, prediction: Option<&Prediction>, findings: &mut Findings) -> MedicalScore {
        let answer = words(&self.answer);
        let given = prediction.map(|prediction| words(&prediction.answer)).unwrap_or_default();
        let is_right = match self.answer_type {
            AnswerType::Open => prediction.is_some() && given == answer,
            AnswerType::Closed => {
                let closed = closed_answer(&given, &answer);
                if prediction.is_some() && closed == ClosedAnswer::Unreadable {
                    findings.add(FindingKind::UnreadablePredictions, &self.question_id);
                }
                prediction.is_some() && closed == ClosedAnswer::Right
            }
        };
        let common = common_words(&given, &answer) as f64;
        // Without words on either side the texts are equal or not.
        let ratio = |words: usize| if words == 0 { score(is_right) } else { common / words as f64 };
        MedicalScore {
            question_id: self.question_id.clone(),
            answer_type: self.answer_type,
            answer: self.answer.clone(),
            prediction: prediction.map(|prediction| prediction.answer.clone()),
            score: score(is_right),
            recall: ratio(answer.len()),
            f1: if given.is_empty() && answer.is_empty() {
                score(is_right)
            } else {
                2.0 * common / (given.len() + answer.len()) as f64
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(answer_type: AnswerType, answer: &str, prediction: &str) -> (f64, f64, f64) {
        let question = MedicalQuestion {
            question_id: "1".into(),
            answer: answer.into(),
            answer_type,
            modality: None,
            organ: None,
            question_type: None,
        };
        let prediction = Prediction { question_id: "1".into(), answer: prediction.into(), confidence: None };
        let score = question.measure(Some(&prediction), &mut Findings::default());
        (score.score, score.recall, score.f1)
    }

    #[test]
    fn words_are_split_by_the_stated_normalisation() {
        let joined = |text: &str| words(text).join("|");
        assert_eq!(joined("The X-ray of a 1.5 cm Mass."), "x|ray|of|1.5|cm|mass");
        assert_eq!(joined("T2-weighted, left/right"), "t2|weighted|left|right");
        assert_eq!(joined("肺部 CT。"), "肺|部|ct");
        assert_eq!(joined(" .5. An "), "5");
        assert_eq!(joined(""), "");
    }

    #[test]
    fn closed_answers_need_the_word_itself() {
        let closed = |answer, prediction| measured(AnswerType::Closed, answer, prediction).0;
        assert_eq!(closed("No", "no, the lungs are clear"), 1.0);
        assert_eq!(closed("no", "The heart is normal, nothing to note"), 0.0);
        assert_eq!(closed("Yes", "It is. Yes"), 1.0);
        assert_eq!(closed("yes", "no ... yes"), 0.0);
        assert_eq!(closed("Left", "left."), 1.0);
        assert_eq!(closed("left", "left or right"), 0.0);
        assert_eq!(closed("", "x"), 0.0);
    }

    #[test]
    fn open_answers_have_recall_and_f1_of_words() {
        let (equal, recall, f1) = measured(AnswerType::Open, "right upper lobe", "The upper lobe");
        assert_eq!((equal, recall), (0.0, 2.0 / 3.0));
        assert!((f1 - 4.0 / 5.0).abs() < 1e-12);
        assert_eq!(measured(AnswerType::Open, "Heart", "the heart."), (1.0, 1.0, 1.0));
        assert_eq!(measured(AnswerType::Open, "no no", "no"), (0.0, 0.5, 2.0 / 3.0));
        assert_eq!(measured(AnswerType::Open, "the", "a"), (1.0, 1.0, 1.0));
        assert_eq!(measured(AnswerType::Open, "x", ""), (0.0, 0.0, 0.0));
    }

    #[test]
    fn published_files_are_read_and_filtered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.json");
        let text = r#"[{"img_id": 1, "qid": 11, "question": "?", "answer": "Yes", "answer_type": "CLOSED ",
            "q_lang": "en", "modality": "CT", "location": "Lung", "content_type": "Abnormality"},
            {"qid": 12, "answer": "肺", "answer_type": "OPEN", "q_lang": "zh"},
            {"qid": "13", "answer": 4, "answer_type": "open", "q_lang": "en", "phrase_type": "test_para"}]"#;
        std::fs::write(&path, text).unwrap();
        let filter = MedicalFilter { language: Some("en".into()), test_phrases: false };
        let (questions, left_out) = read_questions(&path, &filter).unwrap();
        assert_eq!((questions.len(), left_out), (2, 1));
        assert_eq!((questions[1].answer.as_str(), questions[0].organ.as_deref()), ("4", Some("Lung")));
        let filter = MedicalFilter { language: None, test_phrases: true };
        assert_eq!(read_questions(&path, &filter).unwrap().0.len(), 1);

        let given = |id: &str, answer: &str| Prediction {
            question_id: id.into(),
            answer: answer.into(),
            confidence: None,
        };
        let predictions = [given("11", "certainly"), given("13", "4")];
        let report = MedicalReport::new(&questions, &predictions, OnProblem::Refuse).unwrap();
        assert_eq!((report.overall.percent, report.closed.percent, report.open.percent), (50.0, 0.0, 100.0));
        assert_eq!((report.closed.questions, report.open.questions), (1, 1));
        assert_eq!(report.findings.count(FindingKind::UnreadablePredictions), 1);
        assert_eq!(report.by_modality.len(), 2);

        std::fs::write(&path, r#"[{"qid": 1, "answer": "x", "answer_type": "binary"}]"#).unwrap();
        let error = read_questions(&path, &MedicalFilter::default()).unwrap_err().to_string();
        assert!(error.ends_with("question 1: answer_type \"BINARY\" is not OPEN or CLOSED"), "{error}");
    }
}
