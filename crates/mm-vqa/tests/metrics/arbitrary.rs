//! Properties of the metrics on arbitrary texts and numbers.

use mm_vqa::metrics::calibration::{AbstainTarget, Answer, Answers, Binning};
use mm_vqa::metrics::choice::parse_choice;
use mm_vqa::metrics::medical::words;
use mm_vqa::metrics::vqa::{
    AnsweredQuestion, Consensus, Protocol, VqaAccuracy, VqaSet, normalize, soft_targets,
};
use mm_vqa::metrics::{Findings, OnProblem, Prediction};
use proptest::prelude::*;

/// Texts of the characters and words that rules apply to.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[ a-e0-9.,;!?'/\\-\n\t]{0,40}",
        prop::collection::vec("(the|a|An|none|ten|dont|Id've|'s|1,0|\\.|[-/] |\u{661},|\\x1c|é)", 0..12)
            .prop_map(|parts| parts.join(" ")),
    ]
}

proptest! {
    #[test]
    fn normalisation_never_panics_and_is_idempotent_where_it_should_be(text in text()) {
        let few_periods = text.matches('.').count() <= 32;
        for protocol in Protocol::ALL {
            let once = normalize(protocol, &text).text;
            let twice = normalize(protocol, &once).text;
            // `evalai` splits `'s` from contractions that it has made before.
            if protocol != Protocol::Evalai && few_periods {
                prop_assert_eq!(&twice, &once, "{}", protocol);
            }
        }
        let again = words(&words(&text).join(" "));
        prop_assert_eq!(again, words(&text));
        prop_assert!(parse_choice(&text, &["a", "b", &text]).is_none_or(|place| place < 3));
    }

    #[test]
    fn scores_and_targets_are_from_0_to_1(
        answers in prop::collection::vec(text(), 1..13),
        prediction in text(),
        twins in prop::collection::vec(0..4_u32, 13),
        is_given in any::<bool>(),
    ) {
        for protocol in Protocol::ALL {
            for consensus in [Consensus::LeaveOneOut, Consensus::ThreeMatches] {
                let targets = soft_targets(protocol, consensus, &answers);
                prop_assert!(targets.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
            }
            let twins = if is_given { twins[..answers.len()].to_vec() } else { Vec::new() };
            let question =
                AnsweredQuestion { answers: answers.clone(), twins, ..AnsweredQuestion::default() };
            let set = VqaSet { questions: vec![("1".into(), question)], findings: Findings::default() };
            let given = Prediction { question_id: "1".into(), answer: prediction.clone(), confidence: None };
            let found = VqaAccuracy::new(protocol, set, &[given], OnProblem::Refuse).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.overall.mean));
            prop_assert!(found.per_question[0].matches <= answers.len());
        }
    }

    #[test]
    fn a_target_is_what_the_metric_gives_to_the_answer(answers in prop::collection::vec("[ab .]{0,2}", 10)) {
        for protocol in Protocol::ALL {
            for (target, score) in soft_targets(protocol, Consensus::LeaveOneOut, &answers) {
                let question = AnsweredQuestion { answers: answers.clone(), ..AnsweredQuestion::default() };
                let set = VqaSet { questions: vec![("1".into(), question)], findings: Findings::default() };
                let given = Prediction { question_id: "1".into(), answer: target, confidence: None };
                let found = VqaAccuracy::new(protocol, set, &[given], OnProblem::Refuse).unwrap();
                prop_assert!((found.overall.mean - score).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn calibration_is_in_its_range(
        pairs in prop::collection::vec((0..=10_u8, 0..=10_u8), 1..60),
        bins in 1..20_usize,
        target in 0.0..=1.0_f64,
    ) {
        let answer = |&(confidence, score): &(u8, u8)| Answer {
            confidence: f64::from(confidence) / 10.0,
            score: f64::from(score) / 10.0,
        };
        let answers = Answers::new(pairs.iter().map(answer).collect()).unwrap();
        for binning in [Binning::EqualWidth, Binning::EqualMass] {
            let table = answers.reliability(binning, bins).unwrap();
            prop_assert_eq!(table.iter().map(|bin| bin.answers).sum::<usize>(), pairs.len());
            let error = answers.expected_calibration_error(binning, bins).unwrap();
            prop_assert!((0.0..=1.0).contains(&error));
        }
        let points = answers.risk_coverage();
        prop_assert!(points.is_sorted_by(|a, b| a.coverage < b.coverage && a.threshold > b.threshold));
        prop_assert!((0.0..=1.0).contains(&answers.area_under_risk_coverage()));
        let risk = answers.abstain(&answers, AbstainTarget::Risk(target)).unwrap();
        prop_assert!(risk.accuracy_of_answered.is_none_or(|accuracy| accuracy >= 1.0 - target - 1e-9));
        let coverage = answers.abstain(&answers, AbstainTarget::Coverage(target)).unwrap();
        prop_assert!(coverage.coverage >= target - 1e-9);
    }
}
