//! Mean and standard deviation.

/// The mean and the standard deviation of a population, as of numpy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub mean: f64,
    pub std: f64,
}

impl Moments {
    /// The moments of `values`. Equal ones have exactly their value and 0: the rounding of a mean, divided by
    /// a small epsilon, would pass for an advantage.
    pub fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len() as f64;
        let first = values.clone().next().unwrap_or(0.0);
        if values.clone().all(|value| value == first) {
            return Self { mean: first, std: 0.0 };
        }
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Self { mean, std: variance.sqrt() }
    }
}
