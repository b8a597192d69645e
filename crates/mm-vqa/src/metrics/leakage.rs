//! What two splits of a data set share. An answer about an image or a patient that training has seen says
//! little about new ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::id::Id;
use super::words::words;

/// The SHA-256 of an image's bytes.
pub type ContentHash = [u8; 32];

/// The hash of an image file's bytes.
pub fn content_hash(bytes: &[u8]) -> ContentHash {
    Sha256::digest(bytes).into()
}

/// A question of a split.
#[derive(Clone, Debug)]
pub struct LeakageItem<'a> {
    /// The image.
    pub image: Id,
    /// The question's text.
    pub question: &'a str,
    /// The patient, or another group whose members must not be in two splits.
    pub group: Option<&'a str>,
    /// The hash of the image file, to find one image under two names.
    pub content: Option<ContentHash>,
}

/// What is shared under one view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The number of different ones in the test split.
    pub in_test: usize,
    /// How many of them training has too.
    pub shared: usize,
    /// The number of test questions that are about a shared one.
    pub test_questions: usize,
    /// The first of them in the test split, at most five.
    pub first: Vec<String>,
}

/// What a test split shares with a training split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeakageReport {
    /// The number of training questions.
    pub train_questions: usize,
    /// The number of test questions.
    pub test_questions: usize,
    /// Images by id.
    pub images: Shared,
    /// Images by content; `None` where no item of one of the splits has a hash.
    pub images_by_content: Option<Shared>,
    /// The same question, but for case, punctuation and white space, about the same image by id.
    pub image_questions: Shared,
    /// Question texts about any image. Templates make many, and that alone is no fault.
    pub questions: Shared,
    /// Patients or other groups; `None` where no item of one of the splits has one.
    pub groups: Option<Shared>,
}

impl LeakageReport {
    /// Compares two splits.
    pub fn new(train: &[LeakageItem], test: &[LeakageItem]) -> Self {
        let every = |key: fn(&LeakageItem) -> Option<String>| shared(train, test, key).unwrap_or_default();
        Self {
            train_questions: train.len(),
            test_questions: test.len(),
            images: every(|item| Some(item.image.to_string())),
            images_by_content: shared(train, test, |item| {
                item.content.map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect())
            }),
            image_questions: every(|item| {
                Some(format!("{}: {}", item.image, words(item.question).join(" ")))
            }),
            questions: every(|item| Some(words(item.question).join(" "))),
            groups: shared(train, test, |item| item.group.map(str::to_owned)),
        }
    }

    /// Whether no image, content or group is in both splits. Shared texts of questions are allowed.
    pub fn is_clean(&self) -> bool {
        let is_clean = |shared: &Shared| shared.shared == 0;
        is_clean(&self.images)
            && self.images_by_content.as_ref().is_none_or(is_clean)
            && self.groups.as_ref().is_none_or(is_clean)
    }
}

/// `None` where no item of one of the splits has a key.
fn shared(
    train: &[LeakageItem],
    test: &[LeakageItem],
    key: fn(&LeakageItem) -> Option<String>,
) -> Option<Shared> {
    const NAMED: usize = 5;
    let known: BTreeSet<String> = train.iter().filter_map(key).collect();
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    let mut report = Shared::default();
    for key in test.iter().filter_map(key) {
        let is_known = known.contains(&key);
        report.test_questions += usize::from(is_known);
        let is_new = !found.contains_key(&key);
        if is_new && is_known && report.first.len() < NAMED {
            report.first.push(key.clone());
        }
        found.insert(key, is_known);
    }
    report.in_test = found.len();
    report.shared = found.values().filter(|is_known| **is_known).count();
    (!known.is_empty() && !found.is_empty()).then_some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item<'a>(image: &str, question: &'a str, group: Option<&'a str>, bytes: &[u8]) -> LeakageItem<'a> {
        LeakageItem { image: image.into(), question, group, content: Some(content_hash(bytes)) }
    }

    #[test]
    fn shared_images_patients_and_questions_are_counted() {
        let train = [item("a", "Is it?", Some("p1"), b"1"), item("b", "Why?", Some("p2"), b"2")];
        let test = [
            item("a", "is IT", Some("p1"), b"1"),
            item("a", "Why?", Some("p1"), b"1"),
            item("c", "Where?", Some("p3"), b"2"),
        ];
        let report = LeakageReport::new(&train, &test);
        let counts = |shared: &Shared| (shared.in_test, shared.shared, shared.test_questions);
        assert_eq!(counts(&report.images), (2, 1, 2));
        assert_eq!(report.images.first, ["a"]);
        assert_eq!(counts(report.images_by_content.as_ref().unwrap()), (2, 2, 3));
        assert_eq!(counts(&report.image_questions), (3, 1, 1));
        assert_eq!(report.image_questions.first, ["a: is it"]);
        assert_eq!(counts(&report.questions), (3, 2, 2));
        assert_eq!(counts(report.groups.as_ref().unwrap()), (2, 1, 2));
        assert!(!report.is_clean());
    }

    #[test]
    fn splits_without_hashes_or_groups_are_not_called_clean_by_them() {
        let item =
            |image: &str| LeakageItem { image: image.into(), question: "Why?", group: None, content: None };
        let report = LeakageReport::new(&[item("a")], &[item("b")]);
        assert_eq!((report.images_by_content.clone(), report.groups.clone()), (None, None));
        assert!(report.is_clean());
        assert_eq!(LeakageReport::new(&[], &[]).images, Shared::default());
    }
}
