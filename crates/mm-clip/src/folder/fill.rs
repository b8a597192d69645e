//! From the tensors of a folder to the variables of a model.

use super::{Architecture, CheckpointFormat, ModelFolder};
use crate::Result;
use crate::checkpoint::{OPEN_CLIP, open_clip_layout};
use mm_core::checkpoint::{TensorLayout, variable_shapes};
use mm_core::hf::{CONFIG_FILE, OPEN_CLIP_CONFIG_FILE};
use mm_vision::{ImageTowerConfig, resize_positions};
use std::path::PathBuf;
use tch::Tensor;
use tch::nn::{Path, VarStore};

impl ModelFolder {
    /// Makes a model on `vs` and fills it. Its parameters are those of one tower or both, named as in
    /// [`Clip`](crate::Clip); tensors of a tower that it does not have are ignored. Where the image tower is
    /// `resized`, to another resolution than the folder's, its position embeddings are interpolated. `make`
    /// runs more than once: a config that does not fit the weights is refused before it takes memory.
    ///
    /// # Errors
    /// As `make` and [`ModelFolder::fill`].
    pub fn build<T>(
        mut self,
        vs: &VarStore,
        resized: Option<&ImageTowerConfig>,
        make: impl Fn(&Path) -> Result<T>,
    ) -> Result<T> {
        self.check_shapes(resized, &make)?;
        self.weights.build(vs, &self.layout(), make)
    }

    /// Checks that the tensors are those of the model that `make` makes, without its memory.
    ///
    /// # Errors
    /// As [`ModelFolder::build`].
    pub(crate) fn check_shapes<T>(
        &mut self,
        resized: Option<&ImageTowerConfig>,
        make: impl Fn(&Path) -> Result<T>,
    ) -> Result<()> {
        let variables = variable_shapes(make).map_err(|error| error.at(&self.config_file()))?;
        self.check(variables, resized)
    }

    /// Copies the weights to the variables of `vs`, as [`ModelFolder::build`] does.
    ///
    /// # Errors
    /// Tensors and variables do not match.
    pub fn fill(self, vs: &VarStore, resized: Option<&ImageTowerConfig>) -> Result<()> {
        self.fill_variables(vs.variables().into_iter().collect(), resized)
    }

    /// As [`ModelFolder::fill`], for some of the variables of a model.
    ///
    /// # Errors
    /// As [`ModelFolder::fill`].
    pub fn fill_variables(
        mut self,
        variables: Vec<(String, Tensor)>,
        resized: Option<&ImageTowerConfig>,
    ) -> Result<()> {
        self.select(&variables, resized)?;
        Ok(self.weights.fill(variables, &self.layout())?)
    }

    /// Drops the projections to the shared space, which is not that of a model that takes a tower alone.
    pub(crate) fn drop_projections(&mut self) {
        let projections =
            ["visual_projection.", "visual.proj", "visual.head.proj.", "text_projection", "text.proj."];
        self.weights.retain(|name| !projections.iter().any(|projection| name.starts_with(projection)));
    }

    /// Checks that [`ModelFolder::fill_variables`] will succeed for `variables`, which need no memory for it.
    ///
    /// # Errors
    /// As [`ModelFolder::fill`].
    pub(crate) fn check(
        &mut self,
        variables: Vec<(String, Tensor)>,
        resized: Option<&ImageTowerConfig>,
    ) -> Result<()> {
        self.select(&variables, resized)?;
        Ok(self.weights.check(variables, &self.layout())?)
    }

    /// Drops the tensors of towers that `variables` do not have, and interpolates the position embeddings of
    /// the image tower where it is `resized`.
    fn select(&mut self, variables: &[(String, Tensor)], resized: Option<&ImageTowerConfig>) -> Result<()> {
        let has = |side: Side| variables.iter().any(|(name, _)| side_of(name) == side);
        let (image, text, head) = (has(Side::Image), has(Side::Text), has(Side::Head));
        self.weights.retain(|name| match side_of(name) {
            Side::Image => image,
            Side::Text => text,
            Side::Head => head,
        });
        let Some((tower, table)) = resized.and_then(|tower| Some((tower, tower.position_table()?))) else {
            return Ok(());
        };
        let name = format!("{}.{}", tower.root(), table.name);
        let stored = (self.layout().names)(&name).swap_remove(0);
        let variable = variables.iter().find(|(other, _)| *other == name);
        let (Some((_, variable)), Some(shape)) = (variable, self.weights.shape(&stored)) else {
            return Ok(());
        };
        if shape.iter().map(|&n| n as i64).ne(variable.size()) {
            let positions = self.weights.tensor(&stored)?;
            self.weights.replace(&stored, resize_positions(&positions, table.extra_tokens, table.grid)?);
        }
        Ok(())
    }

    /// The names and the layout of the folder's tensors.
    pub fn layout(&self) -> TensorLayout {
        match self.format {
            CheckpointFormat::Hf | CheckpointFormat::Own => TensorLayout::HF,
            CheckpointFormat::OpenClip | CheckpointFormat::Openai => match &self.architecture {
                Architecture::Clip(config) => open_clip_layout(config),
                Architecture::Image { .. } | Architecture::Text { .. } => OPEN_CLIP,
            },
            CheckpointFormat::Checkpoint => TensorLayout::AS_IS,
        }
    }

    /// The file that gives the sizes of the model.
    fn config_file(&self) -> PathBuf {
        match self.format {
            CheckpointFormat::Hf | CheckpointFormat::Own | CheckpointFormat::Checkpoint => {
                self.folder.file(CONFIG_FILE)
            }
            CheckpointFormat::OpenClip => self.folder.file(OPEN_CLIP_CONFIG_FILE),
            CheckpointFormat::Openai => self.weights.path().to_owned(),
        }
    }
}

/// The part of a CLIP that a parameter belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Image,
    Text,
    Head,
}

/// The side of a parameter, by its name in any format.
fn side_of(name: &str) -> Side {
    match name {
        _ if name.starts_with("vision_model.") || name.starts_with("visual") => Side::Image,
        _ if name.starts_with("logit_") => Side::Head,
        _ => Side::Text,
    }
}
