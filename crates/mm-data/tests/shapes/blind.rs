//! The score of a reader of the texts alone, without the images: no better than chance, or the set
//! would measure memorization.

use std::collections::BTreeMap;

use mm_data::shapes::{ShapesConfig, ShapesSplit};

const LEARNED: u64 = 20_000;
const ASKED: u64 = 5_000;

/// Learns from training scenes, and is tested on other training scenes and held-out ones.
fn exams() -> [(ShapesConfig, u64); 2] {
    let held_out = ShapesConfig { split: ShapesSplit::HeldOut, ..ShapesConfig::default() };
    [(ShapesConfig::default(), LEARNED), (held_out, 0)]
}

#[test]
fn the_most_frequent_answer_to_a_question_is_hardly_ever_right() {
    let train = ShapesConfig::default();
    let mut memory: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    for question in (0..LEARNED).flat_map(|index| train.scene(index).questions()) {
        *memory.entry(question.text).or_default().entry(question.answers[0].clone()).or_default() += 1;
    }
    for (exam, from) in exams() {
        let mut scores: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for question in (from..from + ASKED).flat_map(|index| exam.scene(index).questions()) {
            let known = memory
                .get(&question.text)
                .and_then(|answers| answers.iter().max_by_key(|(_, times)| **times));
            let guess = known.map_or("yes", |(answer, _)| answer);
            let [right, all] = scores.entry(question.kind.unwrap()).or_default();
            (*right, *all) = (*right + f64::from(guess == question.answers[0]), *all + 1.0);
        }
        for (kind, [right, all]) in scores {
            let most = match kind.as_str() {
                "colour" => 0.16,
                "count" => 0.42,
                _ => 0.53,
            };
            assert!(right / all < most, "{kind}: {right} of {all}");
        }
    }
}

#[test]
fn the_caption_that_is_more_often_true_is_no_sign_of_the_positive() {
    let train = ShapesConfig::default();
    let mut memory: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    for pair in (0..LEARNED).flat_map(|index| train.scene(index).negatives()) {
        memory.entry(pair.positive).or_default()[0] += 1.0;
        memory.entry(pair.negative).or_default()[1] += 1.0;
    }
    let likely = |caption: &String| {
        let [positive, negative] = memory.get(caption).copied().unwrap_or_default();
        (positive + 1.0) / (positive + negative + 2.0)
    };
    for (exam, from) in exams() {
        let mut scores: BTreeMap<_, [f64; 2]> = BTreeMap::new();
        for pair in (from..from + ASKED).flat_map(|index| exam.scene(index).negatives()) {
            let (positive, negative) = (likely(&pair.positive), likely(&pair.negative));
            let [right, all] = scores.entry(pair.kind).or_default();
            *right += if positive == negative { 0.5 } else { f64::from(positive > negative) };
            *all += 1.0;
        }
        for (kind, [right, all]) in scores {
            assert!((0.45..0.55).contains(&(right / all)), "{kind:?}: {right} of {all}");
        }
    }
}
