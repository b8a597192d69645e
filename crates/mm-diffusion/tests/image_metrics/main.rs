//! The metrics of generated images equal numpy's and scipy's (`data/goldens/diffusion-metrics`, written by
//! `xtask/goldens/diffusion-metrics.py`), and have the properties of their definitions.

mod goldens;
mod properties;
mod refusals;

use mm_diffusion::metrics::{Features, KidOptions};
use tch::{Kind, Tensor};

fn features(rows: &Tensor) -> Features {
    Features::new(rows).unwrap()
}

/// Features of f64 from the standard normal distribution.
fn normal(seed: u64, count: i64, width: i64) -> Tensor {
    mm_testing::normal(seed, &[count, width]).to_kind(Kind::Double)
}

/// Subsets that are smaller than the sets of the tests.
const SUBSETS: KidOptions = KidOptions { subsets: 10, subset_size: 30, seed: 1 };
