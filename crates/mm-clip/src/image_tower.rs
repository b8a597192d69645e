//! The image tower of any supported checkpoint, for models of other tasks that start from one.

use crate::timm::TimmTower;
use crate::{ModelFolder, Result};
use mm_vision::{ImageProcessor, ImageTowerConfig};
use tch::Tensor;
use tch::nn::VarStore;

/// A checkpoint with an image tower: a CLIP or a SigLIP, an image tower alone, or a model of timm.
#[derive(Debug)]
pub struct ImageTowerCheckpoint(Source);

#[derive(Debug)]
enum Source {
    Folder(Box<ModelFolder>),
    Timm(Box<TimmTower>),
}

impl ImageTowerCheckpoint {
    /// Opens the folder or hub name `model` and maps its weights.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not offered.
    pub fn open(model: &str) -> Result<Self> {
        Ok(Self(match TimmTower::open(model)? {
            Some(tower) => Source::Timm(Box::new(tower)),
            None => Source::Folder(Box::new(ModelFolder::open(model)?)),
        }))
    }

    /// The architecture of the tower.
    ///
    /// # Errors
    /// The checkpoint is a text tower.
    pub fn config(&self) -> Result<ImageTowerConfig> {
        Ok(match &self.0 {
            Source::Folder(folder) => folder.image()?.0,
            Source::Timm(tower) => tower.config.clone(),
        })
    }

    /// The preprocessing from images to the tower's `pixel_values`. For a model of timm, which is trained on
    /// crops, it resizes the whole image: captions and questions are about all of it.
    ///
    /// # Errors
    /// As [`ModelFolder::processor`].
    pub fn processor(&self) -> Result<ImageProcessor> {
        Ok(match &self.0 {
            Source::Folder(folder) => folder.processor()?,
            Source::Timm(tower) => tower.processor.clone(),
        })
    }

    /// Copies the weights to the variables of `vs` below the path `root`, where the tower was built from
    /// [`ImageTowerCheckpoint::config`]. A CLIP's projection to the shared space goes to
    /// `visual_projection` if `with_projection`, and is dropped otherwise.
    ///
    /// # Errors
    /// Tensors and variables do not match.
    pub fn fill(self, vs: &VarStore, root: &str, with_projection: bool) -> Result<()> {
        let root = format!("{root}.");
        let variables = vs.variables().into_iter();
        match self.0 {
            Source::Timm(tower) => {
                let below = |(name, variable): (String, Tensor)| {
                    Some((name.strip_prefix(&root)?.to_owned(), variable))
                };
                tower.fill(variables.filter_map(below).collect())
            }
            Source::Folder(mut folder) => {
                if !with_projection {
                    folder.drop_projections();
                }
                let stored_root = folder.image()?.0.root();
                let renamed = |(name, variable): (String, Tensor)| {
                    if let Some(rest) = name.strip_prefix(&root) {
                        return Some((format!("{stored_root}.{rest}"), variable));
                    }
                    (with_projection && name.starts_with("visual_projection.")).then_some((name, variable))
                };
                folder.fill_variables(variables.filter_map(renamed).collect(), None)
            }
        }
    }
}
