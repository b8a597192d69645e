//! Edits: a scene, an instruction, and the scene with only that change.

use rand::RngExt;
use serde::Serialize;

use super::describe::{Description, EVERYTHING};
use super::draw::{coin, one_of, pick};
use super::object::{Colour, Object, Pattern, Shape, Size, worded};
use super::scene::{Relation, Scene};
use crate::SampleRng;

worded! {
    /// The kind of an edit.
    EditKind {
        /// `make the star blue`.
        Recolour = "recolour",
        /// `make the star larger`.
        Resize = "resize",
        /// `turn the star into a circle`.
        Reshape = "reshape",
        /// `make the star striped`.
        Repattern = "repattern",
        /// `remove the star`.
        Remove = "remove",
        /// `add a small solid red circle above the star`.
        Add = "add",
        /// `move the star to the left of the circle`.
        Move = "move",
    }
}

/// An edit. `after` is `before` without `from` and with `to`, on the same background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// The kind of edit.
    pub kind: EditKind,
    /// The scene before the edit.
    pub before: Scene,
    /// The instruction, in the imperative.
    pub instruction: String,
    /// The scene after the edit.
    pub after: Scene,
    /// The object that is changed or removed; `None` where one is added.
    pub from: Option<Object>,
    /// The changed or added object; `None` where one is removed.
    pub to: Option<Object>,
}

/// The number of places that are drawn for an object.
const TRIES: usize = 40;

/// The number of attempts for an edit of each kind.
const RETRIES: usize = 8;

/// The minimum distance of `move the star left`, in thousandths of the side.
const STEP: u32 = 200;

impl Scene {
    /// An edit of each [`EditKind`] that is possible in the scene. An edit of a scene without held-out
    /// combinations does not add any.
    pub fn edits(&self) -> Vec<Edit> {
        let rng = &mut self.rng("edits");
        EditKind::ALL.into_iter().filter_map(|kind| (0..RETRIES).find_map(|_| self.edit(kind, rng))).collect()
    }

    fn edit(&self, kind: EditKind, rng: &mut SampleRng) -> Option<Edit> {
        let object = pick(rng, self.objects())?;
        let name = self.referent(&object, EVERYTHING, rng)?.definite();
        let changed = |to: Object, instruction: String| (Some(object), Some(to), instruction);
        let (from, to, instruction) = match kind {
            EditKind::Recolour => {
                let colour = one_of(rng, Colour::ALL);
                changed(Object { colour, ..object }, format!("make {name} {}", colour.word()))
            }
            EditKind::Resize => {
                let (size, word) = match object.size {
                    Size::Small => (Size::Large, "larger"),
                    Size::Large => (Size::Small, "smaller"),
                };
                changed(Object { size, ..object }, format!("make {name} {word}"))
            }
            EditKind::Reshape => {
                let shape = one_of(rng, Shape::ALL);
                changed(Object { shape, ..object }, format!("turn {name} into a {}", shape.word()))
            }
            EditKind::Repattern => {
                let pattern = one_of(rng, Pattern::ALL);
                changed(Object { pattern, ..object }, format!("make {name} {}", pattern.word()))
            }
            EditKind::Remove => (Some(object), None, format!("remove {name}")),
            EditKind::Add => {
                let added = Object {
                    shape: one_of(rng, Shape::ALL),
                    colour: one_of(rng, Colour::ALL),
                    size: one_of(rng, Size::ALL),
                    pattern: one_of(rng, Pattern::ALL),
                    ..object
                };
                let relation = one_of(rng, Relation::ALL);
                let added = self.place_beside(added, relation, &object, None, rng)?;
                let phrase = Description::full(&added).indefinite();
                (None, Some(added), format!("add {phrase} {} {name}", relation.words()))
            }
            EditKind::Move => {
                let (to, destination) =
                    if coin(rng) { self.move_beside(&object, rng)? } else { move_along(&object, rng)? };
                changed(to, format!("move {name} {destination}"))
            }
        };
        let kept = self.objects().iter().filter(|other| Some(**other) != from).copied();
        let after = Self::new(kept.chain(to).collect(), self.background()).ok()?;
        let stays_in_training = self.is_held_out() || !after.is_held_out();
        (after != *self && stays_in_training).then(|| Edit {
            kind,
            before: self.clone(),
            instruction,
            after,
            from,
            to,
        })
    }

    /// The object at a free place in a direction from another one, farther in this direction than sideways.
    fn place_beside(
        &self,
        object: Object,
        relation: Relation,
        landmark: &Object,
        moved: Option<&Object>,
        rng: &mut SampleRng,
    ) -> Option<Object> {
        (0..TRIES).find_map(|_| {
            let placed =
                Object { x: rng.random_range(object.range()), y: rng.random_range(object.range()), ..object };
            let mut others = self.objects().iter().filter(|other| Some(*other) != moved);
            let fits = Relation::between(&placed, landmark) == relation
                && others.all(|other| placed.is_clear_of(other));
            fits.then_some(placed)
        })
    }

    /// A move to another side of another object.
    fn move_beside(&self, object: &Object, rng: &mut SampleRng) -> Option<(Object, String)> {
        let others: Vec<Object> = self.objects().iter().filter(|other| *other != object).copied().collect();
        let landmark = pick(rng, &others)?;
        let new = |relation: &Relation| relation.distance(object, &landmark) <= 0;
        let relations: Vec<Relation> = Relation::ALL.into_iter().filter(new).collect();
        let relation = pick(rng, &relations)?;
        let to = self.place_beside(*object, relation, &landmark, Some(object), rng)?;
        let name = self.referent(&landmark, EVERYTHING, rng)?.definite();
        Some((to, format!("{} {name}", relation.words())))
    }
}

/// A move along one axis.
fn move_along(object: &Object, rng: &mut SampleRng) -> Option<(Object, String)> {
    let range = object.range();
    let (least, most) = (*range.start(), *range.end());
    let (to, word) = match one_of(rng, Relation::ALL) {
        Relation::LeftOf if object.x >= least + STEP => {
            (Object { x: rng.random_range(least..=object.x - STEP), ..*object }, "left")
        }
        Relation::RightOf if object.x + STEP <= most => {
            (Object { x: rng.random_range(object.x + STEP..=most), ..*object }, "right")
        }
        Relation::Above if object.y >= least + STEP => {
            (Object { y: rng.random_range(least..=object.y - STEP), ..*object }, "up")
        }
        Relation::Below if object.y + STEP <= most => {
            (Object { y: rng.random_range(object.y + STEP..=most), ..*object }, "down")
        }
        _ => return None,
    };
    Some((to, word.to_owned()))
}
