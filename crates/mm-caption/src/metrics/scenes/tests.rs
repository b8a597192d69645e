//! Tests of the judgement of captions: against the generator's texts, by hand, and with damaged captions.

use mm_data::shapes::{Background, Colour, Object, Pattern, Scene, Shape, ShapesConfig, ShapesSplit, Size};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn scenes() -> impl Iterator<Item = Scene> {
    let few = ShapesConfig::default();
    let many = ShapesConfig { split: ShapesSplit::All, objects: [3, 6], ..ShapesConfig::default() };
    [few, many].into_iter().flat_map(|config| (0..1000).map(move |index| config.scene(index)))
}

fn object(size: Size, colour: Colour, shape: Shape, x: u32, y: u32) -> Object {
    Object { shape, colour, size, pattern: Pattern::Solid, x, y }
}

/// A small red circle, a large red circle to its right, and a small blue star below that one.
fn three() -> Scene {
    let objects = vec![
        object(Size::Small, Colour::Red, Shape::Circle, 150, 300),
        object(Size::Large, Colour::Red, Shape::Circle, 500, 300),
        object(Size::Small, Colour::Blue, Shape::Star, 520, 700),
    ];
    Scene::new(objects, Background::White).unwrap()
}

fn score(caption: &str) -> SceneScore {
    SceneScore::of(caption, &three())
}

#[test]
fn every_caption_of_the_generator_is_entirely_true() {
    for scene in scenes() {
        let captions = scene.captions();
        let positives = scene.negatives().into_iter().map(|pair| pair.positive);
        for caption in captions.iter().cloned().chain(positives) {
            let score = SceneScore::of(&caption, &scene);
            assert!(score.is_faithful() && score.unparsed.is_none(), "{caption}: {score:?} {scene:?}");
            assert!(score.precision() == 1.0 && score.recall() <= 1.0, "{caption}: {score:?}");
            assert!(score.kinds.iter().all(|kind| kind.wrong == 0), "{caption}: {score:?}");
        }
        assert_eq!(faithfulness(&captions[0], &scene), 1.0, "{}", captions[0]);
    }
}

#[test]
fn every_negative_of_the_generator_is_false() {
    for scene in scenes() {
        for pair in scene.negatives() {
            let score = SceneScore::of(&pair.negative, &scene);
            assert!(!score.is_faithful() && score.unparsed.is_none(), "{pair:?}: {score:?} {scene:?}");
            let positive = SceneScore::of(&pair.positive, &scene);
            assert!(score.true_tuples < positive.true_tuples || score.precision() < 1.0, "{pair:?}");
        }
    }
}

#[test]
fn each_kind_of_hallucination_is_counted_under_its_name() {
    let wrong = |caption: &str| -> Vec<HallucinationKind> {
        let score = score(caption);
        assert_eq!(score.unparsed, None, "{caption}");
        HallucinationKind::ALL.into_iter().filter(|&kind| score.kind(kind).wrong > 0).collect()
    };
    assert_eq!(wrong("there is a heart"), [HallucinationKind::Object]);
    assert_eq!(wrong("a green circle and a blue star"), [HallucinationKind::Colour]);
    assert_eq!(wrong("a picture of a striped star"), [HallucinationKind::Pattern]);
    assert_eq!(wrong("a large star"), [HallucinationKind::Size]);
    assert_eq!(wrong("exactly one circle"), [HallucinationKind::Count]);
    assert_eq!(wrong("a picture of four shapes"), [HallucinationKind::Count]);
    assert_eq!(wrong("a star above a large circle"), [HallucinationKind::Relation]);
    assert_eq!(wrong("no stars"), [HallucinationKind::Count]);
    assert_eq!(wrong("no hearts"), []);
    assert_eq!(wrong("a large striped star"), [HallucinationKind::Pattern, HallucinationKind::Size]);
}

#[test]
fn two_phrases_need_two_objects() {
    assert!(score("a red circle to the left of a red circle").is_faithful());
    assert!(!score("a star above a star").is_faithful());
    assert!(!score("a small circle and a small red circle").is_faithful());
    assert!(score("a circle and a small circle").is_faithful());
    // The phrases fit, but no two such objects are related like this.
    let wrong = score("a large circle to the left of a red circle");
    assert_eq!((wrong.statements, wrong.true_statements), (3, 2));
    assert_eq!(wrong.objects, Mentions { all: 2, wrong: 0 });
}

#[test]
fn tuples_count_as_those_of_spice() {
    let all = score(
        "a small solid red circle to the left of a large solid red circle, which is above a small solid blue \
         star",
    );
    assert_eq!((all.caption_tuples, all.true_tuples, all.scene_tuples), (14, 14, 14));
    assert_eq!(all.f1(), 1.0);
    // star; star, small; circle; not (circle, green); the relation.
    let some = score("a small star below a green circle");
    assert_eq!((some.caption_tuples, some.true_tuples, some.stated_tuples), (5, 4, 4));
    assert_eq!((some.precision(), some.recall()), (0.8, 4.0 / 14.0));
    // Three circles and the number; two circles are there.
    let three = score("three circles");
    assert_eq!((three.caption_tuples, three.true_tuples, three.stated_tuples), (4, 2, 2));
    // A right number is no tuple, so that `no hearts` does not make up for a wrong phrase.
    assert_eq!(score("two circles").caption_tuples, 2);
    assert_eq!(score("a heart and no hearts").precision(), 0.0);
    // A relation that is stated twice is one tuple of the scene.
    assert_eq!(score("a star below a large circle, which is above a star").stated_tuples, 4);
}

#[test]
fn text_outside_of_the_grammar_is_a_false_statement() {
    for (caption, rest) in [
        ("", ""),
        ("a", "a"),
        ("a dog", "a dog"),
        ("a picture of", "a picture of"),
        ("a red circle and", "and"),
        ("a red circle above", "above"),
        ("a red circle red circle", "red circle"),
        ("a red circle which is a star", "which is a star"),
        ("two circles above a star", "above a star"),
        ("a red blue circle", "a red blue circle"),
        ("a star, a star a star", "a star"),
    ] {
        let score = score(caption);
        assert_eq!(score.unparsed.as_deref(), Some(rest), "{caption}");
        assert!(!score.is_faithful() && score.faithfulness() == 0.0, "{caption}");
    }
    for caption in ["A Red circle.", "the red small circles, and a star", "  a star ,a circle ", "two circle"]
    {
        let score = score(caption);
        assert!(score.is_faithful(), "{caption}: {score:?}");
    }
}

#[test]
fn a_corpus_has_chair_over_captions_and_mentions() {
    let scores = ["a star and a heart", "two circles", "a blue star", "a dog"].map(score);
    let chair = SceneChair::of(&scores);
    assert_eq!((chair.captions, chair.chair_s, chair.chair_i, chair.unparsed), (4, 0.5, 0.25, 0.25));
    assert_eq!(chair.kind(HallucinationKind::Object), Mentions { all: 4, wrong: 1 });
    assert_eq!(chair.kind(HallucinationKind::Colour), Mentions { all: 1, wrong: 0 });
    assert_eq!(SceneChair::of(&[]), SceneChair::default());
}

/// Words of the grammar, with some others.
const WORDS: [&str; 24] = [
    "a",
    "an",
    "the",
    "no",
    "two",
    "six",
    "ten",
    "small",
    "large",
    "striped",
    "red",
    "blue",
    "circle",
    "stars",
    "shape",
    "shapes",
    "and",
    ",",
    "which is",
    "to the left of",
    "above",
    "exactly",
    "a picture of",
    "dog",
];

proptest! {
    #[test]
    fn no_text_panics_and_every_score_is_a_share(
        words in vec(select(WORDS.to_vec()), 0..40), index in 0..1000_u64, garbage in "\\PC*",
    ) {
        let scene = ShapesConfig { objects: [1, 6], ..ShapesConfig::default() }.scene(index);
        for caption in [words.join(" "), garbage] {
            let score = SceneScore::of(&caption, &scene);
            prop_assert!((0.0..=1.0).contains(&score.f1()) && score.recall() <= 1.0, "{caption}: {score:?}");
            prop_assert!(score.true_statements <= score.statements && score.statements > 0);
            prop_assert!(score.unparsed.is_none() || !score.is_faithful());
        }
    }

    #[test]
    fn a_caption_without_some_of_its_words_is_judged(index in 0..1000_u64, keep in vec(any::<bool>(), 60)) {
        let scene = ShapesConfig { objects: [1, 6], ..ShapesConfig::default() }.scene(index);
        for caption in scene.captions() {
            let kept: Vec<&str> =
                caption.split(' ').zip(&keep).filter(|(_, keep)| **keep).map(|(word, _)| word).collect();
            let score = SceneScore::of(&kept.join(" "), &scene);
            prop_assert!((0.0..=1.0).contains(&score.faithfulness()));
        }
    }
}
