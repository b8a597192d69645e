//! Hard negatives: captions that are false of a scene in nearly the words of one that is true.

use serde::Serialize;

use super::captions::exactly;
use super::describe::{COLOUR, Description, EVERYTHING, PATTERN, SHAPE, SIZE, listed};
use super::draw::{coin, one_of, pick};
use super::object::{Colour, Object, Shape, worded};
use super::scene::{MAX_OBJECTS, Relation, Scene};
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
                (PATTERN, (Object { pattern: other.pattern, ..*one }, Object { pattern: one.pattern, ..*other })),
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
        let say = |[one, other]: [Description; 2]| format!("{} {joint} {}", one.indefinite(), other.indefinite());
        Some((say(truth), say(lie)))
    }

    fn replaced(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let naming = one_of(rng, [COLOUR | SHAPE, PATTERN | SHAPE, SIZE | SHAPE, PATTERN | COLOUR | SHAPE, EVERYTHING]);
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

    fn miscounted(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let (description, count) = self.exact_count(rng)?;
        let wrong = if count > 1 && (count == MAX_OBJECTS || coin(rng)) { count - 1 } else { count + 1 };
        Some((exactly(&description, count), exactly(&description, wrong)))
    }

    fn absent(&self, rng: &mut SampleRng) -> Option<(String, String)> {
        let mut truth: Vec<Description> = Vec::new();
        for object in self.objects() {
            let phrase = Description::of(object, COLOUR | SHAPE);
            if !truth.contains(&phrase) {
                truth.push(phrase);
            }
        }
        if truth.len() < 2 {
            return None;
        }
        let is_absent = |shape: &Shape| self.objects().iter().all(|object| object.shape != *shape);
        let absent: Vec<Shape> = Shape::ALL.into_iter().filter(is_absent).collect();
        let shape = pick(rng, &absent)?;
        let strangers = Colour::ALL.map(|colour| Description {
            colour: Some(colour),
            shape: Some(shape),
            ..Description::default()
        });
        let strangers: Vec<Description> = strangers.into_iter().filter(|stranger| self.may_name(stranger)).collect();
        let mut lie = truth.clone();
        let places: Vec<usize> = (0..lie.len()).collect();
        lie[pick(rng, &places)?] = pick(rng, &strangers)?;
        let say = |phrases: &[Description]| listed(&phrases.iter().map(Description::indefinite).collect::<Vec<_>>());
        Some((say(&truth), say(&lie)))
    }
}
