//! The network that finds the objects of a picture.

use crate::Result;
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::HfFolder;
use mm_core::nn::{Conv2d, Conv2dConfig};
use mm_core::{OpenOptions, Precision, hub};
use mm_data::shapes::{Colour, Object, SIDE, Shape};
use mm_image::RgbImage;
use mm_image::resize::{Filter, exact};
use mm_vision::{ResNet, ResNetConfig};
use serde::{Deserialize, Serialize};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

/// The sizes of a [`SceneReader`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneReaderConfig {
    /// The network; its features are the grid of cells, each of which finds the object whose center it has.
    pub image: ResNetConfig,
}

/// An object that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeenObject {
    /// Its outline.
    pub shape: Shape,
    /// Its color.
    pub colour: Colour,
    /// Its center from the left, in thousandths of the picture's side.
    pub x: f64,
    /// Its center from the top.
    pub y: f64,
}

impl From<&Object> for SeenObject {
    /// The object as a judge without errors finds it.
    fn from(object: &Object) -> Self {
        let Object { shape, colour, x, y, .. } = *object;
        Self { shape, colour, x: f64::from(x), y: f64::from(y) }
    }
}

/// Finds the objects of pictures of the shapes data set, as a detector on a grid does (Redmon et al. 2016):
/// each cell gives whether an object's center is in it, the object's color and shape, and where in the cell
/// the center is.
#[derive(Debug)]
pub struct SceneReader {
    tower: ResNet,
    head: Conv2d,
    config: SceneReaderConfig,
    device: Device,
}

/// The parts of the output's channels: presence, colors, shapes, and the two coordinates within a cell.
pub(super) const COLOURS: i64 = Colour::ALL.len() as i64;
pub(super) const SHAPES: i64 = Shape::ALL.len() as i64;
const CHANNELS: i64 = 1 + COLOURS + SHAPES + 2;

impl SceneReader {
    /// Creates the parameters below `path`.
    ///
    /// # Errors
    /// The config is not valid.
    pub fn new(path: &Path, config: &SceneReaderConfig) -> Result<Self> {
        let tower = ResNet::new(&(path / "tower"), config.image.clone())?;
        let head = Conv2dConfig::same(tower.output_width(), CHANNELS, 1);
        let head = Conv2d::new(&(path / "head"), head);
        Ok(Self { tower, head, config: config.clone(), device: path.device() })
    }

    /// Opens the folder or hub name `model` for inference.
    ///
    /// # Errors
    /// A file is missing or damaged, or does not fit.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let mut reader = Self::open_with_gradient(model, options)?;
        reader.tower.pack(Precision::F32);
        Ok(reader)
    }

    /// Opens the folder or hub name `model`, for gradients in pixels: slower than [`SceneReader::open`].
    ///
    /// # Errors
    /// A file is missing or damaged, or does not fit.
    pub fn open_with_gradient(model: &str, options: &OpenOptions) -> Result<Self> {
        let folder = HfFolder::at(hub::resolve(model)?);
        let config: SceneReaderConfig = folder.config()?;
        let weights = match folder.is_checkpoint() {
            true => folder.checkpoint_weights(true)?,
            false => Weights::open_folder(folder.path(), "model")?,
        };
        let mut vs = VarStore::new(options.resolve_device()?);
        let reader = weights.build(&vs, &TensorLayout::AS_IS, |path| Self::new(path, &config))?;
        vs.freeze();
        Ok(reader)
    }

    /// The config.
    pub fn config(&self) -> &SceneReaderConfig {
        &self.config
    }

    /// Cells along a side.
    pub fn cells(&self) -> i64 {
        self.config.image.image_size / self.config.image.stride()
    }

    /// Maps `pixel_values` `[B, 3, S, S]` in -1 to 1 to `[B, cells, cells, 17]`: the logit of an object's
    /// presence, logits of 8 colors and 6 shapes, and the center within the cell, from 0 to 1.
    pub(super) fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.head.forward(&self.tower.forward_features(pixel_values, train)).permute([0, 2, 3, 1])
    }

    /// Pictures of any size as `[B, 3, S, S]` in -1 to 1.
    pub fn pixel_values(&self, pictures: &[RgbImage]) -> Tensor {
        let side = self.config.image.image_size;
        let mut bytes = Vec::with_capacity(pictures.len() * 3 * (side * side) as usize);
        for picture in pictures {
            match picture.dimensions() == (side as u32, side as u32) {
                true => bytes.extend_from_slice(picture.as_raw()),
                false => bytes.extend_from_slice(&exact(picture, side as u32, side as u32, Filter::Bilinear)),
            }
        }
        let levels = Tensor::from_slice(&bytes).view([-1, side, side, 3]).permute([0, 3, 1, 2]);
        levels.to_kind(Kind::Float).to_device(self.device) / 127.5 - 1.0
    }

    /// The objects of each picture.
    ///
    /// # Errors
    /// libtorch refuses the output.
    pub fn read(&self, pictures: &[RgbImage]) -> Result<Vec<Vec<SeenObject>>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let output = tch::no_grad(|| self.forward(&self.pixel_values(pictures), false));
        self.objects(&output)
    }

    /// The expected number of objects of each color and shape, `[B, 8, 6]`, in `pixel_values` `[B, 3, H, W]`
    /// in -1 to 1, with gradients where the reader has any: the sum of the cells' probabilities.
    pub fn expected_counts(&self, pixel_values: &Tensor) -> Tensor {
        let side = self.config.image.image_size;
        let sized = match pixel_values.size()[2..] == [side, side] {
            true => pixel_values.shallow_clone(),
            false => pixel_values.internal_upsample_bilinear2d_aa([side, side], false, None, None),
        };
        let output = self.forward(&sized, false).to_kind(Kind::Float);
        let parts = output.split_with_sizes([1, COLOURS, SHAPES, 2], -1);
        let colours = parts[0].sigmoid() * parts[1].softmax(-1, Kind::Float); // [B, cells, cells, 8]
        let shapes = parts[2].softmax(-1, Kind::Float);
        let (colours, shapes) = (colours.flatten(1, 2), shapes.flatten(1, 2)); // [B, cells^2, ...]
        colours.transpose(1, 2).matmul(&shapes)
    }

    /// The objects in `output` of [`SceneReader::forward`].
    pub(super) fn objects(&self, output: &Tensor) -> Result<Vec<Vec<SeenObject>>> {
        let (batch, cells) = (output.size()[0] as usize, self.cells() as usize);
        let parts = output.to_device(Device::Cpu).split_with_sizes([1, COLOURS, SHAPES, 2], -1);
        let floats = |x: &Tensor| Vec::<f32>::try_from(x.to_kind(Kind::Float).contiguous().view([-1]));
        let best = |x: &Tensor| Vec::<i64>::try_from(x.argmax(-1, false).contiguous().view([-1]));
        let presence = floats(&parts[0])?;
        let (colours, shapes, places) = (best(&parts[1])?, best(&parts[2])?, floats(&parts[3])?);
        let unit = f64::from(SIDE) / cells as f64;
        let at = |cell: usize, place: f32| (cell as f64 + f64::from(place)) * unit;
        let of_image = |image: usize| {
            let candidates = (0..cells * cells).filter_map(|cell| {
                let index = image * cells * cells + cell;
                let object = SeenObject {
                    shape: Shape::ALL[shapes[index] as usize],
                    colour: Colour::ALL[colours[index] as usize],
                    x: at(cell % cells, places[2 * index]),
                    y: at(cell / cells, places[2 * index + 1]),
                };
                let probability = 1.0 / (1.0 + (-f64::from(presence[index])).exp());
                (probability > LEAST).then_some((probability, object))
            });
            joined(candidates.collect())
        };
        Ok((0..batch).map(of_image).collect())
    }
}

/// The probability from which a cell is looked at.
const LEAST: f64 = 0.05;

/// The distance along both axes, in thousandths of the side, within which two cells have found one object:
/// less than the least distance of two objects.
const SAME: f64 = 190.0;

/// The objects that are more likely there than not. A center between two cells is found by both, each with a
/// part of the probability.
fn joined(mut candidates: Vec<(f64, SeenObject)>) -> Vec<SeenObject> {
    candidates.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut found: Vec<(f64, SeenObject)> = Vec::new();
    for (probability, object) in candidates {
        let is_same = |seen: &SeenObject| (seen.x - object.x).abs().max((seen.y - object.y).abs()) < SAME;
        match found.iter_mut().find(|(_, seen)| is_same(seen)) {
            Some((sum, _)) => *sum += probability,
            None => found.push((probability, object)),
        }
    }
    found.into_iter().filter(|(sum, _)| *sum > 0.5).map(|(_, object)| object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_between_two_cells_is_one() {
        let object = |x: f64| SeenObject { shape: Shape::Star, colour: Colour::Red, x, y: 500.0 };
        let found = joined(vec![(0.4, object(250.0)), (0.45, object(255.0)), (0.9, object(600.0))]);
        assert_eq!(found, [object(600.0), object(255.0)]);
        assert!(joined(vec![(0.3, object(250.0)), (0.1, object(260.0))]).is_empty());
    }
}
