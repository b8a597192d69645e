//! An independent oracle: parses the texts as English and the scene as JSON, without code of the generator.

use mm_data::shapes::Scene;
use serde_json::Value;

pub const SIZES: [&str; 2] = ["small", "large"];
pub const PATTERNS: [&str; 4] = ["solid", "striped", "spotted", "hollow"];
pub const COLOURS: [&str; 8] = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"];
const SHAPES: [&str; 6] = ["circle", "square", "triangle", "star", "cross", "heart"];
const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];
const RELATIONS: [&str; 4] = [" to the left of ", " to the right of ", " above ", " below "];

/// The minimum distance of a relation, in thousandths; a negative must be false even by one.
pub const PLAINLY: i64 = 150;
pub const BARELY: i64 = 1;

/// An object as its four words and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    pub words: [String; 4],
    pub x: i64,
    pub y: i64,
}

pub fn things(scene: &Scene) -> Vec<Thing> {
    let json = serde_json::to_value(scene).unwrap();
    let word = |object: &Value, key: &str| object[key].as_str().unwrap().to_owned();
    let thing = |object: &Value| Thing {
        words: ["size", "pattern", "colour", "shape"].map(|key| word(object, key)),
        x: object["x"].as_i64().unwrap(),
        y: object["y"].as_i64().unwrap(),
    };
    json["objects"].as_array().unwrap().iter().map(thing).collect()
}

/// A noun phrase: its article or number, and its words with the noun in the singular.
#[derive(Debug, Clone)]
pub struct Phrase {
    pub article: String,
    pub words: Vec<String>,
}

impl Phrase {
    /// Reads `a red circle`, `two circles`, `the shape`, `red circles`; anything that is not good English
    /// fails the test.
    pub fn read(text: &str) -> Self {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let is_article = |word: &str| ["a", "an", "the"].contains(&word) || NUMBERS.contains(&word);
        let article = if is_article(&words[0]) { words.remove(0) } else { String::new() };
        let plural = article.is_empty() || NUMBERS[2..].contains(&article.as_str());
        let noun = words.pop().unwrap();
        let noun = match (plural, noun.as_str()) {
            (false, _) => noun.as_str(),
            (true, "crosses") => "cross",
            (true, _) => noun.strip_suffix('s').unwrap_or_else(|| panic!("{text}: no plural")),
        };
        assert!(noun == "shape" || SHAPES.contains(&noun), "{text}: {noun}");
        // Adjectives are in this order, each at most once.
        let order = [&SIZES[..], &PATTERNS[..], &COLOURS[..]];
        let places: Vec<usize> = words
            .iter()
            .map(|word| {
                order
                    .iter()
                    .position(|list| list.contains(&word.as_str()))
                    .unwrap_or_else(|| panic!("{text}"))
            })
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{text}");
        words.push(noun.to_owned());
        let vowel = words[0].starts_with(['a', 'e', 'i', 'o', 'u']);
        assert!(article != "an" || vowel, "{text}");
        assert!(article != "a" || !vowel, "{text}");
        Self { article, words }
    }

    pub fn fits(&self, thing: &Thing) -> bool {
        self.words.iter().all(|word| word == "shape" || thing.words.contains(word))
    }

    pub fn count(&self, things: &[Thing]) -> usize {
        things.iter().filter(|thing| self.fits(thing)).count()
    }

    /// The number that the article stands for.
    pub fn number(&self) -> usize {
        NUMBERS.iter().position(|number| *number == self.article).unwrap_or(1)
    }
}

/// The object that `the red circle` or `the shape above the red circle` refers to.
pub fn referent<'a>(text: &str, things: &'a [Thing]) -> &'a Thing {
    let (phrase, place) = match related(text) {
        None => (Phrase::read(text), None),
        Some((phrase, relation, landmark)) => {
            (Phrase::read(phrase), Some((relation, referent(landmark, things))))
        }
    };
    assert_eq!(phrase.article, "the", "{text}");
    let meant = |thing: &&Thing, least: i64| {
        phrase.fits(thing)
            && place.is_none_or(|(relation, landmark)| distance(relation, thing, landmark) >= least)
    };
    let found: Vec<&Thing> = things.iter().filter(|thing| meant(thing, PLAINLY)).collect();
    let perhaps = things.iter().filter(|thing| meant(thing, BARELY)).count();
    assert_eq!((found.len(), perhaps), (1, 1), "{text}: {things:?}");
    found[0]
}

/// `(one, relation, other)` of the first relation in a text.
pub fn related(text: &str) -> Option<(&str, &'static str, &str)> {
    let found = RELATIONS.into_iter().filter_map(|relation| Some((text.find(relation)?, relation)));
    let (at, relation) = found.min()?;
    Some((&text[..at], relation, &text[at + relation.len()..]))
}

pub fn distance(relation: &str, one: &Thing, other: &Thing) -> i64 {
    match relation {
        " to the left of " => other.x - one.x,
        " to the right of " => one.x - other.x,
        " above " => other.y - one.y,
        " below " => one.y - other.y,
        _ => panic!("{relation}"),
    }
}

/// The phrases of a caption without relations, without its opening words.
pub fn list(caption: &str) -> Vec<Phrase> {
    let list =
        ["a picture of ", "there is ", "exactly "].iter().find_map(|opening| caption.strip_prefix(opening));
    list.unwrap_or(caption).split(", ").flat_map(|part| part.split(" and ")).map(Phrase::read).collect()
}

/// Whether a caption is true: such objects exist, all distinct, and related by at least `margin`.
pub fn is_true(caption: &str, things: &[Thing], margin: i64) -> bool {
    if caption.starts_with("exactly ") {
        let phrases = list(caption);
        return phrases.len() == 1 && phrases[0].count(things) == phrases[0].number();
    }
    if related(caption).is_some() {
        let mut chain = Vec::new();
        let mut rest = caption.replace(", which is ", " ");
        while let Some((phrase, relation, after)) = related(&rest) {
            chain.push((Phrase::read(phrase), Some(relation)));
            rest = after.to_owned();
        }
        chain.push((Phrase::read(&rest), None));
        return chain_holds(&chain, None, things, margin);
    }
    let wanted: Vec<Phrase> =
        list(caption).iter().flat_map(|phrase| vec![phrase.clone(); phrase.number()]).collect();
    can_assign(&wanted, things, &mut vec![false; things.len()])
}

fn chain_holds(
    chain: &[(Phrase, Option<&str>)],
    last: Option<(&Thing, &str)>,
    things: &[Thing],
    margin: i64,
) -> bool {
    let Some(((phrase, relation), rest)) = chain.split_first() else { return true };
    things.iter().any(|thing| {
        phrase.fits(thing)
            && last.is_none_or(|(last, relation)| distance(relation, last, thing) >= margin)
            && chain_holds(rest, relation.map(|relation| (thing, relation)), things, margin)
    })
}

fn can_assign(wanted: &[Phrase], things: &[Thing], taken: &mut Vec<bool>) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    (0..things.len()).any(|place| {
        if taken[place] || !first.fits(&things[place]) {
            return false;
        }
        taken[place] = true;
        let assigned = can_assign(rest, things, taken);
        taken[place] = false;
        assigned
    })
}

/// The answer to a question.
pub fn answer(question: &str, things: &[Thing]) -> String {
    let yes_or_no = |yes: bool| (if yes { "yes" } else { "no" }).to_owned();
    let text = question.strip_suffix('?').unwrap();
    if let Some(phrase) = text.strip_prefix("Is there ") {
        return yes_or_no(Phrase::read(phrase).count(things) > 0);
    }
    if let Some(phrase) = text.strip_prefix("How many ") {
        return Phrase::read(phrase.strip_suffix(" are there").unwrap()).count(things).to_string();
    }
    if let Some(phrase) = text.strip_prefix("What colour is ") {
        return referent(phrase, things).words[2].clone();
    }
    if let Some(phrases) = text.strip_prefix("Do ") {
        let (one, other) =
            phrases.strip_suffix(" have the same colour").unwrap().split_once(" and ").unwrap();
        return yes_or_no(referent(one, things).words[2] == referent(other, things).words[2]);
    }
    if let Some(rest) = text.strip_prefix("Are there ") {
        let (word, rest) = rest.split_once(' ').unwrap();
        let (one, other) = rest.split_once(" than ").unwrap();
        let (one, other) = (Phrase::read(one).count(things), Phrase::read(other).count(things));
        return yes_or_no(if word == "more" { one > other } else { one < other });
    }
    let rest = text.strip_prefix("Is ").unwrap();
    for (word, size) in [(" larger than ", "large"), (" smaller than ", "small")] {
        if let Some((one, other)) = rest.split_once(word) {
            let (one, other) = (referent(one, things), referent(other, things));
            assert_ne!(one.words[0], other.words[0], "{question}");
            return yes_or_no(one.words[0] == size);
        }
    }
    let (one, relation, other) = related(rest).unwrap();
    let distance = distance(relation, referent(one, things), referent(other, things));
    assert!(distance.abs() >= PLAINLY, "{question}");
    yes_or_no(distance > 0)
}
