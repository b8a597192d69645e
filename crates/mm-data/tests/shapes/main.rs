//! The guarantees of the shapes set, checked by an oracle that parses its texts.

mod blind;
mod edits;
mod oracle;

use std::collections::{BTreeMap, HashSet};

use mm_data::DatasetConfig;
use mm_data::shapes::{
    Background, Colour, HELD_OUT, NegativeKind, Object, Pattern, Scene, Shape, ShapesConfig, ShapesSplit,
    Size,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use oracle::{BARELY, PLAINLY, Phrase, answer, is_true, list, related, things};

const SCENES: u64 = 5000;

fn scenes(split: ShapesSplit, objects: [u32; 2]) -> impl Iterator<Item = Scene> {
    let config = ShapesConfig { split, objects, ..ShapesConfig::default() };
    (0..SCENES).map(move |index| config.scene(index))
}

fn all_sorts() -> impl Iterator<Item = Scene> {
    scenes(ShapesSplit::Train, [1, 4])
        .chain(scenes(ShapesSplit::HeldOut, [1, 4]))
        .chain(scenes(ShapesSplit::All, [3, 6]))
}

/// All texts of a scene, including the false ones.
fn texts(scene: &Scene) -> Vec<String> {
    let mut texts = scene.captions();
    texts.extend(scene.questions().into_iter().map(|question| question.text));
    texts.extend(scene.negatives().into_iter().flat_map(|pair| [pair.positive, pair.negative]));
    for edit in scene.edits() {
        texts.push(edit.instruction);
        texts.extend(edit.after.captions());
    }
    texts
}

#[test]
fn every_caption_is_true_and_none_is_twice() {
    for scene in all_sorts() {
        let (things, captions) = (things(&scene), scene.captions());
        for caption in &captions {
            assert!(is_true(caption, &things, PLAINLY), "{caption}: {things:?}");
        }
        assert_eq!(captions.iter().collect::<HashSet<_>>().len(), captions.len());
        assert!((4..=7).contains(&captions.len()), "{captions:?}");
    }
}

#[test]
fn the_canonical_caption_names_every_object_in_full() {
    for scene in all_sorts() {
        let mut rest = scene.captions()[0].replace(", which is ", " ");
        let mut phrases = Vec::new();
        while let Some((phrase, _, after)) = related(&rest) {
            phrases.push(Phrase::read(phrase));
            rest = after.to_owned();
        }
        phrases.push(Phrase::read(&rest));
        let things = things(&scene);
        assert_eq!(phrases.len(), things.len());
        for (phrase, thing) in phrases.iter().zip(&things) {
            assert_eq!(phrase.words, thing.words);
        }
    }
}

#[test]
fn a_list_leaves_nothing_out() {
    for scene in all_sorts() {
        let (things, captions) = (things(&scene), scene.captions());
        for caption in captions[1..].iter().filter(|caption| related(caption).is_none()) {
            let phrases = list(caption);
            let message: usize = phrases.iter().map(Phrase::number).sum();
            if caption.starts_with("a picture of ") || phrases.len() > 1 {
                assert_eq!(message, things.len(), "{caption}");
                assert!(phrases.iter().all(|phrase| phrase.count(&things) == phrase.number()), "{caption}");
            }
        }
    }
}

#[test]
fn every_answer_is_right_and_no_question_is_ambiguous() {
    for scene in all_sorts() {
        let (things, questions) = (things(&scene), scene.questions());
        for (place, question) in questions.iter().enumerate() {
            assert_eq!(question.id, place as u64);
            assert_eq!(question.answers, [answer(&question.text, &things)], "{}: {things:?}", question.text);
        }
        assert_eq!(
            questions.iter().map(|question| &question.text).collect::<HashSet<_>>().len(),
            questions.len()
        );
        let least = if things.len() == 1 { 6 } else { 8 };
        assert!((least..=10).contains(&questions.len()), "{questions:?}");
    }
}

#[test]
fn every_negative_is_false_however_loosely_it_is_read() {
    let mut made = BTreeMap::new();
    for scene in all_sorts() {
        let things = things(&scene);
        for pair in scene.negatives() {
            assert!(is_true(&pair.positive, &things, PLAINLY), "{pair:?}: {things:?}");
            assert!(!is_true(&pair.negative, &things, BARELY), "{pair:?}: {things:?}");
            *made.entry(pair.kind).or_insert(0) += 1;
        }
    }
    assert!(NegativeKind::ALL.iter().all(|kind| made[kind] > SCENES), "{made:?}");
}

#[test]
fn a_negative_is_in_nearly_the_words_of_its_positive() {
    let words = |text: &str| -> Vec<String> {
        let mut words: Vec<String> = text
            .split([' ', ','])
            .filter(|word| !["", "a", "an"].contains(word))
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    for pair in all_sorts().flat_map(|scene| scene.negatives()) {
        let (positive, negative) = (words(&pair.positive), words(&pair.negative));
        let new = negative.iter().filter(|word| !positive.contains(word)).count();
        let most = match pair.kind {
            NegativeKind::SwappedAttributes => 0,
            NegativeKind::ReplacedAttribute | NegativeKind::InvertedRelation => 1,
            NegativeKind::WrongCount | NegativeKind::AbsentObject => 2,
        };
        assert!(new <= most && positive.len() == negative.len(), "{pair:?}");
        assert!(pair.kind != NegativeKind::SwappedAttributes || positive == negative, "{pair:?}");
    }
}

#[test]
fn yes_is_as_frequent_as_no_and_no_count_is_half() {
    for split in [ShapesSplit::Train, ShapesSplit::HeldOut] {
        let (mut forms, mut counts, mut colours) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for question in scenes(split, [1, 4]).flat_map(|scene| scene.questions()) {
            let (kind, answer) = (question.kind.unwrap(), question.answers[0].clone());
            match kind.as_str() {
                "count" => *counts.entry(answer).or_insert(0.0) += 1.0,
                "colour" => *colours.entry(answer).or_insert(0.0) += 1.0,
                _ => {
                    let verb = question.text.split(' ').next().unwrap().to_owned();
                    forms.entry((kind, verb)).or_insert([0.0, 0.0])[usize::from(answer == "yes")] += 1.0;
                }
            }
        }
        println!("{split:?} {forms:?} {counts:?} {colours:?}");
        assert_eq!(forms.len(), 5);
        for (form, [no, yes]) in forms {
            assert!((0.45..=0.55).contains(&(yes / (no + yes))), "{form:?}: {yes} yes, {no} no");
        }
        let share = |tally: &BTreeMap<String, f64>| {
            tally.values().fold(0.0, |most: f64, n| most.max(*n)) / tally.values().sum::<f64>()
        };
        assert!(share(&counts) <= 0.5, "{counts:?}");
        assert!(share(&colours) <= 0.2, "{colours:?}");
    }
}

#[test]
fn held_out_combinations_are_neither_seen_nor_named_in_training() {
    let held_out = HELD_OUT.map(|(colour, shape)| format!("{} {}", colour.word(), shape.word()));
    for scene in scenes(ShapesSplit::Train, [1, 4]).chain(scenes(ShapesSplit::Train, [5, 6])) {
        assert!(!scene.is_held_out() && scene.edits().iter().all(|edit| !edit.after.is_held_out()));
        for text in texts(&scene) {
            assert!(held_out.iter().all(|combination| !text.contains(combination)), "{text}");
        }
    }
    assert!(scenes(ShapesSplit::HeldOut, [1, 4]).all(|scene| scene.is_held_out()));
    let of_all = scenes(ShapesSplit::All, [1, 4]).filter(Scene::is_held_out).count();
    assert!((0.3..0.4).contains(&(of_all as f64 / SCENES as f64)), "{of_all}");
}

#[test]
fn no_held_out_scene_or_canonical_caption_is_in_training_but_each_word_is() {
    let train: Vec<Scene> = scenes(ShapesSplit::Train, [1, 4]).collect();
    let seen: HashSet<&Scene> = train.iter().collect();
    let captions: HashSet<String> = train.iter().flat_map(Scene::captions).collect();
    let all: Vec<String> = train.iter().flat_map(texts).collect();
    let words: HashSet<&str> = all.iter().flat_map(|text| text.split([' ', ',', '?'])).collect();
    for scene in scenes(ShapesSplit::HeldOut, [1, 4]) {
        assert!(!seen.contains(&scene) && !captions.contains(&scene.captions()[0]));
        for text in texts(&scene) {
            assert!(text.split([' ', ',', '?']).all(|word| words.contains(word)), "{text}");
        }
    }
}

#[test]
fn scenes_are_valid_and_hardly_ever_the_same() {
    for split in [ShapesSplit::Train, ShapesSplit::HeldOut, ShapesSplit::All] {
        let scenes: Vec<Scene> = scenes(split, [1, 6]).collect();
        for scene in &scenes {
            assert_eq!(Scene::new(scene.objects().to_vec(), scene.background()).unwrap(), *scene);
        }
        assert!(scenes.iter().collect::<HashSet<_>>().len() > scenes.len() - 5);
        for count in 1..=6 {
            assert!(scenes.iter().filter(|scene| scene.objects().len() == count).count() > scenes.len() / 8);
        }
    }
}

#[test]
fn the_middle_of_an_object_has_its_colour_and_all_around_is_background() {
    for scene in all_sorts().step_by(10) {
        for size in [64, 100, 224] {
            let image = scene.render(size);
            let at = |thousandths: u32| (thousandths * size / 1000).min(size - 1);
            let palette = || Colour::ALL.map(Colour::rgb).into_iter().chain([scene.background().rgb()]);
            let apart = |a: [u8; 3], b: [u8; 3]| {
                a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>()
            };
            for object in scene.objects() {
                let expected = match object.pattern {
                    Pattern::Hollow => scene.background().rgb(),
                    _ => object.colour.rgb(),
                };
                let middle = image[(at(object.x), at(object.y))].0;
                let nearest = palette().min_by_key(|&colour| apart(colour, middle));
                assert_eq!(nearest, Some(expected), "{middle:?}: {object:?}");
            }
            let inside = |object: &Object, x: u32, y: u32| {
                // The bounding square plus a pixel, in thousandths.
                let reach = object.size.radius() + 1000 / size + 1;
                let middle = |pixel: u32| (2 * pixel + 1) * 500 / size;
                object.x.abs_diff(middle(x)) <= reach && object.y.abs_diff(middle(y)) <= reach
            };
            for (x, y, pixel) in image.enumerate_pixels() {
                let free = scene.objects().iter().all(|object| !inside(object, x, y));
                assert!(!free || pixel.0 == scene.background().rgb(), "({x}, {y}) {scene:?}");
            }
        }
    }
}

#[test]
fn any_two_looks_differ_plainly_at_64_pixels() {
    let looks = ShapesConfig { objects: [1, 1], split: ShapesSplit::All, ..ShapesConfig::default() };
    let mut pictures = BTreeMap::new();
    for scene in (0..6000).map(|index| looks.scene(index)) {
        let middle = Object { x: 500, y: 500, ..scene.objects()[0] };
        let picture = Scene::new(vec![middle], Background::White).unwrap().render(64);
        pictures.insert(serde_json::to_string(&middle).unwrap(), picture.into_raw());
    }
    assert_eq!(pictures.len(), 6 * 8 * 2 * 4);
    let pictures: Vec<_> = pictures.into_iter().collect();
    for (place, (one, a)) in pictures.iter().enumerate() {
        for (other, b) in &pictures[..place] {
            let difference: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            assert!(difference > 1500, "{difference}: {one} and {other}");
        }
    }
}

fn any_object() -> impl Strategy<Value = Object> {
    let place = prop_oneof![9 => 0..=1000u32, 1 => any::<u32>()];
    let look = (
        select(&Shape::ALL[..]),
        select(&Colour::ALL[..]),
        select(&Size::ALL[..]),
        select(&Pattern::ALL[..]),
    );
    (look, place.clone(), place).prop_map(|((shape, colour, size, pattern), x, y)| Object {
        shape,
        colour,
        size,
        pattern,
        x,
        y,
    })
}

proptest! {
    #[test]
    fn any_objects_are_a_scene_of_true_texts_or_an_error(objects in vec(any_object(), 0..8)) {
        if let Ok(scene) = Scene::new(objects, Background::Sky) {
            let things = things(&scene);
            prop_assert!(scene.captions().iter().all(|caption| is_true(caption, &things, PLAINLY)));
            prop_assert!(scene.negatives().iter().all(|pair| !is_true(&pair.negative, &things, BARELY)));
            let questions = scene.questions();
        prop_assert!(questions.iter().all(|asked| asked.answers == [answer(&asked.text, &things)]));
            prop_assert!(scene.edits().iter().all(|edit| edit.before == scene && edit.after != scene));
            prop_assert_eq!(scene.render(8).dimensions(), (8, 8));
        }
    }
}

#[test]
fn scenes_texts_and_pixels_stay_as_they_were() {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for split in [ShapesSplit::Train, ShapesSplit::HeldOut, ShapesSplit::All] {
        let config = ShapesConfig { split, objects: [1, 6], seed: 7, ..ShapesConfig::default() };
        for scene in (0..20).map(|index| config.scene(index)) {
            add(scene.render(64).as_raw());
            texts(&scene).iter().for_each(|text| add(text.as_bytes()));
        }
    }
    assert_eq!(hash, 1_216_363_728_669_692_760);
}

#[test]
fn a_sample_depends_on_seed_split_and_index_alone() {
    let open = |config: &ShapesConfig| DatasetConfig::Shapes(config.clone()).open().unwrap();
    let config = ShapesConfig { samples: 300, ..ShapesConfig::default() };
    let (one, again) = (open(&config), open(&ShapesConfig { size: 100, samples: 200, ..config.clone() }));
    let mut ids = HashSet::new();
    for index in (0..200).rev() {
        let (one, again) = (one.sample(index).unwrap(), again.sample(index).unwrap());
        assert_eq!(
            (&one.key, &one.captions, &one.questions),
            (&again.key, &again.captions, &again.questions)
        );
        assert!(one.questions.iter().all(|question| ids.insert(question.id)));
        assert_eq!(one.image().unwrap().decode([0; 3]).unwrap().dimensions(), (64, 64));
        assert_eq!(again.image().unwrap().decode([0; 3]).unwrap().dimensions(), (100, 100));
    }
    for other in [
        ShapesConfig { seed: 1, ..config.clone() },
        ShapesConfig { split: ShapesSplit::All, ..config.clone() },
    ] {
        assert!((0..20).filter(|&index| other.scene(index) == config.scene(index)).count() < 2);
    }
}
