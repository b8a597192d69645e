//! The words that name the 80 classes of COCO, and their mentions in a caption.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Serialize;

use super::singular::singular;
use super::tokens::tokens;

/// The classes and their words: `class: word, word`. A line that starts with spaces continues the one before.
const TABLE: &str = include_str!("objects.txt");

/// Pairs of words that are one word.
const DOUBLE_WORDS: [&str; 26] = [
    "motor bike",
    "motor cycle",
    "air plane",
    "traffic light",
    "street light",
    "traffic signal",
    "stop light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "suit case",
    "sports ball",
    "baseball bat",
    "baseball glove",
    "tennis racket",
    "wine glass",
    "hot dog",
    "cell phone",
    "mobile phone",
    "teddy bear",
    "hair drier",
    "potted plant",
    "bow tie",
    "laptop computer",
    "home plate",
    "train track",
];

/// Pairs of words that stand for another word, after [`DOUBLE_WORDS`]. The singular of `glass` is `glas`.
const REPLACED: [(&str, &str); 3] =
    [("bow tie", "tie"), ("toilet seat", "toilet"), ("wine glas", "wine glass")];

/// Animals after `baby` and `adult`, which are no persons then.
const ANIMALS: [&str; 12] =
    ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"];

/// Vehicles after `passenger`, which is no person then.
const VEHICLES: [&str; 2] = ["jet", "train"];

/// A word of a caption that names an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mention {
    /// The word in the singular, or two words: `hot dog`.
    pub word: String,
    /// The class of COCO.
    pub class: &'static str,
}

/// The words of CHAIR.
#[derive(Debug)]
pub struct CocoObjects {
    /// The class of each word.
    words: HashMap<&'static str, &'static str>,
    /// The classes in COCO's order.
    classes: Vec<&'static str>,
    double_words: HashMap<String, &'static str>,
}

impl CocoObjects {
    /// The table, which is parsed once.
    pub fn get() -> &'static Self {
        static OBJECTS: LazyLock<CocoObjects> = LazyLock::new(CocoObjects::parse);
        &OBJECTS
    }

    fn parse() -> Self {
        let (mut words, mut classes) = (HashMap::new(), Vec::new());
        let mut class = "";
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let mut list = line;
            if !line.starts_with(' ') {
                (class, list) = line.split_once(':').unwrap_or((line, ""));
                classes.push(class);
                words.insert(class, class);
            }
            let list = list.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.extend(list.map(|word| (word, class)));
        }
        let mut double_words: HashMap<String, &'static str> = HashMap::new();
        double_words.extend(DOUBLE_WORDS.map(|pair| (pair.to_owned(), pair)));
        for animal in ANIMALS {
            double_words.extend(["baby", "adult"].map(|kind| (format!("{kind} {animal}"), animal)));
        }
        double_words.extend(VEHICLES.map(|vehicle| (format!("passenger {vehicle}"), vehicle)));
        double_words.extend(REPLACED.map(|(pair, word)| (pair.to_owned(), word)));
        Self { words, classes, double_words }
    }

    /// The 80 classes in COCO's order.
    pub fn classes(&self) -> &[&'static str] {
        &self.classes
    }

    /// The class that a word or the name of a category stands for.
    pub fn class(&self, word: &str) -> Option<&'static str> {
        self.words.get(word).copied()
    }

    /// The mentions of objects in a caption, in order.
    pub fn mentions(&self, caption: &str) -> Vec<Mention> {
        let mut words = self.join(tokens(&caption.to_lowercase()).iter().map(|token| singular(token)));
        // The seat of a toilet is no chair.
        if words.iter().any(|word| word == "toilet") {
            words.retain(|word| word != "seat");
        }
        let mention = |word: String| Some(Mention { class: self.class(&word)?, word });
        words.into_iter().filter_map(mention).collect()
    }

    /// Joins the pairs of words that are one word, from left to right.
    fn join(&self, words: impl Iterator<Item = String>) -> Vec<String> {
        let words: Vec<String> = words.collect();
        let mut joined = Vec::with_capacity(words.len());
        let mut rest = &words[..];
        while let Some((first, after)) = rest.split_first() {
            let pair = after.first().and_then(|next| self.double_words.get(&format!("{first} {next}")));
            joined.push(pair.map_or_else(|| first.clone(), |&word| word.to_owned()));
            rest = if pair.is_some() { &after[1..] } else { after };
        }
        joined
    }
}
