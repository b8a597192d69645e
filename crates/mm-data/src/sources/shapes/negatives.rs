//! Hard negatives: false captions that are close to true ones.

use serde::Serialize;

use super::captions::{COUNTABLE, exactly};
use super::describe::{COLOUR, Description, EVERYTHING, PATTERN, SHAPE, SIZE, listed};
use super::draw::{coin, one_of, pick};
use super::object::{Object, Shape, worded};
use super::scene::{Relation, Scene};
use crate::SampleRng;

worded! {
    /// The difference between a negative and its positive.
    NegativeKind {
        /// Two objects swap a color, size or pattern: the same words in another binding.
        SwappedAttributes = "swapped_attributes",
        /// One attribute of one object is replaced.
        ReplacedAttribute = "replaced_attribute",
        /// The opposite relation, or the two objects swapped: the same words in another order.
        InvertedRelation = "inverted_relation",
        /// A count that is one too high or too low.
        WrongCount = "wrong_count",
        /// One of several objects is replaced by one with a shape that the scene does not have.
        AbsentObject = "absent_object",
    }
}

/// A true and a false caption with one difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Negative {
    /// The difference.
    pub kind: NegativeKind,
    /// True of the scene.
    pub positive: String,
    /// False of the scene in any reading: `a red circle` is false only where no circle is red.
    pub negative: String,
}

impl Scene {
    /// A negative of each [`NegativeKind`] that is possible in the scene: a swap needs two objects.
    pub fn negatives(&self) -> Vec<Negative> {
        let rng = &mut self.rng("negatives");
        let made = NegativeKind::ALL.map(|kind| {
            let (positive, negative) = match kind {
                NegativeKind::SwappedAttributes => self.swapped(rng),
                NegativeKind::ReplacedAttribute => self.replaced(rng),
                NegativeKind::InvertedRelation => self.inverted(rng),
                NegativeKind::WrongCount => self.miscounted(rng),
                NegativeKind::AbsentObject => self.absent(rng),
            }?;
            Some(Negative { kind, positive, negative })
        });
        made.into_iter().flatten().collect()
    }

    fn swapped(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let mut found = Vec::new();
        for (one, _, other) in self.relations() {
            let (one, other) = (&self.objects()[one], &self.objects()[other]);
            for (naming, swapped) in [
                (COLOUR, (Object { colour: other.colour, ..*one }, Object { colour: one.colour, ..*other })),
                (SIZE, (Object { size: other.size, ..*one }, Object { size: one.size, ..*other })),
                (
                    PATTERN,
                    (Object { pattern: other.pattern, ..*one }, Object { pattern: one.pattern, ..*other }),
                ),
            ] {
                let phrases = |one, other| [one, other].map(|object| Description::of(object, naming | SHAPE));
                let (positive, negative) = (phrases(one, other), phrases(&swapped.0, &swapped.1));
                let is_false = negative.iter().any(|phrase| self.count(phrase) == 0);
                if one.shape != other.shape && is_false && negative.iter().all(|phrase| self.may_name(phrase))
                {
                    found.push((positive, negative, Relation::between(one, other)));
                }
            }
        }
        let (positive, negative, relation) = pick(rng, &found)?;
        let joint = if coin(rng) { "and" } else { relation.words() };
        let say =
            |[one, other]: [Description; 2]| format!("{} {joint} {}", one.indefinite(), other.indefinite());
        Some((say(positive), say(negative)))
    }

    fn replaced(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let naming = one_of(
            rng,
            [COLOUR | SHAPE, PATTERN | SHAPE, SIZE | SHAPE, PATTERN | COLOUR | SHAPE, EVERYTHING],
        );
        let positive = Description::of(&pick(rng, self.objects())?, naming);
        let negative = self.near_miss(&positive, rng)?;
        Some((format!("there is {}", positive.indefinite()), format!("there is {}", negative.indefinite())))
    }

    fn inverted(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let (one, relation, other) = pick(rng, &self.relations())?;
        // Only phrases that match one object: of two, one could match and the other not.
        let one = self.referent(&self.objects()[one], EVERYTHING, rng)?.indefinite();
        let other = self.referent(&self.objects()[other], EVERYTHING, rng)?.indefinite();
        let positive = format!("{one} {} {other}", relation.words());
        let negative = if coin(rng) {
            format!("{one} {} {other}", relation.opposite().words())
        } else {
            format!("{other} {} {one}", relation.words())
        };
        Some((positive, negative))
    }

    /// For two phrases of one kind with counts that differ by one, either count is replaced by the other:
    /// otherwise low counts would be true and high counts false more often, and the text alone would tell.
    fn miscounted(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let mut pairs = Vec::new();
        for naming in COUNTABLE {
            let counts = self.objects().iter().map(|object| {
                let description = Description::of(object, naming);
                (description, self.count(&description))
            });
            for (high, count) in counts.clone() {
                pairs.extend(counts.clone().filter(|low| low.1 + 1 == count).map(|low| (low, (high, count))));
            }
        }
        let (low, high) = pick(rng, &pairs)?;
        let (positive, wrong) = if coin(rng) { (low, high.1) } else { (high, low.1) };
        Some((exactly(&positive.0, positive.1), exactly(&positive.0, wrong)))
    }

    /// One of several phrases gets an absent shape and keeps its color. It is a phrase of the only object of
    /// its shape, so that positive and negative repeat equally many shapes and colors.
    fn absent(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let mut phrases: Vec<Description> = Vec::new();
        for phrase in self.objects().iter().map(|object| Description::of(object, COLOUR | SHAPE)) {
            if !phrases.contains(&phrase) {
                phrases.push(phrase);
            }
        }
        if phrases.len() < 2 {
            return None;
        }
        let with_shape = |shape| phrases.iter().filter(|phrase| phrase.shape == Some(shape)).count();
        let mut lies = Vec::new();
        for (place, phrase) in phrases.iter().enumerate() {
            for absent in Shape::ALL.into_iter().filter(|&shape| with_shape(shape) == 0) {
                let stranger = Description { shape: Some(absent), ..*phrase };
                if phrase.shape.map(with_shape) == Some(1) && self.may_name(&stranger) {
                    lies.push((place, stranger));
                }
            }
        }
        let (place, stranger) = pick(rng, &lies)?;
        let say = |phrases: &[Description]| {
            listed(&phrases.iter().map(Description::indefinite).collect::<Vec<_>>())
        };
        let positive = say(&phrases);
        phrases[place] = stranger;
        Some((positive, say(&phrases)))
    }
}
