//! Every case of the goldens.

use super::features;
use mm_diffusion::metrics::{
    FeatureStatistics, Features, NEIGHBOURS, cmmd, frechet_distance, kid_of_subsets, precision_recall,
    unbiased_mmd,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Expected {
    fid: f64,
    kid: f64,
    subsets: Vec<[Vec<i64>; 2]>,
    kid_mean: f64,
    kid_std: f64,
    precision: f64,
    recall: f64,
    cmmd: f64,
}

/// Calls `compare` with the reference and generated features of each case.
fn each_case(mut compare: impl FnMut(&str, &Tensor, &Tensor, &Expected)) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion-metrics");
    let tensors: BTreeMap<String, Tensor> =
        Tensor::read_safetensors(folder.join("features.safetensors")).unwrap().into_iter().collect();
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Expected> = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.len(), 5);
    for (case, expected) in &expected {
        let rows = |set: &str| &tensors[&format!("{case}/{set}")];
        compare(case, rows("reference"), rows("generated"), expected);
    }
}

/// Asserts that `found` is within `tolerance` of `expected`, relative to it.
fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let off = (found - expected).abs() / expected.abs();
    println!("{what}: {found}, off by {off:.1e}");
    assert!(off <= tolerance, "{what}: {found} instead of {expected}, off by {off:.1e}");
}

fn fid(reference: &Features, generated: &Features) -> f64 {
    let [a, b] = [reference, generated].map(|set| FeatureStatistics::new(set).unwrap());
    frechet_distance(&a, &b).unwrap()
}

#[test]
fn fid_equals_that_of_scipys_root() {
    each_case(|case, reference, generated, expected| {
        let [reference, generated] = [reference, generated].map(features);
        assert_near(&format!("fid of {case}"), fid(&reference, &generated), expected.fid, 1e-6);
    });
}

#[test]
fn kid_equals_the_sums_over_all_pairs() {
    each_case(|case, reference, generated, expected| {
        let [x, y] = [reference, generated].map(features);
        let kid = kid_of_subsets(&x, &y, &expected.subsets).unwrap();
        for (what, found, expected) in [
            ("kid", unbiased_mmd(&x, &y).unwrap(), expected.kid),
            ("kid's mean", kid.mean, expected.kid_mean),
            ("kid's deviation", kid.std, expected.kid_std),
        ] {
            assert_near(&format!("{what} of {case}"), found, expected, 1e-6);
        }
    });
}

#[test]
fn precision_and_recall_equal_those_by_direct_distances() {
    each_case(|case, reference, generated, expected| {
        let found = precision_recall(&features(reference), &features(generated), NEIGHBOURS).unwrap();
        assert_eq!((found.precision, found.recall), (expected.precision, expected.recall), "{case}");
    });
}

#[test]
fn cmmd_equals_the_sums_over_all_pairs() {
    each_case(|case, reference, generated, expected| {
        let found = cmmd(&features(reference), &features(generated)).unwrap();
        assert_near(&format!("cmmd of {case}"), found, expected.cmmd, 1e-6);
    });
}

#[test]
fn features_of_f32_are_measured_in_f64() {
    each_case(|case, reference, generated, expected| {
        // Far from 0 the rounding of the rows themselves decides.
        if case != "offset" {
            let [x, y] = [reference, generated].map(|rows| features(&rows.to_kind(Kind::Float)));
            assert_near(&format!("fid of {case} in f32"), fid(&x, &y), expected.fid, 1e-6);
        }
    });
}
