//! Features with labels.

use crate::{Error, Result};
use mm_core::seed;
use tch::{Device, Kind, Tensor};

/// Features of images with their classes.
#[derive(Debug)]
pub struct LabelledFeatures {
    /// `[N, D]` f64.
    features: Tensor,
    /// The class of each row, and the same as `[N, 1]` i64 beside the features.
    classes: Vec<usize>,
    labels: Tensor,
    class_count: usize,
}

impl LabelledFeatures {
    /// Rows of `features` `[N, D]`, on any device and of any type, with their `classes` below `class_count`.
    ///
    /// # Errors
    /// There are fewer than two classes or no row, the numbers of classes and rows differ, a class is out of
    /// range, or a feature is not finite.
    pub fn new(features: &Tensor, classes: &[usize], class_count: usize) -> Result<Self> {
        let fail = |problem: String| Err(Error::Evaluation(problem));
        let size = features.size();
        if size.len() != 2 || size[0] as usize != classes.len() || features.numel() == 0 {
            return fail(format!(
                "features of shape {size:?} with {} classes: they should be [N, D] with N",
                classes.len()
            ));
        }
        if class_count < 2 {
            return fail(format!("a linear probe needs at least two classes; there is {class_count}"));
        }
        if let Some(class) = classes.iter().find(|&&class| class >= class_count) {
            return fail(format!("class {class} among {class_count} classes, which are counted from 0"));
        }
        let features = features.detach().f_to_kind(Kind::Double)?;
        let is_finite = features.f_isfinite()?.f_all_dim(1, false)?.f_to_device(Device::Cpu)?;
        if let Some(row) = Vec::<bool>::try_from(is_finite)?.iter().position(|finite| !finite) {
            return fail(format!("row {row} of the features is not finite"));
        }
        Self::of(features, classes.to_vec(), class_count)
    }

    fn of(features: Tensor, classes: Vec<usize>, class_count: usize) -> Result<Self> {
        let labels: Vec<i64> = classes.iter().map(|&class| class as i64).collect();
        let labels = Tensor::from_slice(&labels).view([-1, 1]).f_to_device(features.device())?;
        Ok(Self { features, classes, labels, class_count })
    }

    /// N.
    pub fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// Always false: there is at least one row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// K, the number of classes.
    pub fn class_count(&self) -> usize {
        self.class_count
    }

    /// The number of rows of each class.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.class_count];
        self.classes.iter().for_each(|&class| counts[class] += 1);
        counts
    }

    /// Splits off a tenth of each class for validation, at least one sample of a class with two: training and
    /// validation set. The same `seed` selects the same rows.
    ///
    /// # Errors
    /// No class has two samples.
    pub fn split(&self, seed: u64) -> Result<(Self, Self)> {
        let mut by_class = vec![Vec::new(); self.class_count];
        for (row, &class) in self.classes.iter().enumerate() {
            by_class[class].push(row);
        }
        let (mut kept, mut apart) = (Vec::new(), Vec::new());
        for mut rows in by_class {
            rows.sort_by_key(|&row| seed::derive(seed, "probe validation", row as u64));
            let count = (rows.len() / 10).max(1).min(rows.len().saturating_sub(1));
            kept.extend(rows.split_off(count));
            apart.extend(rows);
        }
        if apart.is_empty() {
            let classes = self.class_count;
            let problem = format!(
                "each of {classes} classes has one sample: none is left for validation to choose C; give C"
            );
            return Err(Error::Evaluation(problem));
        }
        Ok((self.rows(kept)?, self.rows(apart)?))
    }

    /// These rows followed by those of `other`.
    pub(super) fn with(&self, other: &Self) -> Result<Self> {
        let features = Tensor::f_cat(&[&self.features, &other.features], 0)?;
        Self::of(features, [&self.classes[..], &other.classes].concat(), self.class_count)
    }

    /// The rows with the given indices.
    fn rows(&self, mut rows: Vec<usize>) -> Result<Self> {
        rows.sort_unstable();
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let features =
            self.features.f_index_select(0, &Tensor::from_slice(&index).f_to_device(self.device())?)?;
        Self::of(features, rows.iter().map(|&row| self.classes[row]).collect(), self.class_count)
    }

    /// `[N, D]` f64.
    pub(super) fn features(&self) -> &Tensor {
        &self.features
    }

    /// `[N, 1]` i64.
    pub(super) fn labels(&self) -> &Tensor {
        &self.labels
    }

    /// D.
    pub(super) fn width(&self) -> i64 {
        self.features.size()[1]
    }

    pub(super) fn device(&self) -> Device {
        self.features.device()
    }

    /// The class of each row.
    pub(super) fn classes(&self) -> &[usize] {
        &self.classes
    }
}
