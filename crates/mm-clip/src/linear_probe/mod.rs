//! Linear probes: a linear classifier on the frozen features of images.

mod confusion;
mod data;
mod sweep;

pub use confusion::Confusion;
pub use data::LabelledFeatures;
pub use sweep::{CSweep, TriedC, sweep_c};

use crate::{Error, Result};
use mm_core::checkpoint::write_with_metadata;
use mm_core::optim::{LbfgsConfig, Minimum, lbfgs};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The stopping criteria of a [`LinearProbe`]'s training.
#[derive(Clone, Copy, Debug)]
pub struct ProbeConfig {
    /// The most iterations of L-BFGS; 1000 in Radford et al.
    pub max_iterations: usize,
    /// Training has converged when no element of the gradient of the mean loss is larger: `tol` of
    /// scikit-learn.
    pub tolerance: f64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { max_iterations: 1000, tolerance: 1e-6 }
    }
}

/// Multinomial logistic regression on frozen features, the evaluation of image towers in Radford et al. 2021
/// (section 3.2, appendix A.3).
///
/// It is scikit-learn's `LogisticRegression`: minimizes `0.5 * |W|^2 + C * sum of cross entropies` by L-BFGS
/// in f64, without a penalty on the bias. As there, two classes share one vector of weights, here as halves
/// of opposite sign.
///
/// ```
/// use mm_clip::{LabelledFeatures, LinearProbe, ProbeConfig};
/// use tch::Tensor;
///
/// let features = Tensor::from_slice(&[0.0f32, 0.1, 0.9, 1.0]).view([4, 1]);
/// let data = LabelledFeatures::new(&features, &[0, 0, 1, 1], 2)?;
/// let probe = LinearProbe::fit(&data, 10.0, &ProbeConfig::default())?;
/// assert_eq!(probe.predict(&Tensor::from_slice(&[-1.0f32, 2.0]).view([2, 1]))?, [0, 1]);
/// assert_eq!(probe.evaluate(&data)?.accuracy(), 1.0);
/// # Ok::<(), mm_clip::Error>(())
/// ```
#[derive(Debug)]
pub struct LinearProbe {
    /// `[K, D + 1]` f64: weights and bias of each class.
    parameters: Tensor,
    /// The value of the objective.
    pub objective: f64,
    /// Iterations of L-BFGS.
    pub iterations: usize,
    /// Whether the tolerance was reached.
    pub converged: bool,
}

impl LinearProbe {
    /// Trains on `data` with inverse penalty `c`.
    ///
    /// # Errors
    /// `c` is not a positive number, or a class has no sample, which leaves its bias unbounded.
    pub fn fit(data: &LabelledFeatures, c: f64, config: &ProbeConfig) -> Result<Self> {
        Self::fit_from(None, data, c, config)
    }

    /// As [`LinearProbe::fit`], starting from the parameters of another probe; without one, from zero.
    fn fit_from(start: Option<&Self>, data: &LabelledFeatures, c: f64, config: &ProbeConfig) -> Result<Self> {
        if !(c > 0.0 && c.is_finite()) {
            return Err(Error::Evaluation(format!("C is {c}; it must be a positive number")));
        }
        if let Some(class) = data.counts().iter().position(|&count| count == 0) {
            return Err(Error::Evaluation(format!("class {class} has no sample to train a linear probe on")));
        }
        let objective = Objective::new(data, c);
        let zero =
            || Tensor::zeros([data.class_count() as i64, data.width() + 1], (Kind::Double, data.device()));
        let start = start.map_or_else(zero, |probe| probe.parameters.shallow_clone());
        let config = LbfgsConfig {
            max_iterations: config.max_iterations,
            gradient_tolerance: config.tolerance,
            ..LbfgsConfig::default()
        };
        let found = tch::no_grad(|| lbfgs(&start, &config, |parameters| objective.at(parameters)))?;
        let Minimum { point, value, iterations, converged, .. } = found;
        Ok(Self { parameters: point, objective: value * c * data.len() as f64, iterations, converged })
    }

    /// `[K, D]` f64: the weights of each class.
    pub fn weights(&self) -> Tensor {
        self.parameters.narrow(1, 0, self.width())
    }

    /// `[K]` f64: the bias of each class.
    pub fn bias(&self) -> Tensor {
        self.parameters.select(1, self.width())
    }

    /// The class of each row of `features` `[N, D]`.
    ///
    /// # Errors
    /// The features have another width than in training.
    pub fn predict(&self, features: &Tensor) -> Result<Vec<usize>> {
        if features.dim() != 2 || features.size()[1] != self.width() {
            let (size, width) = (features.size(), self.width());
            return Err(Error::Evaluation(format!(
                "features of shape {size:?} for a linear probe of [N, {width}]"
            )));
        }
        let features = features.f_to_device(self.parameters.device())?.f_to_kind(Kind::Double)?;
        let best = logits(&features, &self.parameters)?.f_argmax(1, false)?;
        Ok(Vec::<i64>::try_from(best.f_to_device(Device::Cpu)?)?
            .into_iter()
            .map(|class| class as usize)
            .collect())
    }

    /// Compares the predictions for `data` with its classes.
    ///
    /// # Errors
    /// The data have other classes or another width than in training.
    pub fn evaluate(&self, data: &LabelledFeatures) -> Result<Confusion> {
        let classes = self.parameters.size()[0] as usize;
        if data.class_count() != classes {
            let given = data.class_count();
            return Err(Error::Evaluation(format!(
                "data of {given} classes for a linear probe of {classes}"
            )));
        }
        Ok(Confusion::new(data.classes(), &self.predict(data.features())?, classes))
    }

    /// Writes the safetensors `file`: `weight` `[K, D]` and `bias` `[K]` in f32, and in its metadata
    /// `classes`, a JSON list of the names of the K classes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path, classes: &[&str]) -> Result<()> {
        let tensors = [("weight", self.weights()), ("bias", self.bias())];
        let tensors =
            tensors.map(|(name, tensor)| (name.to_owned(), tensor.to_kind(Kind::Float).contiguous()));
        Ok(write_with_metadata(file, &tensors, ("classes", serde_json::json!(classes).to_string()))?)
    }

    /// D, the width of the features.
    fn width(&self) -> i64 {
        self.parameters.size()[1] - 1
    }
}

/// `[N, K]` for `features` `[N, D]` and `parameters` `[K, D + 1]`.
fn logits(features: &Tensor, parameters: &Tensor) -> std::result::Result<Tensor, tch::TchError> {
    let width = parameters.size()[1] - 1;
    let weights = parameters.narrow(1, 0, width);
    parameters.select(1, width).f_addmm(features, &weights.f_transpose(0, 1)?)
}

/// The minimized function: the objective of [`LinearProbe`] over `C * N`, so that the scale of the gradient
/// is that of one sample for every C.
struct Objective<'a> {
    data: &'a LabelledFeatures,
    /// The factor of `0.5 * |W|^2`.
    penalty: f64,
}

impl<'a> Objective<'a> {
    fn new(data: &'a LabelledFeatures, c: f64) -> Self {
        // |W|^2 of the two halves is half of that of the one vector that they represent.
        let vectors = if data.class_count() == 2 { 2.0 } else { 1.0 };
        Self { data, penalty: vectors / (c * data.len() as f64) }
    }

    /// Value and gradient at `parameters` `[K, D + 1]`.
    fn at(&self, parameters: &Tensor) -> mm_core::Result<(f64, Tensor)> {
        let (features, labels) = (self.data.features(), self.data.labels());
        let count = self.data.len() as f64;
        let weights = parameters.narrow(1, 0, self.data.width());
        let log_probabilities = logits(features, parameters)?.f_log_softmax(1, Kind::Double)?; // [N, K]
        let cross_entropy = -log_probabilities.f_gather(1, labels, false)?.f_mean(Kind::Double)?;
        let square = weights.f_square()?.f_sum(Kind::Double)?;
        // Softmax minus the one-hot truth, [N, K].
        let errors = log_probabilities.f_exp()?.f_scatter_add(
            1,
            labels,
            &labels.ones_like().neg().to_kind(Kind::Double),
        )?;
        let errors = errors / count;
        let of_weights = errors.f_transpose(0, 1)?.f_matmul(features)? + weights * self.penalty;
        let of_bias = errors.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
        let gradient = Tensor::f_cat(&[of_weights, of_bias.unsqueeze(1)], 1)?;
        Ok(((cross_entropy + square * (0.5 * self.penalty)).double_value(&[]), gradient))
    }
}

#[cfg(test)]
mod tests;
