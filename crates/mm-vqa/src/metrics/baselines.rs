//! What is right without looking: the most frequent training answer of all questions, of the question's type,
//! or of the question itself. A number of a model says little without these beside it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::words::words;

/// A training question with its answers.
#[derive(Clone, Copy, Debug)]
pub struct TrainingQuestion<'a> {
    /// The text.
    pub question: &'a str,
    /// The type, where the set has types.
    pub question_type: Option<&'a str>,
    /// All answers, as the metric compares them: one in most sets, ten in VQA v2. Each counts.
    pub answers: &'a [String],
}

/// The most frequent answers of a training set. Serialized, it holds only what differs from the next more
/// general answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baselines {
    /// The most frequent answer of all.
    pub overall: String,
    /// By type of question.
    pub by_type: BTreeMap<String, String>,
    /// By the first words, and by whole questions.
    by_words: BTreeMap<String, String>,
}

/// The most words at the start of a question that have an answer of their own.
const FIRST_WORDS: usize = 4;

/// How often each answer was given, in order of appearance.
#[derive(Default)]
struct Counts<'a>(HashMap<&'a str, (usize, usize)>);

impl<'a> Counts<'a> {
    fn add(&mut self, answers: &'a [String]) {
        for answer in answers {
            let place = self.0.len();
            self.0.entry(answer).or_insert((0, place)).0 += 1;
        }
    }

    /// The most frequent answer; of several the first; of none the empty one.
    fn most_frequent(&self) -> &'a str {
        let best = self.0.iter().max_by_key(|&(_, &(count, place))| (count, Reverse(place)));
        best.map_or("", |(&answer, _)| answer)
    }
}

/// The keys of a question, from the whole, which ends with `?`, to its first word.
fn keys(question: &str) -> Vec<String> {
    let words = words(question);
    let whole = words.join(" ") + "?";
    let first = (1..=FIRST_WORDS.min(words.len())).rev().map(|count| words[..count].join(" "));
    std::iter::once(whole).chain(first).collect()
}

impl Baselines {
    /// Counts the answers of training questions.
    pub fn new<'a>(questions: impl IntoIterator<Item = TrainingQuestion<'a>>) -> Self {
        let mut overall = Counts::default();
        let mut by_type: BTreeMap<&str, Counts> = BTreeMap::new();
        // Each key with the next more general one.
        let mut by_words: BTreeMap<String, (Option<String>, Counts)> = BTreeMap::new();
        for question in questions {
            overall.add(question.answers);
            if let Some(name) = question.question_type {
                by_type.entry(name).or_default().add(question.answers);
            }
            let mut general = None;
            for key in keys(question.question).into_iter().rev() {
                let (_, counts) =
                    by_words.entry(key.clone()).or_insert_with(|| (general.take(), Counts::default()));
                counts.add(question.answers);
                general = Some(key);
            }
        }
        let overall = overall.most_frequent();
        let answer = |key: &String| by_words.get(key).map_or("", |(_, counts)| counts.most_frequent());
        let differs =
            |key: &String, general: &Option<String>| answer(key) != general.as_ref().map_or(overall, answer);
        let kept = by_words.iter().filter(|(key, (general, _))| differs(key, general));
        Self {
            by_words: kept.map(|(key, _)| (key.clone(), answer(key).to_owned())).collect(),
            by_type: by_type
                .into_iter()
                .map(|(name, counts)| (name.to_owned(), counts.most_frequent().to_owned()))
                .collect(),
            overall: overall.to_owned(),
        }
    }

    /// The blind prior: the most frequent training answer of the same question, else of its first four,
    /// three, two words or one word, else of all questions.
    pub fn blind(&self, question: &str) -> &str {
        keys(question).iter().find_map(|key| self.by_words.get(key)).unwrap_or(&self.overall)
    }

    /// The most frequent answer of a type, else of all questions.
    pub fn of_type(&self, question_type: Option<&str>) -> &str {
        question_type.and_then(|name| self.by_type.get(name)).unwrap_or(&self.overall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(questions: &[(&str, Option<&str>, &[&str])]) -> Baselines {
        let answers: Vec<Vec<String>> = questions
            .iter()
            .map(|(_, _, answers)| answers.iter().map(|&it| it.to_owned()).collect())
            .collect();
        Baselines::new(questions.iter().zip(&answers).map(|(&(question, question_type, _), answers)| {
            TrainingQuestion { question, question_type, answers }
        }))
    }

    #[test]
    fn a_question_without_its_own_answer_backs_off_to_its_first_words() {
        let baselines = train(&[
            ("What color is the cat?", Some("color"), &["black", "black", "white"]),
            ("What color is the bus?", Some("color"), &["red", "red", "red"]),
            ("How many dogs are there?", Some("count"), &["2", "2"]),
            ("Is it?", None, &["yes"; 9]),
        ]);
        assert_eq!(baselines.blind("what color is the CAT"), "black");
        assert_eq!(baselines.blind("What color is the moon?"), "red");
        assert_eq!(baselines.blind("How many?"), "2");
        assert_eq!(baselines.blind("Whose?"), "yes");
        assert_eq!(baselines.blind(""), "yes");
        assert_eq!(baselines.of_type(Some("color")), "red");
        assert_eq!((baselines.of_type(Some("why")), baselines.of_type(None)), ("yes", "yes"));
        // What backs off to the same answer is not kept.
        let keys: Vec<_> = baselines.by_words.keys().map(String::as_str).collect();
        assert_eq!(keys, ["how", "what", "what color is the cat?"]);
        let json = serde_json::to_string(&baselines).unwrap();
        assert_eq!(serde_json::from_str::<Baselines>(&json).unwrap(), baselines);
    }

    #[test]
    fn of_equally_frequent_answers_the_first_counts() {
        let baselines = train(&[("Why?", None, &["b", "a", "a", "b"])]);
        assert_eq!(baselines.overall, "b");
        assert_eq!(train(&[]).blind("Why?"), "");
    }
}
