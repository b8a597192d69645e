//! What follows from the definitions, for random sets.

use super::{SUBSETS, features, normal};
use mm_diffusion::metrics::{
    FeatureStatistics, NEIGHBOURS, cmmd, frechet_distance, kid, precision_recall, unbiased_mmd,
};
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn fid(x: &Tensor, y: &Tensor) -> f64 {
    let [a, b] = [x, y].map(|rows| FeatureStatistics::new(&features(rows)).unwrap());
    frechet_distance(&a, &b).unwrap()
}

/// The metrics that do not draw subsets, by name.
fn all(x: &Tensor, y: &Tensor) -> [(&'static str, f64); 5] {
    let (a, b) = (features(x), features(y));
    let covered = precision_recall(&a, &b, NEIGHBOURS).unwrap();
    [
        ("fid", fid(x, y)),
        ("kid", unbiased_mmd(&a, &b).unwrap()),
        ("precision", covered.precision),
        ("recall", covered.recall),
        ("cmmd", cmmd(&a, &b).unwrap()),
    ]
}

fn assert_equal(found: [(&str, f64); 5], expected: [(&str, f64); 5]) {
    for ((name, found), (_, expected)) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{name}: {found} {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_set_has_no_distance_from_itself(seed in 0..1000u64, count in 5..60i64, width in 1..40i64) {
        let x = normal(seed, count, width) + 0.5;
        let [(_, fid), _, (_, precision), (_, recall), (_, cmmd)] = all(&x, &x);
        prop_assert!(fid < 1e-9 * width as f64, "{fid}");
        prop_assert_eq!((precision, recall), (1.0, 1.0));
        prop_assert!(cmmd.abs() < 1e-9, "{}", cmmd);
    }

    #[test]
    fn the_order_of_the_images_does_not_matter(seed in 0..1000u64, count in 8..60i64, width in 1..40i64) {
        let (x, y) = (normal(seed, count, width), normal(seed + 1, count + 3, width) * 1.5);
        assert_equal(all(&x.flip([0]), &y.roll([5], [0])), all(&x, &y));
    }

    #[test]
    fn a_shift_adds_its_square_to_fid(seed in 0..1000u64, count in 5..60i64, width in 1..40i64) {
        let (x, y) = (normal(seed, count, width), normal(seed + 1, count, width));
        let mean = |rows: &Tensor| rows.mean_dim([0i64].as_slice(), false, Kind::Double);
        let at = |shift: f64| fid(&x, &(&y - mean(&y) + mean(&x) + shift));
        let still = at(0.0);
        let mut last = still;
        for shift in [0.5, 1.0, 4.0] {
            let found = at(shift);
            prop_assert!(found > last);
            let expected = still + width as f64 * shift * shift;
            prop_assert!((found - expected).abs() < 1e-9 * expected.max(1.0), "{} {}", found, expected);
            last = found;
        }
    }
}

#[test]
fn the_distances_are_symmetric_and_precision_is_recall_the_other_way() {
    let (x, y) = (normal(3, 50, 12), normal(4, 40, 12) * 0.7 + 0.2);
    let [fid, kid, precision, recall, cmmd] = all(&x, &y);
    let [fid2, kid2, precision2, recall2, cmmd2] = all(&y, &x);
    let other_way = [fid2, kid2, (recall2.0, recall2.1), (precision2.0, precision2.1), cmmd2];
    assert_equal(other_way, [fid, kid, precision, recall, cmmd]);
}

#[test]
fn sets_of_several_blocks_equal_the_formulas_in_one_piece() {
    // A block has 1024 rows.
    let (x, y) = (normal(5, 2100, 6), normal(6, 1030, 6) * 1.2 + 0.3);
    let mean = |matrix: Tensor| matrix.mean(Kind::Double).double_value(&[]);
    let kernel = |a: &Tensor, b: &Tensor| (a.matmul(&b.tr()) / 6.0 + 1.0).pow_tensor_scalar(3);
    let within = |rows: &Tensor| {
        let (matrix, count) = (kernel(rows, rows), rows.size()[0] as f64);
        let diagonal = matrix.diagonal(0, 0, 1).sum(Kind::Double).double_value(&[]);
        (matrix.sum(Kind::Double).double_value(&[]) - diagonal) / (count * (count - 1.0))
    };
    let expected_kid = within(&x) + within(&y) - 2.0 * mean(kernel(&x, &y));
    let unit = |rows: &Tensor| rows / rows.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
    let gauss =
        |a: &Tensor, b: &Tensor| mean((Tensor::cdist(&unit(a), &unit(b), 2.0, 2).square() / -200.0).exp());
    let expected_cmmd = 1000.0 * (gauss(&x, &x) + gauss(&y, &y) - 2.0 * gauss(&x, &y));
    let radii = |rows: &Tensor| Tensor::cdist(rows, rows, 2.0, 2).kthvalue(4, 1, false).0;
    let covered = |queries: &Tensor, set: &Tensor| {
        let is_within = Tensor::cdist(queries, set, 2.0, 2).le_tensor(&radii(set)).any_dim(1, false);
        mean(is_within.to_kind(Kind::Double))
    };
    let [(_, found_fid), kid, precision, recall, cmmd] = all(&x, &y);
    let expected = [
        ("fid", found_fid),
        ("kid", expected_kid),
        ("precision", covered(&y, &x)),
        ("recall", covered(&x, &y)),
        ("cmmd", expected_cmmd),
    ];
    assert_equal([("fid", found_fid), kid, precision, recall, cmmd], expected);
    let covariance = |rows: &Tensor| rows.tr().cov(1, None::<Tensor>, None::<Tensor>);
    let difference = x.mean_dim([0i64].as_slice(), false, Kind::Double)
        - y.mean_dim([0i64].as_slice(), false, Kind::Double);
    let (a, b) = (covariance(&x), covariance(&y));
    let values = a.matmul(&b).linalg_eigvals().real().sqrt();
    let traces = a.trace() + b.trace() - values.sum(Kind::Double) * 2.0;
    let expected = difference.dot(&difference) + traces;
    assert!((found_fid - expected.double_value(&[])).abs() < 1e-9 * found_fid);
}

#[test]
fn the_number_of_threads_changes_nothing_but_roundings() {
    let (x, y) = (normal(7, 1500, 40), normal(8, 1100, 40) + 0.1);
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let alone = all(&x, &y);
    tch::set_num_threads(4);
    let together = all(&x, &y);
    tch::set_num_threads(threads);
    for ((name, alone), (_, together)) in alone.into_iter().zip(together) {
        assert!((alone - together).abs() <= 1e-12 * alone.abs().max(1.0), "{name}: {alone} {together}");
    }
}

#[test]
fn equal_seeds_draw_equal_subsets_of_which_the_mean_is_near_the_estimate_of_all() {
    let (x, y) = (features(&normal(9, 200, 8)), features(&(normal(10, 150, 8) + 0.5)));
    let first = kid(&x, &y, &SUBSETS).unwrap();
    assert_eq!(kid(&x, &y, &SUBSETS).unwrap(), first);
    assert_ne!(kid(&x, &y, &mm_diffusion::metrics::KidOptions { seed: 2, ..SUBSETS }).unwrap(), first);
    let unbiased = unbiased_mmd(&x, &y).unwrap();
    assert!(first.std > 0.0 && (first.mean - unbiased).abs() < first.std, "{first:?} {unbiased}");
}
