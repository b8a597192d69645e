//! How many objects of each kind a judge expects in an image, beside those of the prompt.

use super::scene::scene_of;
use crate::reward::{DifferentiableReward, batch_size, check_count};
use crate::{Result, Reward};
use mm_core::DeviceConfig;
use mm_data::shapes::{Colour, Scene, Shape};
use mm_diffusion::SceneReader;
use mm_image::RgbImage;
use tch::{Device, Kind, Tensor};

/// Minus the squared difference between the numbers of objects of each color and shape that a judge expects
/// in an image and those of the prompt, divided by the number of objects in the prompt: 0 where all is there
/// and nothing else, -1 for an empty image. Where objects are does not count.
///
/// The judge's probabilities give the expected numbers, so that unlike [`crate::SceneReward`] it has a
/// gradient.
#[derive(Debug)]
pub struct SceneCounts {
    reader: SceneReader,
}

impl SceneCounts {
    /// The reward of the judge `reader`, whose layers are not packed.
    pub fn new(reader: SceneReader) -> Self {
        Self { reader }
    }

    /// The reward of the judge in the folder `model`.
    ///
    /// # Errors
    /// As [`SceneReader::open_with_gradient`].
    pub fn open(model: &str, device: &DeviceConfig) -> Result<Self> {
        let options = mm_core::OpenOptions { device: device.clone(), ..Default::default() };
        Ok(Self::new(SceneReader::open_with_gradient(model, &options)?))
    }

    /// The scores `[N]` of the judge's expected numbers `[N, colors, shapes]`.
    fn scores(counts: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        let scenes: Vec<Scene> = prompts.iter().map(|prompt| scene_of(prompt)).collect::<Result<_>>()?;
        let wanted: Vec<f32> = scenes.iter().flat_map(wanted).collect();
        let objects: Vec<f32> = scenes.iter().map(|scene| scene.objects().len() as f32).collect();
        let wanted = Tensor::from_slice(&wanted).view_as(counts).to_device(counts.device());
        let objects = Tensor::from_slice(&objects).to_device(counts.device());
        Ok(-(counts - wanted).square().sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Float) / objects)
    }
}

/// The number of objects of each color and shape in `scene`, in rows of colors.
fn wanted(scene: &Scene) -> Vec<f32> {
    let of = |colour: Colour, shape: Shape| {
        let objects = scene.objects().iter();
        objects.filter(|object| (object.colour, object.shape) == (colour, shape)).count() as f32
    };
    Colour::ALL.into_iter().flat_map(|colour| Shape::ALL.map(|shape| of(colour, shape))).collect()
}

impl Reward for SceneCounts {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let counts = tch::no_grad(|| self.reader.expected_counts(&self.reader.pixel_values(images)));
        Ok(Vec::try_from(Self::scores(&counts, prompts)?.to_device(Device::Cpu))?)
    }

    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        Some(self)
    }
}

impl DifferentiableReward for SceneCounts {
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        check_count(batch_size(pixels), prompts)?;
        Self::scores(&self.reader.expected_counts(&(pixels * 2.0 - 1.0)), prompts)
    }
}
