//! All metrics of two sets, as one value.

use super::kid::{KidOptions, kid, unbiased_mmd};
use super::precision_recall::{NEIGHBOURS, precision_recall};
use super::{FeatureStatistics, Features, PromptScores, Result, cmmd, frechet_distance};
use serde::Serialize;

/// With fewer images the bias of FID is large beside the differences between models: Heusel et al. advise at
/// least as many.
const FEW_FOR_FID: usize = 10_000;

/// With fewer images precision, recall and CMMD depend visibly on the number.
const FEW: usize = 1000;

/// A metric of two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMetric {
    /// [`frechet_distance`], as `fid`.
    Fid,
    /// [`kid`], as `kid` and `kid_std`, and [`unbiased_mmd`] of all images, as `kid_unbiased`.
    Kid,
    /// [`precision_recall`] with [`NEIGHBOURS`], as `precision` and `recall`.
    PrecisionRecall,
    /// [`cmmd`], as `cmmd`.
    Cmmd,
}

/// A value with all that a comparison needs to know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricValue {
    /// The metric.
    pub name: &'static str,
    /// The tower of the features: values of different towers are not comparable.
    pub tower: String,
    /// The value.
    pub value: f64,
}

/// The metrics of generated images.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SetReport {
    /// The metrics in order.
    pub metrics: Vec<MetricValue>,
    /// What makes a number unfit for comparison.
    pub warnings: Vec<String>,
}

impl SetReport {
    /// Measures `generated` against `reference` on features of `tower`.
    ///
    /// # Errors
    /// The widths differ, or a set is too small for a metric.
    pub fn measure(
        tower: &str,
        reference: &Features,
        generated: &Features,
        metrics: &[SetMetric],
        options: &KidOptions,
    ) -> Result<Self> {
        let mut report = Self::default();
        for &metric in metrics {
            report.warnings.extend(warning(metric, reference, generated, options));
            match metric {
                SetMetric::Fid => {
                    let [a, b] = [reference, generated].map(FeatureStatistics::new);
                    report.push("fid", tower, frechet_distance(&a?, &b?)?);
                }
                SetMetric::Kid => {
                    let found = kid(reference, generated, options)?;
                    report.push("kid", tower, found.mean);
                    report.push("kid_std", tower, found.std);
                    report.push("kid_unbiased", tower, unbiased_mmd(reference, generated)?);
                }
                SetMetric::PrecisionRecall => {
                    let found = precision_recall(reference, generated, NEIGHBOURS)?;
                    report.push("precision", tower, found.precision);
                    report.push("recall", tower, found.recall);
                }
                SetMetric::Cmmd => report.push("cmmd", tower, cmmd(reference, generated)?),
            }
        }
        Ok(report)
    }

    /// Adds the agreement with prompts by the CLIP `tower`.
    pub fn add_prompt_scores(&mut self, tower: &str, scores: &PromptScores) {
        self.push("clip_score", tower, scores.clip_score);
        self.push("clip_cosine", tower, scores.clip_cosine);
    }

    /// The value of a metric.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    fn push(&mut self, name: &'static str, tower: &str, value: f64) {
        self.metrics.push(MetricValue { name, tower: tower.to_owned(), value });
    }
}

/// Says where the sets are too small for `metric`.
fn warning(
    metric: SetMetric,
    reference: &Features,
    generated: &Features,
    options: &KidOptions,
) -> Option<String> {
    let (fewest, width) = (reference.count().min(generated.count()), generated.width());
    match metric {
        SetMetric::Fid if fewest <= width => Some(format!(
            "fid of {fewest} images with {width} features is mostly bias: a covariance has not full rank; \
             use more images, or kid"
        )),
        SetMetric::Fid if fewest < FEW_FOR_FID => Some(format!(
            "fid of {fewest} images is biased upwards: compare it only between sets of equal size, of \
             {FEW_FOR_FID} images or more where possible"
        )),
        SetMetric::Kid if fewest < options.subset_size => Some(format!(
            "kid has subsets of {fewest} images instead of {}: kid_std is of these, and too small because \
             subsets overlap; kid_unbiased uses all images once",
            options.subset_size
        )),
        SetMetric::PrecisionRecall if fewest < FEW => Some(format!(
            "precision and recall of {fewest} images are coarse and depend on the number: compare them only \
             between sets of equal size"
        )),
        SetMetric::Cmmd if fewest < FEW => Some(format!(
            "cmmd of {fewest} images is biased upwards: compare it only between sets of equal size"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sets_are_warned_of_and_metrics_come_in_the_order_asked_for() {
        let features = |seed, count| Features::new(&mm_testing::normal(seed, &[count, 6])).unwrap();
        let measure = |count, metrics: &[SetMetric]| {
            let (a, b) = (features(1, count), features(2, count + 5));
            let options = KidOptions { subsets: 2, subset_size: 50, seed: 0 };
            SetReport::measure("tiny", &a, &b, metrics, &options).unwrap()
        };
        let report = measure(60, &[SetMetric::Cmmd, SetMetric::Kid]);
        let names: Vec<_> = report.metrics.iter().map(|metric| metric.name).collect();
        assert_eq!(names, ["cmmd", "kid", "kid_std", "kid_unbiased"]);
        assert_eq!(report.warnings.len(), 1);
        assert_eq!(report.get("kid"), Some(report.metrics[1].value));
        let report = measure(6, &[SetMetric::Fid, SetMetric::Kid, SetMetric::PrecisionRecall]);
        assert!(report.warnings[0].contains("not full rank"), "{:?}", report.warnings);
        assert!(report.warnings[1].contains("subsets of 6 images instead of 50"), "{:?}", report.warnings);
        assert!(report.warnings[2].contains("coarse"), "{:?}", report.warnings);
    }
}
