//! Questions or samples drawn by the frequency of their class.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sources::mix::Mix;
use crate::sources::wrapped::{open_indexed, read};
use crate::{Dataset, DatasetConfig, Error, Question, Result, Sample, WeightedDataset};

/// A data set whose classes are balanced: a sample of a class with `count` samples is drawn in proportion to
/// `count` to the power of -[`power`](Self::power). Each class goes through epochs of its own, and the
/// samples of rare classes come several times before frequent ones come once. In the config:
///
/// ```
/// let config: mm_data::DatasetConfig = toml::from_str(r#"
///     kind = "balanced"
///     by = "answer"
///     power = 0.5
///     of = { kind = "shapes", samples = 20, content = "questions" }
/// "#)?;
/// let dataset = config.open()?;
/// assert_eq!(dataset.sample(0)?.questions.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// By answer or its type, a sample is one question; its key is `KEY#ID` with the question's id where the
/// image has several. Opening the data set reads each sample once. Samples that cannot be read, samples
/// without questions and questions without a class are drawn with the most frequent class, so that the loader
/// counts them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalancedConfig {
    /// The data set. It has random access, and is not itself mixed or balanced.
    pub of: Box<DatasetConfig>,
    /// The class of a sample.
    #[serde(default)]
    pub by: BalanceBy,
    /// From 0, which keeps the frequencies of the classes, to 1, which makes all classes equally frequent.
    #[serde(default = "power")]
    pub power: f64,
}

fn power() -> f64 {
    1.0
}

/// The class that a [`BalancedConfig`] balances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalanceBy {
    /// The most frequent answer to a question; the first of several.
    #[default]
    Answer,
    /// [`Question::kind`].
    AnswerType,
    /// [`Sample::label`].
    Label,
}

impl BalanceBy {
    fn word(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::AnswerType => "answer type",
            Self::Label => "label",
        }
    }

    /// The places in a sample, each with its class.
    fn places(self, index: usize, sample: &Sample) -> Vec<(Option<String>, Place)> {
        if self == Self::Label {
            return vec![(sample.label.clone(), Place { index, question: None })];
        }
        let class = |question: &Question| match self {
            Self::AnswerType => question.kind.clone(),
            _ => most_frequent_answer(question).map(str::to_owned),
        };
        let numbered = sample.questions.iter().enumerate();
        numbered.map(|(number, it)| (class(it), Place { index, question: Some(number) })).collect()
    }
}

/// The answer that most annotators give, the first of several; VQA v2 names it.
fn most_frequent_answer(question: &Question) -> Option<&str> {
    if let Some(answer) = &question.multiple_choice_answer {
        return Some(answer);
    }
    let count = |answer: &String| question.answers.iter().filter(|other| *other == answer).count();
    // The last of equal maxima is taken: the first answer, from the end.
    question.answers.iter().rev().max_by_key(|answer| count(answer)).map(String::as_str)
}

/// A sample of the data set, or one of its questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    index: usize,
    question: Option<usize>,
}

/// # Errors
/// `power` is out of its range, the data set cannot be opened, or no sample has a class.
pub(crate) fn open(config: &BalancedConfig) -> Result<Mix> {
    let BalancedConfig { of, by, power } = config;
    if !(0.0..=1.0).contains(power) {
        return Err(Error::Setting(format!("power = {power}: it must be from 0 to 1")));
    }
    let dataset = open_indexed("balanced", of)?;
    let mut classes: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    let mut without = Vec::new();
    for index in 0..dataset.len() {
        let Ok(sample) = read(&*dataset, index) else {
            without.push(Place { index, question: None });
            continue;
        };
        let places = by.places(index, &sample);
        if places.is_empty() {
            without.push(Place { index, question: None });
        }
        for (class, place) in places {
            match class {
                Some(class) => classes.entry(class).or_default().push(place),
                None => without.push(place),
            }
        }
    }
    let word = by.word();
    let Some(largest) = classes.values_mut().max_by_key(|places| places.len()) else {
        return Err(Error::Empty {
            name: dataset.name().to_owned(),
            hint: format!("none of its {} samples has an {word} to balance by", dataset.len()),
        });
    };
    largest.append(&mut without);
    let name = format!("{} (balanced by {word}, {} classes)", dataset.name(), classes.len());
    let mixture = classes.into_iter().map(|(class, places)| WeightedDataset {
        weight: (places.len() as f64).powf(1.0 - power),
        dataset: Arc::new(Class {
            name: format!("{} ({word} `{class}`)", dataset.name()),
            dataset: dataset.clone(),
            places,
        }),
    });
    Ok(Mix::new(name, mixture.collect()).shuffled())
}

/// The samples of a class.
struct Class {
    name: String,
    dataset: Arc<dyn Dataset>,
    places: Vec<Place>,
}

impl Dataset for Class {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.places.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let Place { index, question } = self.places[index];
        let mut sample = self.dataset.sample(index)?;
        if let Some(number) = question
            && sample.questions.len() > 1
        {
            let question = sample.questions.swap_remove(number);
            sample.key = format!("{}#{}", sample.key, question.id);
            sample.questions = vec![question];
        }
        Ok(sample)
    }

    fn key(&self, index: usize) -> String {
        self.dataset.key(self.places[index].index)
    }

    fn location(&self, index: usize) -> String {
        self.dataset.location(self.places[index].index)
    }

    fn credit(&self) -> &str {
        self.dataset.credit()
    }
}
