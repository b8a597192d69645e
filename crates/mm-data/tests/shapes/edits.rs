//! Edits: the oracle applies the instruction to its own representation of the scene.

use mm_data::shapes::{EditKind, Scene};

use super::oracle::{COLOURS, PATTERNS, Phrase, SIZES, Thing, distance, referent, related, things};
use super::{SCENES, all_sorts};

/// The objects that only one of two scenes has.
fn only_in(one: &[Thing], other: &[Thing]) -> Vec<Thing> {
    one.iter().filter(|thing| !other.contains(thing)).cloned().collect()
}

/// The effect of an instruction on one object, except for its place.
enum Done {
    Changed(Thing, Thing),
    Removed(Thing),
    Added(Phrase),
    Moved(Thing),
}

fn carry_out(instruction: &str, things: &[Thing]) -> Done {
    let changed = |name: &str, place: usize, word: &str| {
        let (from, mut to) = (referent(name, things).clone(), referent(name, things).clone());
        word.clone_into(&mut to.words[place]);
        Done::Changed(from, to)
    };
    if let Some(name) = instruction.strip_prefix("remove ") {
        return Done::Removed(referent(name, things).clone());
    }
    if let Some(rest) = instruction.strip_prefix("add ") {
        return Done::Added(Phrase::read(related(rest).unwrap().0));
    }
    if let Some(rest) = instruction.strip_prefix("move ") {
        let name = related(rest).map_or_else(|| rest.rsplit_once(' ').unwrap().0, |(name, ..)| name);
        return Done::Moved(referent(name, things).clone());
    }
    if let Some(rest) = instruction.strip_prefix("turn ") {
        let (name, shape) = rest.split_once(" into a ").unwrap();
        return changed(name, 3, shape);
    }
    let (name, word) = instruction.strip_prefix("make ").unwrap().rsplit_once(' ').unwrap();
    match word {
        "larger" => changed(name, 0, SIZES[1]),
        "smaller" => changed(name, 0, SIZES[0]),
        _ if PATTERNS.contains(&word) => changed(name, 1, word),
        _ if COLOURS.contains(&word) => changed(name, 2, word),
        _ => panic!("{instruction}"),
    }
}

/// Whether an object is at the place of the instruction, relative to its old place.
fn is_in_place(instruction: &str, placed: &Thing, from: Option<&Thing>, before: &[Thing]) -> bool {
    if let Some((_, relation, landmark)) = related(instruction) {
        let landmark = referent(landmark, before);
        let along = distance(relation, placed, landmark);
        let was_there = from.is_some_and(|from| distance(relation, from, landmark) > 0);
        return along >= 150 && along >= placed_aside(relation, placed, landmark) && !was_there;
    }
    let from = from.unwrap();
    let (right, down) = (placed.x - from.x, placed.y - from.y);
    match instruction.rsplit_once(' ').unwrap().1 {
        "left" => right <= -200 && down == 0,
        "right" => right >= 200 && down == 0,
        "up" => down <= -200 && right == 0,
        "down" => down >= 200 && right == 0,
        _ => false,
    }
}

fn placed_aside(relation: &str, placed: &Thing, landmark: &Thing) -> i64 {
    match relation {
        " above " | " below " => (placed.x - landmark.x).abs(),
        _ => (placed.y - landmark.y).abs(),
    }
}

#[test]
fn after_is_before_with_the_instruction_carried_out_and_nothing_else() {
    let mut made = [0; EditKind::ALL.len()];
    for edit in all_sorts().flat_map(|scene| scene.edits()) {
        let (before, after) = (things(&edit.before), things(&edit.after));
        let (gone, new) = (only_in(&before, &after), only_in(&after, &before));
        let instruction = &edit.instruction;
        let as_said = match carry_out(instruction, &before) {
            Done::Changed(from, to) => from != to && gone == [from] && new == [to],
            Done::Removed(thing) => gone == [thing] && new.is_empty(),
            Done::Added(phrase) => {
                gone.is_empty()
                    && new.len() == 1
                    && phrase.words == new[0].words
                    && is_in_place(instruction, &new[0], None, &before)
            }
            Done::Moved(thing) => {
                gone == [thing.clone()]
                    && new.len() == 1
                    && new[0].words == thing.words
                    && is_in_place(instruction, &new[0], Some(&thing), &before)
            }
        };
        assert!(as_said, "{edit:?}");
        assert_eq!(edit.before.background(), edit.after.background());
        assert_eq!(Scene::new(edit.after.objects().to_vec(), edit.after.background()).unwrap(), edit.after);
        made[edit.kind as usize] += 1;
    }
    assert!(made.iter().all(|&made| made > SCENES), "{made:?}");
}

#[test]
fn from_and_to_are_the_only_difference() {
    for edit in all_sorts().flat_map(|scene| scene.edits()) {
        let mut objects = edit.before.objects().to_vec();
        objects.retain(|object| Some(*object) != edit.from);
        objects.extend(edit.to);
        assert_eq!(Scene::new(objects, edit.before.background()).unwrap(), edit.after);
    }
}
