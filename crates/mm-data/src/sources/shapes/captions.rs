//! True captions of a scene: a complete one, and others with less detail.

use rand::RngExt;

use super::describe::{COLOUR, Description, EVERYTHING, Naming, PATTERN, SHAPE, SIZE, listed};
use super::draw::{one_of, pick};
use super::object::Object;
use super::scene::{Relation, Scene};
use crate::SampleRng;

/// The attributes in phrases of counted objects: few enough that several objects can have them.
pub(super) const COUNTABLE: [Naming; 7] =
    [SHAPE, COLOUR, PATTERN, SIZE, COLOUR | SHAPE, PATTERN | SHAPE, SIZE | COLOUR];

impl Scene {
    /// True captions without duplicates. The first is canonical: all objects with all attributes, from left
    /// to right, each with its relation to the next. The others list or count objects, or describe some of
    /// them.
    pub fn captions(&self) -> Vec<String> {
        let rng = &mut self.rng("captions");
        let mut captions = vec![self.canonical()];
        let inventory = one_of(rng, [COLOUR | SHAPE, PATTERN | SHAPE, SIZE | COLOUR | SHAPE]);
        let others = [
            Some(format!("a picture of {}", self.inventory(inventory))),
            Some(self.inventory(SHAPE)),
            self.some_relation(rng),
            self.exact_count(rng).map(|(description, count)| exactly(&description, count)),
            self.some_object(rng).map(|description| format!("there is {}", description.indefinite())),
            Some(format!("a picture of {}", self.label())),
        ];
        for caption in others.into_iter().flatten() {
            if !captions.contains(&caption) {
                captions.push(caption);
            }
        }
        captions
    }

    /// The number of shapes in words: `one shape`, `three shapes`. The class of the sample.
    pub fn label(&self) -> String {
        Description::default().numbered(self.objects().len())
    }

    fn canonical(&self) -> String {
        let phrase = |object: &Object| Description::full(object).indefinite();
        let mut caption = self.objects().first().map(phrase).unwrap_or_default();
        for (place, pair) in self.objects().windows(2).enumerate() {
            caption.push_str(if place == 0 { " " } else { ", which is " });
            caption.push_str(Relation::between(&pair[0], &pair[1]).words());
            caption.push(' ');
            caption.push_str(&phrase(&pair[1]));
        }
        caption
    }

    /// All objects by some of their attributes, equal ones together: `two red circles and a blue star`.
    pub(super) fn inventory(&self, naming: Naming) -> String {
        let mut kinds: Vec<Description> = Vec::new();
        for object in self.objects() {
            let description = Description::of(object, naming);
            if !kinds.contains(&description) {
                kinds.push(description);
            }
        }
        listed(&kinds.iter().map(|kind| kind.counted(self.count(kind))).collect::<Vec<_>>())
    }

    fn some_relation(&self, rng: &mut SampleRng) -> Option<String> {
        let (one, relation, other) = pick(rng, &self.relations())?;
        let mut phrase =
            |place: usize| Description::of(&self.objects()[place], some_naming(rng)).indefinite();
        let (one, other) = (phrase(one), phrase(other));
        Some(format!("{one} {} {other}", relation.words()))
    }

    /// A description that matches some objects, and their number.
    fn exact_count(&self, rng: &mut SampleRng) -> Option<(Description, usize)> {
        let description = Description::of(&pick(rng, self.objects())?, one_of(rng, COUNTABLE));
        Some((description, self.count(&description)))
    }

    /// Some attributes of a random object.
    pub(super) fn some_object(&self, rng: &mut SampleRng) -> Option<Description> {
        Some(Description::of(&pick(rng, self.objects())?, some_naming(rng)))
    }
}

/// `exactly two red circles`.
pub(super) fn exactly(description: &Description, count: usize) -> String {
    format!("exactly {}", description.numbered(count))
}

/// One to three random attributes.
fn some_naming(rng: &mut SampleRng) -> Naming {
    rng.random_range(1..EVERYTHING)
}
