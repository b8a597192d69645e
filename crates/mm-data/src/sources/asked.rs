//! Data sets with a list of images and questions that is read when they are opened: shared by the readers of
//! question sets.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::sources::broken::{Broken, check_some};
use crate::sources::listed::root_beside;
use crate::{Dataset, Fault, Question, Result, Sample, SampleImage};

/// An image with its questions.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) key: String,
    /// The path relative to the folder of the images.
    pub(crate) image: String,
    /// [`Sample::group`].
    pub(crate) group: Option<String>,
    pub(crate) questions: Vec<Question>,
}

impl Asked {
    /// An image with one question. The key is that of the question.
    pub(crate) fn one(key: impl Into<String>, image: impl Into<String>, question: Question) -> Self {
        Self { key: key.into(), image: image.into(), group: None, questions: vec![question] }
    }
}

/// The entries of a file with one question each.
#[derive(Default)]
pub(crate) struct AskedList {
    entries: Vec<std::result::Result<Asked, Broken>>,
    keys: HashSet<String>,
}

impl AskedList {
    /// Adds an entry, or the reason why it cannot be read. An entry without a question, with an empty answer,
    /// without an image or with the key of an earlier one is a bad sample. `place` is its place in the file:
    /// `questions[7]`.
    pub(crate) fn add(&mut self, fault: Fault, place: &str, asked: std::result::Result<Asked, String>) {
        let checked = asked.and_then(|asked| {
            self.check(&asked)?;
            Ok(asked)
        });
        self.entries.push(checked.map_err(|reason| Broken::new(fault, format!("{place}: {reason}"))));
    }

    fn check(&mut self, Asked { key, image, questions, .. }: &Asked) -> std::result::Result<(), String> {
        let is_empty = |text: &String| text.trim().is_empty();
        if !self.keys.insert(key.clone()) {
            return Err(format!("an earlier question has the same id {key}"));
        }
        if questions.iter().any(|question| is_empty(&question.text)) {
            return Err(format!("question {key} is empty"));
        }
        if questions.iter().any(|question| question.answers.iter().any(is_empty)) {
            return Err(format!("the answer of question {key} is empty"));
        }
        if is_empty(image) {
            return Err(format!("question {key} is of no image"));
        }
        Ok(())
    }

    /// The data set of the file. Images are relative to `images_root`, by default the folder of the file.
    ///
    /// # Errors
    /// Those of [`AskedDataset::new`].
    pub(crate) fn open(self, file: &Path, images_root: Option<&PathBuf>) -> Result<AskedDataset> {
        AskedDataset::new(file, images_root, self.entries)
    }
}

/// A list of images with questions as a [`Dataset`].
pub(crate) struct AskedDataset {
    name: String,
    file: String,
    root: PathBuf,
    entries: Vec<std::result::Result<Asked, Broken>>,
}

impl AskedDataset {
    /// # Errors
    /// No entry, or no valid one, as in a file of another layout.
    pub(crate) fn new(
        file: &Path,
        images_root: Option<&PathBuf>,
        entries: Vec<std::result::Result<Asked, Broken>>,
    ) -> Result<Self> {
        let root = root_beside(file, images_root);
        let file = file.display().to_string();
        check_some(&file, &entries)?;
        Ok(Self { name: file.clone(), file, root, entries })
    }

    /// The same, with a note after the file in its name.
    pub(crate) fn noted(self, note: &str) -> Self {
        Self { name: format!("{} ({note})", self.file), ..self }
    }
}

impl Dataset for AskedDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let Asked { key, image, group, questions } =
            self.entries[index].as_ref().map_err(|broken| broken.error(&self.file))?;
        let image = SampleImage::File(self.root.join(image));
        Ok(Sample { group: group.clone(), questions: questions.clone(), ..Sample::new(key, image) })
    }
}

/// Deserializes a text or a number as a text without surrounding spaces: spreadsheets write `2` and `"2"`.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!("{other} is neither a text nor a number"))),
    }
}

/// The tags of a question: those with a text that is not empty.
pub(crate) fn tags<const N: usize>(named: [(&str, Option<String>); N]) -> BTreeMap<String, String> {
    let some = named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.trim().to_owned())));
    some.filter(|(_, text)| !text.is_empty()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The text, the answers and the path of the image of the only question of a sample.
    pub(crate) fn one(source: &dyn Dataset, index: usize) -> (Question, String) {
        let sample = source.sample(index).unwrap();
        let SampleImage::File(path) = sample.image().unwrap() else { panic!("a file") };
        let path = path.display().to_string();
        let [question] = <[Question; 1]>::try_from(sample.questions).unwrap();
        (question, path)
    }

    /// Checks that the samples from `first` on are bad, each for the reason that ends its message.
    pub(crate) fn assert_bad(source: &dyn Dataset, first: usize, expected: &[&str]) {
        assert_eq!(source.len(), first + expected.len());
        for (index, reason) in expected.iter().enumerate() {
            let error = source.sample(first + index).unwrap_err();
            assert!(matches!(error.fault(), Fault::Json | Fault::Row), "{error}");
            assert!(error.to_string().ends_with(reason), "{error}");
        }
    }
}
