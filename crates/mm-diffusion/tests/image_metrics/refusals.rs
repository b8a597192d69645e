//! Sets that cannot be measured.

use super::{SUBSETS, features, normal};
use mm_diffusion::metrics::{
    FeatureStatistics, Features, KidOptions, cmmd, frechet_distance, kid, kid_of_subsets, precision_recall,
};
use std::fmt::Debug;
use tch::{Kind, Tensor};

fn message<T: Debug, E: ToString + Debug>(result: Result<T, E>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn features_are_a_finite_matrix() {
    for shape in [&[3][..], &[0, 3], &[3, 0], &[2, 2, 2]] {
        let rows = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
        assert!(message(Features::new(&rows)).contains("it must be [N, D]"));
    }
    for value in [f64::NAN, f64::INFINITY] {
        let rows = normal(1, 1100, 3);
        let _ = rows.get(1050).fill_(value);
        assert_eq!(message(Features::new(&rows)), "a feature of the rows 1024 to 1099 is not finite");
    }
}

#[test]
fn too_few_images_and_sets_of_two_towers_are_refused() {
    let (one, three, other) =
        (features(&normal(1, 1, 4)), features(&normal(2, 3, 4)), features(&normal(3, 9, 5)));
    assert!(message(FeatureStatistics::new(&one)).contains("at least 2 images"));
    assert!(
        message(kid(&three, &one, &SUBSETS)).contains("KID needs at least 2 images in each set, one has 1")
    );
    assert!(message(precision_recall(&three, &three, 3)).contains("needs at least 4 images"));
    assert!(message(precision_recall(&three, &three, 0)).contains("at least 1 neighbour"));
    let [a, b] = [&three, &other].map(|set| FeatureStatistics::new(set).unwrap());
    for refused in [
        message(frechet_distance(&a, &b)),
        message(kid(&three, &other, &SUBSETS)),
        message(precision_recall(&three, &other, 1)),
        message(cmmd(&three, &other)),
    ] {
        assert!(refused.contains("both must be of one tower"), "{refused}");
    }
    assert!(cmmd(&one, &three).unwrap() > 0.0);
}

#[test]
fn subsets_that_cannot_be_drawn_are_refused() {
    let set = features(&normal(1, 5, 4));
    for (subsets, subset_size) in [(0, 10), (10, 1)] {
        let options = KidOptions { subsets, subset_size, seed: 0 };
        assert!(message(kid(&set, &set, &options)).contains("at least 1 of at least 2"));
    }
    assert!(message(kid_of_subsets(&set, &set, &[])).contains("at least one subset"));
    assert!(kid_of_subsets(&set, &set, &[[vec![0, 9], vec![0, 1]]]).is_err());
}

#[test]
fn images_that_are_all_equal_have_a_covariance_of_0() {
    let same = Tensor::ones([6, 3], (Kind::Double, tch::Device::Cpu));
    let [a, b] = [&same, &(&same + 2.0)].map(|rows| FeatureStatistics::new(&features(rows)).unwrap());
    assert_eq!(frechet_distance(&a, &a).unwrap(), 0.0);
    assert!((frechet_distance(&a, &b).unwrap() - 12.0).abs() < 1e-12);
}
