//! Questions with exact answers. `the` always refers to exactly one object; yes and no are equally frequent.

use rand::RngExt;

use super::captions::COUNTABLE;
use super::describe::{COLOUR, Description, EVERYTHING, PATTERN, SHAPE, SIZE};
use super::draw::{coin, one_of, pick};
use super::object::{Colour, Object, Pattern, Shape, Size, worded};
use super::scene::{Relation, Scene};
use crate::{Question, SampleRng};

worded! {
    /// The kind of a question: [`Question::kind`] is its word.
    QuestionKind {
        /// `Is there a red circle?` Yes or no; a no differs by one attribute.
        Exist = "exist",
        /// `How many striped shapes are there?` A number in digits.
        Count = "count",
        /// `What colour is the shape above the star?` A color.
        Colour = "colour",
        /// `Is the star larger than the cross?` `Are there more hearts than stars?` Yes or no.
        Compare = "compare",
        /// `Is the star to the left of the cross?` Yes or no.
        Relation = "relation",
    }
}

/// The number of questions of each kind.
const OF_A_KIND: usize = 2;

/// The maximum number of questions of a scene; the ids of a sample start at its index times this.
pub(super) const MOST: usize = OF_A_KIND * QuestionKind::ALL.len();

/// The number of attempts for another question of a kind.
const TRIES: usize = 8;

struct Asked {
    text: String,
    answer: String,
}

impl Scene {
    /// Up to ten distinct questions with ids from 0: two of each [`QuestionKind`] where possible. Each has
    /// one answer.
    pub fn questions(&self) -> Vec<Question> {
        let rng = &mut self.rng("questions");
        let mut questions: Vec<Question> = Vec::with_capacity(MOST);
        for kind in QuestionKind::ALL.into_iter().flat_map(|kind| [kind; OF_A_KIND]) {
            let new = (0..TRIES).find_map(|_| {
                let asked = match kind {
                    QuestionKind::Exist => self.exist(rng),
                    QuestionKind::Count => self.how_many(rng),
                    QuestionKind::Colour => self.what_colour(rng),
                    QuestionKind::Compare => self.compare(rng),
                    QuestionKind::Relation => self.is_related(rng),
                };
                asked.filter(|asked| questions.iter().all(|question| question.text != asked.text))
            });
            if let Some(Asked { text, answer }) = new {
                let id = questions.len() as u64;
                let kind = Some(kind.word().to_owned());
                questions.push(Question { id, text, answers: vec![answer], kind, ..Question::default() });
            }
        }
        questions
    }

    /// Yes for a present object, no for a near miss, with phrases of the same kind.
    fn exist(&self, rng: &mut SampleRng) -> Option<Asked> {
        let present = self.some_object(rng)?;
        let absent = self.near_miss(&present, rng)?;
        let yes = coin(rng);
        let description = if yes { present } else { absent };
        Some(Asked { text: format!("Is there {}?", description.indefinite()), answer: yes_or_no(yes) })
    }

    /// First draws the answer, then a question with this answer or the next smaller one: otherwise nearly all
    /// answers would be one.
    fn how_many(&self, rng: &mut SampleRng) -> Option<Asked> {
        let wanted = rng.random_range(0..=self.objects().len() as u32) as usize;
        let mut candidates: Vec<Description> = Vec::new();
        for object in self.objects() {
            for naming in COUNTABLE {
                candidates.push(Description::of(object, naming));
            }
        }
        let description = if wanted == 0 {
            let present = pick(rng, &candidates)?;
            self.near_miss(&present, rng)?
        } else {
            candidates.push(Description::default());
            (1..=wanted).rev().find_map(|count| {
                let of_count: Vec<Description> =
                    candidates.iter().filter(|candidate| self.count(candidate) == count).copied().collect();
                pick(rng, &of_count)
            })?
        };
        let text = format!("How many {} are there?", description.plural());
        Some(Asked { text, answer: self.count(&description).to_string() })
    }

    fn what_colour(&self, rng: &mut SampleRng) -> Option<Asked> {
        let object = pick(rng, self.objects())?;
        let without_colour = EVERYTHING & !COLOUR;
        let by_place = if coin(rng) { self.by_place(&object, rng) } else { None };
        let referent = match by_place {
            Some(referent) => referent,
            None => self.referent(&object, without_colour, rng)?.definite(),
        };
        Some(Asked { text: format!("What colour is {referent}?"), answer: object.colour.word().to_owned() })
    }

    /// `the shape above the star`, where it is unique and unambiguous.
    fn by_place(&self, object: &Object, rng: &mut SampleRng) -> Option<String> {
        let landmark = pick(rng, &self.others(object))?;
        let only = |relation: &Relation| {
            let mut rest = self.others(&landmark).into_iter().filter(|other| other != object);
            relation.holds(object, &landmark) && rest.all(|other| relation.distance(&other, &landmark) <= 0)
        };
        let relations: Vec<Relation> = Relation::ALL.into_iter().filter(only).collect();
        let relation = pick(rng, &relations)?;
        let landmark = self.referent(&landmark, EVERYTHING, rng)?;
        Some(format!("the shape {} {}", relation.words(), landmark.definite()))
    }

    fn others(&self, object: &Object) -> Vec<Object> {
        self.objects().iter().filter(|other| *other != object).copied().collect()
    }

    fn compare(&self, rng: &mut SampleRng) -> Option<Asked> {
        let of_two = match rng.random_range(0..4u32) {
            0 => self.is_larger(rng),
            1 => self.is_same_colour(rng),
            _ => None,
        };
        of_two.or_else(|| self.are_more(rng))
    }

    fn is_larger(&self, rng: &mut SampleRng) -> Option<Asked> {
        let of_size = |size: Size| {
            self.objects().iter().filter(|object| object.size == size).copied().collect::<Vec<_>>()
        };
        let (large, small) = (pick(rng, &of_size(Size::Large))?, pick(rng, &of_size(Size::Small))?);
        let by_others = EVERYTHING & !SIZE;
        let (large, small) = (self.referent(&large, by_others, rng)?, self.referent(&small, by_others, rng)?);
        let (yes, larger) = (coin(rng), coin(rng));
        let (one, other) = if yes == larger { (large, small) } else { (small, large) };
        let word = if larger { "larger" } else { "smaller" };
        Some(Asked {
            text: format!("Is {} {word} than {}?", one.definite(), other.definite()),
            answer: yes_or_no(yes),
        })
    }

    /// Only where both answers are plausible: one other object has the same color and one has another.
    fn is_same_colour(&self, rng: &mut SampleRng) -> Option<Asked> {
        let one = pick(rng, self.objects())?;
        let (same, different): (Vec<Object>, Vec<Object>) =
            self.others(&one).into_iter().partition(|other| other.colour == one.colour);
        let by_others = EVERYTHING & !COLOUR;
        let mut phrase = |object: Object| Some(self.referent(&object, by_others, rng)?.definite());
        let (one, same, different) = (phrase(one)?, phrase(*same.first()?)?, phrase(*different.first()?)?);
        let yes = coin(rng);
        let other = if yes { same } else { different };
        Some(Asked { text: format!("Do {one} and {other} have the same colour?"), answer: yes_or_no(yes) })
    }

    /// Whether there are more of one shape, color or pattern than of another, which may be absent.
    fn are_more(&self, rng: &mut SampleRng) -> Option<Asked> {
        let naming = one_of(rng, [SHAPE, COLOUR, PATTERN]);
        let one = Description::of(&pick(rng, self.objects())?, naming);
        let rest = self.objects().iter().map(|object| Description::of(object, naming));
        let absent = Description {
            shape: one.shape.map(|_| one_of(rng, Shape::ALL)),
            colour: one.colour.map(|_| one_of(rng, Colour::ALL)),
            pattern: one.pattern.map(|_| one_of(rng, Pattern::ALL)),
            size: None,
        };
        let unequal: Vec<Description> =
            rest.chain([absent]).filter(|other| self.count(other) != self.count(&one)).collect();
        let other = pick(rng, &unequal)?;
        let (many, few) = if self.count(&one) > self.count(&other) { (one, other) } else { (other, one) };
        let (yes, more) = (coin(rng), coin(rng));
        let (first, second) = if yes == more { (many, few) } else { (few, many) };
        let word = if more { "more" } else { "fewer" };
        Some(Asked {
            text: format!("Are there {word} {} than {}?", first.plural(), second.plural()),
            answer: yes_or_no(yes),
        })
    }

    fn is_related(&self, rng: &mut SampleRng) -> Option<Asked> {
        let (one, relation, other) = pick(rng, &self.relations())?;
        let one = self.referent(&self.objects()[one], EVERYTHING, rng)?;
        let other = self.referent(&self.objects()[other], EVERYTHING, rng)?;
        let yes = coin(rng);
        let stated = if yes { relation } else { relation.opposite() };
        let text = format!("Is {} {} {}?", one.definite(), stated.words(), other.definite());
        Some(Asked { text, answer: yes_or_no(yes) })
    }
}

fn yes_or_no(yes: bool) -> String {
    (if yes { "yes" } else { "no" }).to_owned()
}
