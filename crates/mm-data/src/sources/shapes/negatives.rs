//! Hard negatives: captions that are false of a scene in nearly the words of one that is true.

use serde::Serialize;

use super::captions::{COUNTABLE, exactly};
use super::describe::{COLOUR, Description, EVERYTHING, PATTERN, SHAPE, SIZE, listed};
use super::draw::{coin, one_of, pick};
use super::object::{Object, Shape, worded};
use super::scene::{Relation, Scene};
use crate::SampleRng;

worded! {
    /// In what a negative differs from its positive.
    NegativeKind {
        /// Two objects exchange a colour, size or pattern: the same words, otherwise bound.
        SwappedAttributes = "swapped_attributes",
        /// One attribute of one object is another one.
        ReplacedAttribute = "replaced_attribute",
        /// The opposite relation, or the two objects exchanged: the same words, in another order.
        InvertedRelation = "inverted_relation",
        /// One more or one less than there are.
        WrongCount = "wrong_count",
        /// One of several objects is another, of a shape that is nowhere in the scene.
        AbsentObject = "absent_object",
    }
}

/// A true and a false caption that differ in one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Negative {
    /// In what they differ.
    pub kind: NegativeKind,
    /// True of the scene.
    pub positive: String,
    /// False of the scene, however loosely it is read: `a red circle` is false only where no circle is red.
    pub negative: String,
}

impl Scene {
    /// A negative of each [`NegativeKind`] that the scene has one of: a lone object can swap nothing.
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
                let (truth, lie) = (phrases(one, other), phrases(&swapped.0, &swapped.1));
                let is_false = lie.iter().any(|phrase| self.count(phrase) == 0);
                if one.shape != other.shape && is_false && lie.iter().all(|phrase| self.may_name(phrase)) {
                    found.push((truth, lie, Relation::between(one, other)));
                }
            }
        }
        let (truth, lie, relation) = pick(rng, &found)?;
        let joint = if coin(rng) { "and" } else { relation.words() };
        let say =
            |[one, other]: [Description; 2]| format!("{} {joint} {}", one.indefinite(), other.indefinite());
        Some((say(truth), say(lie)))
    }

    fn replaced(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let naming = one_of(
            rng,
            [COLOUR | SHAPE, PATTERN | SHAPE, SIZE | SHAPE, PATTERN | COLOUR | SHAPE, EVERYTHING],
        );
        let truth = Description::of(&pick(rng, self.objects())?, naming);
        let lie = self.near_miss(&truth, rng)?;
        Some((format!("there is {}", truth.indefinite()), format!("there is {}", lie.indefinite())))
    }

    fn inverted(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let (one, relation, other) = pick(rng, &self.relations())?;
        // Only phrases of one object each: of two, one might be so and the other not.
        let one = self.referent(&self.objects()[one], EVERYTHING, rng)?.indefinite();
        let other = self.referent(&self.objects()[other], EVERYTHING, rng)?.indefinite();
        let truth = format!("{one} {} {other}", relation.words());
        let lie = match coin(rng) {
            true => format!("{one} {} {other}", relation.opposite().words()),
            false => format!("{other} {} {one}", relation.words()),
        };
        Some((truth, lie))
    }

    /// Of two phrases of one sort, one with one object more, either is miscounted as the other: else a reader
    /// of texts alone would know that few is true and many is false.
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
        let (truth, wrong) = if coin(rng) { (low, high.1) } else { (high, low.1) };
        Some((exactly(&truth.0, truth.1), exactly(&truth.0, wrong)))
    }

    /// One phrase of several names an object of the same colour and an absent shape. It is one of the only
    /// object of its shape, so that truth and lie have as many shapes and colours twice.
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
        let truth = say(&phrases);
        phrases[place] = stranger;
        Some((truth, say(&phrases)))
    }
}
