//! The perceptual part of the loss: how far apart an image and its reconstruction look to an image tower.

use super::config::PerceptualConfig;
use mm_clip::ImageEmbedder;
use mm_core::{DeviceConfig, OpenOptions, Precision};
use tch::{Device, Kind, Tensor};

/// The least length that a feature is divided by.
const EPS: f64 = 1e-10;

/// The distance of LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual
/// metric", equation 1) on the features of any image tower, with all channels of the same weight.
pub(super) struct PerceptualLoss {
    embedder: ImageEmbedder,
    pub weight: f64,
}

impl PerceptualLoss {
    /// Opens the tower, whose weights stay as they are.
    ///
    /// # Errors
    /// The folder is missing, damaged or has no image tower.
    pub fn open(config: &PerceptualConfig, device: Device) -> crate::Result<Self> {
        let options =
            OpenOptions { device: DeviceConfig::from(device), precision: Precision::F32, resolution: None };
        Ok(Self { embedder: ImageEmbedder::open(&config.model, &options)?, weight: config.weight })
    }

    /// The distance of each image, `[B]`, f32, of `found` from `image`, both `[B, 3, H, W]` in -1 to 1.
    ///
    /// # Errors
    /// As [`mm_vision::ImageProcessor::process_pixels`].
    pub fn distances(&self, found: &Tensor, image: &Tensor) -> crate::Result<Tensor> {
        let images = tch::no_grad(|| self.features(image))?;
        let distances: Vec<Tensor> = self.features(found)?.iter().zip(&images).map(distance).collect();
        Ok(Tensor::stack(&distances, 0).mean_dim([0i64].as_slice(), false, Kind::Float))
    }

    /// The output of each block of the tower, scaled to unit vectors, `[B, S, C]`.
    fn features(&self, image: &Tensor) -> crate::Result<Vec<Tensor>> {
        let pixel_values = self.embedder.processor.process_pixels(&((image + 1.0) * 0.5))?;
        Ok(self.embedder.encoder.forward_blocks(&pixel_values).iter().map(unit).collect())
    }
}

fn unit(features: &Tensor) -> Tensor {
    let features = features.to_kind(Kind::Float);
    let lengths = features.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    features / (lengths + EPS)
}

/// The mean over the positions of the squared distance of vectors, `[B]`.
fn distance((found, image): (&Tensor, &Tensor)) -> Tensor {
    let squared = (found - image).square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    squared.mean_dim([-1i64].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::uniform;
    use std::path::Path;

    fn loss(folder: &str) -> PerceptualLoss {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/clip");
        let model = goldens.join(folder).to_string_lossy().into_owned();
        PerceptualLoss::open(&PerceptualConfig { model, weight: 1.0 }, Device::Cpu).unwrap()
    }

    fn image(seed: u64) -> Tensor {
        uniform(seed, &[2, 3, 20, 20]) * 2.0 - 1.0
    }

    #[test]
    fn the_distance_is_that_of_unit_features_and_grows_with_the_error() {
        for folder in ["open-clip-vit", "open-clip-resnet"] {
            let loss = loss(folder);
            let (image, other) = (image(1), image(2));
            let distances = |found: &Tensor| loss.distances(found, &image).unwrap();
            assert_eq!(distances(&image).max().double_value(&[]), 0.0, "{folder}");
            let at = |share: f64| distances(&(&image * (1.0 - share) + &other * share));
            let (near, far) = (at(0.1), at(1.0));
            assert!(near.gt_tensor(&Tensor::from(0.0)).all().int64_value(&[]) == 1, "{folder}: {near}");
            assert!(far.gt_tensor(&near).all().int64_value(&[]) == 1, "{folder}: {near} {far}");

            let expected = tch::no_grad(|| {
                let blocks = |image: &Tensor| {
                    let pixel_values = loss.embedder.processor.process_pixels(&(image / 2.0 + 0.5)).unwrap();
                    loss.embedder.encoder.forward_blocks(&pixel_values)
                };
                let cosine = |(a, b): (Tensor, Tensor)| {
                    let cosines = Tensor::cosine_similarity(&a, &b, -1, 1e-10);
                    (cosines * -2.0 + 2.0).mean_dim([-1i64].as_slice(), false, Kind::Float)
                };
                let layers: Vec<Tensor> =
                    blocks(&other).into_iter().zip(blocks(&image)).map(cosine).collect();
                Tensor::stack(&layers, 0).mean_dim([0i64].as_slice(), false, Kind::Float)
            });
            let off = (&far - &expected).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{folder}: {far} {expected}");
        }
    }

    #[test]
    fn gradients_reach_the_reconstruction_and_equal_differences() {
        let loss = loss("open-clip-vit");
        let (image, found) = (image(1), image(3).set_requires_grad(true));
        let total = |found: &Tensor| loss.distances(found, &image).unwrap().sum(Kind::Double);
        total(&found).backward();
        let gradient = found.grad();
        let direction = &gradient / gradient.norm();
        let at = |step: f64| tch::no_grad(|| total(&(&found + &direction * step)).double_value(&[]));
        let (slope, expected) = ((at(1e-2) - at(-1e-2)) / 2e-2, gradient.norm().double_value(&[]));
        assert!((slope - expected).abs() < 0.02 * expected, "{slope} {expected}");
    }
}
