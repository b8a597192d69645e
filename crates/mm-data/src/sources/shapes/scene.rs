//! The scene graph: objects, their spatial relations, and the phrases that refer to them.

use std::ops::RangeInclusive;

use rand::SeedableRng;
use serde::Serialize;

use super::describe::{COLOUR, Description, EVERYTHING, Naming, PATTERN, SHAPE, SIZE};
use super::draw::{one_of, pick};
use super::object::{Background, Colour, Object, Pattern, SIDE, Shape, Size};
use crate::{Error, Result, SampleRng};

/// The maximum number of objects of a scene.
pub const MAX_OBJECTS: usize = 6;

/// The minimum distance of two centers along an axis for a relation to hold, in thousandths of the side.
/// Below it, texts use neither the relation nor its opposite.
pub const MARGIN: u32 = 150;

/// The minimum gap between the bounding squares of two objects; half of it to the edge of the image.
const GAP: u32 = 24;

/// An image as a graph: one to six objects that do not overlap, from left to right. Equal scenes have equal
/// images.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Scene {
    objects: Vec<Object>,
    background: Background,
}

/// The spatial relation of one object to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// `to the left of`.
    LeftOf,
    /// `to the right of`.
    RightOf,
    /// `above`.
    Above,
    /// `below`.
    Below,
}

impl Relation {
    /// All relations.
    pub const ALL: [Self; 4] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below];

    /// The words of the texts.
    pub fn words(self) -> &'static str {
        match self {
            Self::LeftOf => "to the left of",
            Self::RightOf => "to the right of",
            Self::Above => "above",
            Self::Below => "below",
        }
    }

    /// The opposite relation.
    pub fn opposite(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// The distance of `one` from `other` in this direction, in thousandths of the side; negative in the
    /// opposite direction.
    pub(super) fn distance(self, one: &Object, other: &Object) -> i32 {
        match self {
            Self::LeftOf => other.x as i32 - one.x as i32,
            Self::RightOf => one.x as i32 - other.x as i32,
            Self::Above => other.y as i32 - one.y as i32,
            Self::Below => one.y as i32 - other.y as i32,
        }
    }

    /// Whether `one` has this relation to `other` by at least [`MARGIN`]. Two can hold on a diagonal.
    pub fn holds(self, one: &Object, other: &Object) -> bool {
        self.distance(one, other) >= MARGIN as i32
    }

    /// The direction in which `one` is farthest from `other`. It holds for any two objects of a scene, since
    /// they do not overlap.
    pub fn between(one: &Object, other: &Object) -> Self {
        let of = |relation: &Self| relation.distance(one, other);
        Self::ALL.into_iter().max_by_key(of).unwrap_or(Self::Below)
    }
}

impl Object {
    /// The valid range of both coordinates of the center.
    pub(super) fn range(&self) -> RangeInclusive<u32> {
        let edge = self.size.radius() + GAP / 2;
        edge..=SIDE - edge
    }

    /// Whether the bounding squares of both do not overlap, with a gap.
    pub(super) fn is_clear_of(&self, other: &Self) -> bool {
        self.x.abs_diff(other.x).max(self.y.abs_diff(other.y))
            >= self.size.radius() + other.size.radius() + GAP
    }
}

impl Scene {
    /// A scene of these objects, in any order.
    ///
    /// # Errors
    /// No object or more than [`MAX_OBJECTS`], an object that is partly outside, two that overlap (their
    /// bounding squares, with a gap) or have the same attributes.
    pub fn new(mut objects: Vec<Object>, background: Background) -> Result<Self> {
        let wrong = |what: String| Err(Error::Setting(what));
        if objects.is_empty() || objects.len() > MAX_OBJECTS {
            return wrong(format!("a scene of {} objects: give it 1 to {MAX_OBJECTS}", objects.len()));
        }
        objects.sort_unstable_by_key(|object| (object.x, object.y));
        for (place, one) in objects.iter().enumerate() {
            let name = || Description::full(one).definite();
            let range = one.range();
            if !range.contains(&one.x) || !range.contains(&one.y) {
                return wrong(format!("{} at ({}, {}) is not within {range:?}", name(), one.x, one.y));
            }
            for other in &objects[..place] {
                if one.looks_like(other) {
                    return wrong(format!("{} is there twice", name()));
                }
                if !one.is_clear_of(other) {
                    return wrong(format!(
                        "{} is too near to {}",
                        name(),
                        Description::full(other).definite()
                    ));
                }
            }
        }
        Ok(Self { objects, background })
    }

    /// A scene of objects that are known to be valid and sorted.
    pub(super) fn of(objects: Vec<Object>, background: Background) -> Self {
        Self { objects, background }
    }

    /// The one to six objects from left to right. No two have the same attributes, except in scenes for
    /// prompts.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The background.
    pub fn background(&self) -> Background {
        self.background
    }

    /// All relations that hold, with indices into [`objects`](Self::objects): `(one, relation, other)`.
    pub fn relations(&self) -> Vec<(usize, Relation, usize)> {
        let pairs =
            (0..self.objects.len()).flat_map(|one| (0..self.objects.len()).map(move |other| (one, other)));
        pairs
            .flat_map(|(one, other)| Relation::ALL.map(|relation| (one, relation, other)))
            .filter(|&(one, relation, other)| relation.holds(&self.objects[one], &self.objects[other]))
            .collect()
    }

    /// Whether the scene has a [`HELD_OUT`](super::HELD_OUT) combination.
    pub fn is_held_out(&self) -> bool {
        self.objects.iter().any(Object::is_held_out)
    }

    /// The number of objects that a description matches.
    pub fn count(&self, description: &Description) -> usize {
        self.objects.iter().filter(|object| description.fits(object)).count()
    }

    /// Whether texts of this scene may use a description. Training texts must not have held-out combinations
    /// even in negatives: a model would learn that they never occur.
    pub(super) fn may_name(&self, description: &Description) -> bool {
        !description.is_held_out() || self.is_held_out()
    }

    /// A shortest description by attributes of `naming` that matches only this object; `None` where there is
    /// none.
    pub(super) fn referent(
        &self,
        object: &Object,
        naming: Naming,
        rng: &mut SampleRng,
    ) -> Option<Description> {
        (1..=naming.count_ones()).find_map(|length| {
            let namings = (1..=EVERYTHING).filter(|some| some & !naming == 0 && some.count_ones() == length);
            let unique: Vec<Description> = namings
                .map(|naming| Description::of(object, naming))
                .filter(|description| self.count(description) == 1)
                .collect();
            pick(rng, &unique)
        })
    }

    /// The description with one attribute replaced, so that it matches no object.
    pub(super) fn near_miss(&self, description: &Description, rng: &mut SampleRng) -> Option<Description> {
        (0..20).find_map(|_| {
            let mut missed = *description;
            match one_of(rng, [SIZE, PATTERN, COLOUR, SHAPE]) {
                SIZE => missed.size = missed.size.map(|_| one_of(rng, Size::ALL)),
                PATTERN => missed.pattern = missed.pattern.map(|_| one_of(rng, Pattern::ALL)),
                COLOUR => missed.colour = missed.colour.map(|_| one_of(rng, Colour::ALL)),
                _ => missed.shape = missed.shape.map(|_| one_of(rng, Shape::ALL)),
            }
            (self.count(&missed) == 0 && self.may_name(&missed)).then_some(missed)
        })
    }

    /// The random number generator for one kind of text. It depends on the scene alone.
    pub(super) fn rng(&self, purpose: &str) -> SampleRng {
        let numbers = self.objects.iter().flat_map(|object| {
            let Object { shape, colour, size, pattern, x, y } = *object;
            [shape as u64, colour as u64, size as u64, pattern as u64, u64::from(x), u64::from(y)]
        });
        SampleRng::seed_from_u64(hash(numbers.chain(purpose.bytes().map(u64::from))))
    }
}

/// FNV-1a over numbers.
pub(super) fn hash(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0xcbf2_9ce4_8422_2325, |hash, number| (hash ^ number).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(x: u32, y: u32) -> Object {
        Object { shape: Shape::Circle, colour: Colour::Red, size: Size::Small, pattern: Pattern::Solid, x, y }
    }

    #[test]
    fn an_invalid_scene_is_an_error_with_the_reason() {
        let message_of =
            |objects: &[Object]| Scene::new(objects.to_vec(), Background::White).unwrap_err().to_string();
        assert_eq!(message_of(&[]), "a scene of 0 objects: give it 1 to 6");
        assert_eq!(
            message_of(&[circle(50, 500)]),
            "the small solid red circle at (50, 500) is not within 108..=892"
        );
        assert_eq!(
            message_of(&[circle(500, 500), circle(300, 500)]),
            "the small solid red circle is there twice"
        );
        let blue = Object { colour: Colour::Blue, ..circle(600, 500) };
        assert!(message_of(&[circle(500, 500), blue]).ends_with("is too near to the small solid red circle"));
    }

    #[test]
    fn a_relation_holds_by_a_margin_or_not_at_all() {
        let (left, right) = (circle(200, 500), circle(350, 649));
        assert!(Relation::LeftOf.holds(&left, &right) && Relation::RightOf.holds(&right, &left));
        assert!(!Relation::Above.holds(&left, &right) && !Relation::Below.holds(&left, &right));
        assert_eq!(Relation::between(&left, &right), Relation::LeftOf);
    }
}
