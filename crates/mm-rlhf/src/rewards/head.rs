//! The MLP that gives a score for a feature vector.

use crate::Result;
use mm_core::checkpoint::Weights;
use mm_core::nn::Linear;
use tch::Tensor;
use tch::nn::Path;

/// The places of the linear layers in a sequence of layers without activations, as LAION's aesthetic
/// predictor v2 and ImageReward have it (768-1024-128-64-16-1); those between are dropouts.
const LINEAR: &[usize] = &[0, 2, 4, 6, 7];

/// The same of one hidden layer with a ReLU (768-256-1).
const RELU: &[usize] = &[0, 2];

/// The sizes of a [`ScoreHead`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadSizes {
    places: &'static [usize],
    /// The width of the features, then of each layer's output.
    widths: Vec<i64>,
}

impl HeadSizes {
    /// The sizes of a new head for features of `width`: with four `hidden` widths LAION's form without
    /// activations, with one that with a ReLU.
    ///
    /// # Panics
    /// `hidden` has another length.
    pub fn new(width: i64, hidden: &[i64]) -> Self {
        let places = if hidden.len() + 1 == LINEAR.len() { LINEAR } else { RELU };
        assert_eq!(hidden.len() + 1, places.len(), "a head has one hidden layer or four");
        Self { places, widths: [&[width], hidden, &[1]].concat() }
    }

    /// The N of its tensors `layers.N`, in order.
    pub fn places(&self) -> &'static [usize] {
        self.places
    }

    /// The sizes of the head whose tensors begin with `prefix` in `weights`, for features of `width`. The
    /// hidden widths are the file's; a layer that is missing or does not fit is an error when the head is
    /// built.
    pub fn of(weights: &Weights, prefix: &str, width: i64) -> Self {
        let rows = |place: usize| {
            weights.shape(&format!("{prefix}layers.{place}.weight")).and_then(|shape| shape.first().copied())
        };
        let places = if rows(LINEAR[LINEAR.len() - 1]).is_some() { LINEAR } else { RELU };
        let hidden = &places[..places.len() - 1];
        let outputs = hidden.iter().map(|&place| rows(place).map_or(1, |rows| rows as i64)).chain([1]);
        Self { places, widths: [width].into_iter().chain(outputs).collect() }
    }
}

/// An MLP from a feature vector to a score: linear layers `layers.N`, with a ReLU between if there are two
/// and nothing if there are five.
#[derive(Debug)]
pub struct ScoreHead {
    layers: Vec<Linear>,
    has_relu: bool,
}

impl ScoreHead {
    /// Creates the parameters below `path`.
    pub(crate) fn new(path: &Path, sizes: &HeadSizes) -> Self {
        let layers = sizes.places.iter().zip(sizes.widths.windows(2));
        let layer = |(place, widths): (&usize, &[i64])| {
            let std = (widths[0] as f64 + 1.0).recip(); // ImageReward's, whose features have unit variance
            Linear::new(&(path / "layers" / *place), widths[0], widths[1], std)
        };
        Self { layers: layers.map(layer).collect(), has_relu: sizes.places == RELU }
    }

    /// Maps `features` `[N, D]`, f32, to scores `[N]`.
    ///
    /// # Errors
    /// The features have another width.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let mut x = features.shallow_clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 && self.has_relu {
                x = x.relu();
            }
            x = layer.forward(&x);
        }
        Ok(x.f_squeeze_dim(-1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::checkpoint::write;
    use tch::{Device, Kind};

    fn sizes(shapes: &[(&str, [i64; 2])]) -> HeadSizes {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("head.safetensors");
        let zeros = |shape: &[i64; 2]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let tensors: Vec<_> = shapes.iter().map(|(name, shape)| ((*name).to_owned(), zeros(shape))).collect();
        write(&file, &tensors).unwrap();
        HeadSizes::of(&Weights::open(&file).unwrap(), "", 6)
    }

    #[test]
    fn the_form_and_the_hidden_widths_are_those_of_the_file() {
        let relu = sizes(&[("layers.0.weight", [4, 6]), ("layers.2.weight", [1, 4])]);
        assert_eq!(relu, HeadSizes { places: RELU, widths: vec![6, 4, 1] });
        let rows =
            [(0, 9), (2, 8), (4, 7), (6, 3), (7, 1)].map(|(n, rows)| (format!("layers.{n}.weight"), rows));
        let shapes: Vec<(&str, [i64; 2])> =
            rows.iter().map(|(name, rows)| (name.as_str(), [*rows, 2])).collect();
        assert_eq!(sizes(&shapes), HeadSizes { places: LINEAR, widths: vec![6, 9, 8, 7, 3, 1] });
    }
}
