//! Metrics of generated images on the features of a named tower, and of image-prompt pairs.
//!
//! A metric compares two sets of feature rows `[N, D]`; which tower made them is part of its name, since the
//! values of different towers are not comparable. `docs/diffusion-metrics.md` has definitions, biases and the
//! number of images that each needs.
//!
//! - [`FeatureStatistics`] and [`frechet_distance`]: FID (Heusel et al. 2017);
//! - [`kid`], [`kid_of_subsets`], [`unbiased_mmd`]: KID (Binkowski et al. 2018);
//! - [`precision_recall`]: improved precision and recall (Kynkäänniemi et al. 2019);
//! - [`cmmd`]: CMMD (Jayasumana et al. 2024);
//! - [`PromptScores`]: CLIPScore of images and the prompts that they were made from.
//!
//! [`ImageFeatures`] embeds images, [`SetReport`] measures all of it and says where a set is too small. All
//! sums are in f64, over blocks of fixed size in a fixed order: memory does not grow with the number of
//! pairs, and the number of threads changes a value by the rounding of f64 at most.
//!
//! ```
//! use mm_diffusion::metrics::{FeatureStatistics, Features, frechet_distance, precision_recall};
//! use tch::Tensor;
//!
//! let square = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]].concat();
//! let reference = Features::new(&Tensor::from_slice(&square).view([4, 2]))?;
//! let generated = Features::new(&(Tensor::from_slice(&square).view([4, 2]) + 3.0))?;
//! let [a, b] = [&reference, &generated].map(FeatureStatistics::new);
//! assert!((frechet_distance(&a?, &b?)? - 18.0).abs() < 1e-9);
//! assert_eq!(precision_recall(&reference, &generated, 3)?.precision, 0.0);
//! # Ok::<(), mm_diffusion::metrics::MetricsError>(())
//! ```
//!
//! To add a metric of two sets, write it as a function of two [`Features`] in a file here, and add it to
//! [`SetMetric`] and to `report.rs`.

mod cmmd;
mod error;
mod features;
mod frechet;
mod images;
mod kid;
mod pairs;
mod precision_recall;
mod prompts;
mod report;

pub use cmmd::{CMMD_SCALE, CMMD_SIGMA, cmmd};
pub use error::{MetricsError, Result};
pub use features::Features;
pub use frechet::{FeatureStatistics, frechet_distance};
pub use images::ImageFeatures;
pub use kid::{Kid, KidOptions, kid, kid_of_subsets, unbiased_mmd};
pub use precision_recall::{NEIGHBOURS, PrecisionRecall, precision_recall};
pub use prompts::{PromptScores, read_prompts, stored_prompt};
pub use report::{MetricValue, SetMetric, SetReport};
