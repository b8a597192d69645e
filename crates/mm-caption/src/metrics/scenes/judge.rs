//! The best assignment of the phrases of a caption to distinct objects of a scene, and its score.

use mm_data::shapes::{Description, MAX_OBJECTS, Object, Relation, Scene};

use super::{HallucinationKind, ParsedCaption, Phrase, SceneScore};

/// The number of objects of one phrase that are assigned: one more than a scene has, so that a number that is
/// too high costs precision, but not without bound.
const MOST_REFERENTS: usize = MAX_OBJECTS + 1;

/// The states of the search: the set of the objects taken, and the object of the last referent or none.
const STATES: usize = (1 << MAX_OBJECTS) * (MAX_OBJECTS + 1);

/// The last referent has no object.
const NONE: usize = MAX_OBJECTS;

/// One object that a caption refers to.
#[derive(Debug, Clone, Copy)]
struct Referent {
    /// The index of its phrase.
    phrase: usize,
    description: Description,
    /// The relation of the last referent to this one.
    relation: Option<Relation>,
}

pub(super) fn judge(caption: ParsedCaption, scene: &Scene) -> SceneScore {
    let referents = referents(&caption);
    let assigned = assign(&referents, scene.objects());
    let mut score = SceneScore::default();
    for (place, phrase) in caption.phrases.iter().enumerate() {
        let of_phrase = referents.iter().zip(&assigned).filter(|(referent, _)| referent.phrase == place);
        let objects: Vec<Option<&Object>> =
            of_phrase.map(|(_, object)| object.map(|object| &scene.objects()[object])).collect();
        judge_phrase(&mut score, phrase, &objects, scene);
    }
    let relations = judge_relations(&mut score, &referents, &assigned, scene.objects());
    let objects = scene.objects().len();
    // One object, three attributes, and a relation to the next object.
    score.scene_tuples = 4 * objects + objects.saturating_sub(1);
    score.stated_tuples += relations.min(objects.saturating_sub(1));
    if caption.unparsed.is_some() {
        score.statements += 1;
    }
    score.unparsed = caption.unparsed;
    score
}

fn referents(caption: &ParsedCaption) -> Vec<Referent> {
    let mut referents = Vec::new();
    for (phrase, &Phrase { description, number }) in caption.phrases.iter().enumerate() {
        let relation = phrase.checked_sub(1).and_then(|last| caption.relations[last]);
        let count = number.unwrap_or(1).min(MOST_REFERENTS);
        let referent = Referent { phrase, description, relation };
        referents.extend(std::iter::repeat_n(referent, count));
    }
    referents
}

/// The object of each referent: distinct objects of the named shapes, or `None`. Among all assignments, the
/// one with the most true statements, then the most objects, then the most true attributes.
///
/// A statement depends on at most two neighboring referents, so dynamic programming over the set of objects
/// taken and the last object is exhaustive: 448 states, 7 choices.
fn assign(referents: &[Referent], objects: &[Object]) -> Vec<Option<usize>> {
    let mut values = vec![None; STATES];
    values[NONE] = Some(0_u64);
    // The choice that led to each state, and the state before.
    let mut steps = Vec::with_capacity(referents.len());
    for referent in referents {
        let mut next = vec![None; STATES];
        let mut from = vec![0; STATES];
        for state in (0..STATES).filter(|&state| values[state].is_some()) {
            let (taken, last) = (state / (MAX_OBJECTS + 1), state % (MAX_OBJECTS + 1));
            for choice in (0..objects.len()).chain([NONE]) {
                if choice != NONE && taken >> choice & 1 == 1 {
                    continue;
                }
                let Some(gain) = gain(referent, objects.get(choice), objects.get(last)) else { continue };
                let taken = if choice == NONE { taken } else { taken | 1 << choice };
                let reached = taken * (MAX_OBJECTS + 1) + choice;
                let value = values[state].map(|value| value + gain);
                if value > next[reached] {
                    next[reached] = value;
                    from[reached] = state;
                }
            }
        }
        values = next;
        steps.push(from);
    }
    let best = (0..STATES).max_by_key(|&state| values[state]);
    let mut state = best.unwrap_or(NONE);
    let mut assigned = vec![None; referents.len()];
    for (object, from) in assigned.iter_mut().zip(steps).rev() {
        let choice = state % (MAX_OBJECTS + 1);
        *object = (choice != NONE).then_some(choice);
        state = from[state];
    }
    assigned
}

/// The value of assigning a referent to an object; `None` if the object has another shape.
fn gain(referent: &Referent, object: Option<&Object>, last: Option<&Object>) -> Option<u64> {
    let Some(object) = object else { return Some(0) };
    let description = &referent.description;
    if !is_of_shape(description, object) {
        return None;
    }
    let attributes = attributes(description, object).filter(|&(_, is_true)| is_true).count();
    let relation = referent.relation.zip(last).is_some_and(|(relation, last)| relation.holds(last, object));
    let statements = u64::from(description.fits(object)) + u64::from(relation);
    Some(statements << 40 | 1 << 20 | attributes as u64)
}

fn is_of_shape(description: &Description, object: &Object) -> bool {
    description.shape.is_none_or(|shape| shape == object.shape)
}

/// The named color, pattern and size, each with whether the object has it.
fn attributes(description: &Description, object: &Object) -> impl Iterator<Item = (HallucinationKind, bool)> {
    let colour = description.colour.map(|colour| (HallucinationKind::Colour, colour == object.colour));
    let pattern = description.pattern.map(|pattern| (HallucinationKind::Pattern, pattern == object.pattern));
    let size = description.size.map(|size| (HallucinationKind::Size, size == object.size));
    [colour, pattern, size].into_iter().flatten()
}

/// Adds the statements and tuples of a phrase, given the objects of its referents.
fn judge_phrase(score: &mut SceneScore, phrase: &Phrase, objects: &[Option<&Object>], scene: &Scene) {
    let description = &phrase.description;
    if let Some(number) = phrase.number {
        let is_true = scene.count(description) == number;
        state(score, is_true);
        score.kinds[HallucinationKind::Count as usize].add(is_true);
        // A right number adds no tuple: true but empty phrases such as `no hearts` would raise the precision.
        score.caption_tuples += usize::from(!is_true);
    }
    for object in objects {
        let named = [description.colour.is_some(), description.pattern.is_some(), description.size.is_some()];
        score.caption_tuples += 1 + named.into_iter().filter(|&named| named).count();
        let Some(object) = object else { continue };
        let attributes = attributes(description, object).filter(|&(_, is_true)| is_true).count();
        score.true_tuples += 1 + attributes;
        score.stated_tuples += 1 + attributes;
    }
    // `two circles` mentions circles once.
    if objects.is_empty() {
        return;
    }
    let is_true = objects.iter().flatten().any(|object| description.fits(object));
    state(score, is_true);
    score.objects.add(is_true);
    let closest =
        objects.iter().flatten().max_by_key(|object| attributes(description, object).filter(|a| a.1).count());
    score.kinds[HallucinationKind::Object as usize].add(closest.is_some());
    for (kind, is_true) in closest.into_iter().flat_map(|object| attributes(description, object)) {
        score.kinds[kind as usize].add(is_true);
    }
}

/// Adds the relations, and returns the number of pairs of objects with a true one.
fn judge_relations(
    score: &mut SceneScore,
    referents: &[Referent],
    assigned: &[Option<usize>],
    objects: &[Object],
) -> usize {
    let mut pairs: Vec<[usize; 2]> = Vec::new();
    for (place, referent) in referents.iter().enumerate() {
        let Some(relation) = referent.relation else { continue };
        let pair = place.checked_sub(1).and_then(|last| assigned[last]).zip(assigned[place]);
        let is_true = pair.is_some_and(|(one, other)| relation.holds(&objects[one], &objects[other]));
        state(score, is_true);
        score.kinds[HallucinationKind::Relation as usize].add(is_true);
        score.caption_tuples += 1;
        score.true_tuples += usize::from(is_true);
        if let Some((one, other)) = pair.filter(|_| is_true) {
            pairs.push([one.min(other), one.max(other)]);
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs.len()
}

fn state(score: &mut SceneScore, is_true: bool) {
    score.statements += 1;
    score.true_statements += usize::from(is_true);
}
