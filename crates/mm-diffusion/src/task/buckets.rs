//! Aspect-ratio buckets: sizes of about the same area, of which each image takes the one that is nearest to
//! its aspect, and each batch has one.

use crate::framing::Size;
use crate::{Error, Result};
use mm_data::{BatchGroups, Dataset, Fault};
use mm_dist::ProcessGroup;
use mm_train::{Progress, gather};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// `[input.buckets]`: images keep their aspects, roughly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketsConfig {
    /// What the sides of a bucket are multiples of, in pixels; 0: 64 where the model's side is 512 or more,
    /// else the least that the model allows.
    pub step: u32,
    /// The largest ratio of the long side to the short one, of buckets and of images: beyond it an image is a
    /// bad sample.
    pub max_aspect: f64,
}

impl Default for BucketsConfig {
    fn default() -> Self {
        Self { step: 0, max_aspect: 2.0 }
    }
}

/// The side from which a step of 64 pixels is fine enough.
const LARGE: u32 = 512;

/// Images whose headers are read between two reports of progress.
const CHUNK: usize = 512;

/// The sizes that images are brought to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Buckets {
    /// In order of their aspects.
    sizes: Vec<Size>,
    max_aspect: f64,
}

impl Buckets {
    /// The one size of a model without buckets.
    pub(super) fn square(side: u32) -> Self {
        Self { sizes: vec![(side, side)], max_aspect: f64::INFINITY }
    }

    /// Those of `config` for a model of images of `side` x `side` pixels, whose sides are multiples of
    /// `unit`.
    ///
    /// # Errors
    /// The step does not fit the model, or the largest aspect is below 1.
    pub(super) fn new(config: &BucketsConfig, side: u32, unit: u32) -> Result<Self> {
        let step = match config.step {
            0 if side >= LARGE && 64 % unit == 0 => 64,
            0 => unit,
            step => step,
        };
        let wrong = |problem: String| Err(Error::Model(format!("input.buckets: {problem}")));
        if step % unit != 0 || step > side {
            return wrong(format!("step is {step}: the model needs a multiple of {unit}, at most {side}"));
        }
        let max_aspect = config.max_aspect;
        if !(max_aspect.is_finite() && max_aspect >= 1.0) {
            return wrong(format!("max_aspect is {max_aspect}: it must be 1 or more"));
        }
        let area = u64::from(side) * u64::from(side);
        let mut sizes = Vec::new();
        for width in (step..).step_by(step as usize) {
            let height = (area / u64::from(width)) as u32 / step * step;
            if height == 0 {
                break;
            }
            sizes.extend([(width, height), (height, width)]);
        }
        sizes.retain(|&size| aspect(size).exp().max((-aspect(size)).exp()) <= max_aspect);
        sizes.sort_by(|&a, &b| aspect(a).total_cmp(&aspect(b)).then(a.cmp(&b)));
        sizes.dedup();
        match sizes.is_empty() {
            true => wrong(format!("no size with a step of {step} has an aspect of {max_aspect} or less")),
            false => Ok(Self { sizes, max_aspect }),
        }
    }

    /// The bucket of an image of `size`, by its number: the nearest by aspect.
    pub(super) fn nearest(&self, size: Size) -> usize {
        let off = |index: &usize| (aspect(self.sizes[*index]) - aspect(size)).abs();
        (0..self.sizes.len()).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or_default()
    }

    /// The size that an image of `size` is brought to.
    ///
    /// # Errors
    /// Its aspect is beyond the limit.
    pub(super) fn of(&self, size: Size) -> mm_data::Result<Size> {
        let aspect = aspect(size).abs().exp();
        if aspect > self.max_aspect {
            let (width, height) = size;
            let problem = format!(
                "an image of {width} x {height} pixels has the aspect {aspect:.2}, beyond \
                 input.buckets.max_aspect = {}: crop it, or raise the limit",
                self.max_aspect
            );
            return Err(mm_data::Error::bad(Fault::Other, problem));
        }
        Ok(self.sizes[self.nearest(size)])
    }

    /// The largest side.
    pub(super) fn largest(&self) -> u32 {
        self.sizes.iter().map(|&(width, height)| width.max(height)).max().unwrap_or_default()
    }

    /// Divides the samples of `dataset`, with the headers of its images, among the buckets for batches of
    /// `batch_size`, and leaves out buckets with less than a batch: their images go to the nearest others.
    /// The second result is the bucket of each sample.
    ///
    /// # Errors
    /// The data set is a stream, or another process is lost.
    pub(super) fn divide(
        self,
        dataset: &dyn Dataset,
        batch_size: usize,
        group: &ProcessGroup,
        progress: &dyn Progress,
    ) -> Result<(Self, BatchGroups)> {
        if dataset.stream().is_some() {
            let problem = "is a stream, whose images have no number: input.buckets needs plain local tars";
            return Err(Error::Model(format!("{} {problem}", dataset.name())));
        }
        let sizes = image_sizes(dataset, group, progress)?;
        let mut kept = self;
        let mut counts = kept.counts(&sizes);
        while let Some(least) = (0..counts.len()).min_by_key(|&index| counts[index])
            && counts[least] < batch_size
            && counts.len() > 1
        {
            kept.sizes.remove(least);
            counts = kept.counts(&sizes);
        }
        // What cannot be read is drawn like the rest, and counted as a bad sample.
        let most = (0..counts.len()).max_by_key(|&index| counts[index]).unwrap_or_default();
        let of = |size: &Option<Size>| size.map_or(most, |size| kept.nearest(size)) as u16;
        let groups = sizes.iter().map(of).collect();
        if group.is_main() {
            let bucket = |((width, height), count): (&Size, &usize)| format!("{width} x {height}: {count}");
            let buckets: Vec<String> = kept.sizes.iter().zip(&counts).map(bucket).collect();
            tracing::info!("images by bucket (width x height): {}", buckets.join(", "));
        }
        Ok((kept, groups))
    }

    fn counts(&self, sizes: &[Option<Size>]) -> Vec<usize> {
        let mut counts = vec![0; self.sizes.len()];
        sizes.iter().flatten().for_each(|&size| counts[self.nearest(size)] += 1);
        counts
    }
}

/// The logarithm of width / height.
fn aspect((width, height): Size) -> f64 {
    (f64::from(width) / f64::from(height.max(1))).ln()
}

/// The size of the image to learn of each sample; `None` where its header cannot be read. The processes share
/// the work.
fn image_sizes(
    dataset: &dyn Dataset,
    group: &ProcessGroup,
    progress: &dyn Progress,
) -> Result<Vec<Option<Size>>> {
    let (rank, world, len) = (group.rank(), group.world(), dataset.len());
    let share = len.div_ceil(world);
    let (start, end) = ((share * rank).min(len), (share * (rank + 1)).min(len));
    let mut own: Vec<Option<Size>> = Vec::with_capacity(end - start);
    for first in (start..end).step_by(CHUNK) {
        let chunk = (first..end.min(first + CHUNK)).into_par_iter();
        own.par_extend(chunk.map(|index| dataset.sample(index).ok()?.images.last()?.dimensions().ok()));
        progress.report("image sizes read", own.len() as u64, (end - start) as u64);
    }
    Ok(gather(group, &own)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(side: u32, unit: u32, step: u32, max_aspect: f64) -> Buckets {
        Buckets::new(&BucketsConfig { step, max_aspect }, side, unit).unwrap()
    }

    #[test]
    fn buckets_have_the_area_of_the_model_and_its_unit() {
        let sizes = buckets(512, 8, 0, 2.0).sizes;
        let expected = [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)];
        for size in expected {
            assert!(sizes.contains(&size), "{size:?} is not among {sizes:?}");
        }
        for &(width, height) in &sizes {
            assert!(width % 64 == 0 && height % 64 == 0 && width * height <= 512 * 512);
            assert!(sizes.contains(&(height, width)) && width.max(height) <= 2 * width.min(height));
        }
        assert_eq!(buckets(32, 8, 0, 1.0).sizes.iter().filter(|size| **size == (32, 32)).count(), 1);
    }

    #[test]
    fn an_image_takes_the_nearest_aspect_or_is_refused() {
        let buckets = buckets(512, 8, 64, 2.0);
        assert_eq!(buckets.of((1000, 1000)).unwrap(), (512, 512));
        assert_eq!(buckets.of((450, 560)).unwrap(), (448, 576));
        let error = buckets.of((100, 201)).unwrap_err().to_string();
        assert!(error.contains("100 x 201") && error.contains("2.01"), "{error}");
        assert!(Buckets::square(32).of((1, 99)).is_ok());
    }

    #[test]
    fn settings_that_fit_no_model_are_refused() {
        let message = |step, max_aspect| {
            Buckets::new(&BucketsConfig { step, max_aspect }, 64, 16).unwrap_err().to_string()
        };
        assert!(message(24, 2.0).contains("step is 24: the model needs a multiple of 16"));
        assert!(message(128, 2.0).contains("at most 64"));
        assert!(message(16, 0.5).contains("max_aspect is 0.5"));
    }
}
