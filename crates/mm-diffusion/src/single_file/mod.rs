//! Checkpoints of Stable Diffusion in one file (CompVis, Stability AI), under the names of a diffusers
//! folder.
//!
//! Such a file holds the U-Net (`model.diffusion_model.`), the autoencoder (`first_stage_model.`) and the
//! text encoders (`cond_stage_model.`, or SDXL's `conditioner.embedders.`) under the names of the code that
//! trained it. The configs of the parts are derived from the shapes; what no shape shows (heads, activations,
//! the scale of the latents) is that of the published model of the family.
//!
//! ```no_run
//! use mm_diffusion::single_file::SingleFile;
//!
//! let file = SingleFile::open("v1-5-pruned-emaonly.safetensors".as_ref())?;
//! let (config, weights) = (file.unet_config()?, file.unet()?); // as of the folder `unet`
//! # Ok::<(), mm_diffusion::Error>(())
//! ```
//!
//! [`SingleFile::write_folder`] writes the folder, and [`single_file_of_folder`] is the way back. A new
//! family is a variant of [`Family`], its prefixes in `kind.rs` and its constants in `config.rs`.

mod config;
mod folder;
mod from_folder;
mod kind;
mod names;
mod open_clip;
mod parts;
mod write;

pub use from_folder::single_file_of_folder;
pub use kind::{Family, Kind, Variant};
pub(crate) use names::UnetNames;
pub use write::{DiffusersParts, write_single_file};

use crate::{Error, Result};
use mm_core::checkpoint::Weights;
use std::path::{Path, PathBuf};

/// Endings of files that PyTorch pickles.
const PICKLES: [&str; 4] = ["ckpt", "pt", "pth", "bin"];

/// A checkpoint in one file.
#[derive(Clone, Debug)]
pub struct SingleFile {
    path: PathBuf,
    kind: Kind,
    /// The shapes of all tensors, by name.
    shapes: kind::Shapes,
}

impl SingleFile {
    /// Reads the names and shapes of the safetensors file at `path`.
    ///
    /// # Errors
    /// The file is damaged or a pickle, or not of SD 1, SD 2 or SDXL.
    pub fn open(path: &Path) -> Result<Self> {
        let extension =
            path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if PICKLES.contains(&extension.as_str()) {
            return Err(Error::folder(
                path,
                "a pickle, and reading one runs the code in it; convert it if you trust it: \
                 python -c \"import sys, torch, safetensors.torch as s; \
                 d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); \
                 s.save_file({k: v.contiguous().clone() for k, v in d.get('state_dict', d).items() \
                 if torch.is_tensor(v)}, sys.argv[2])\" IN OUT.safetensors",
            ));
        }
        let weights = Weights::open(path)?;
        let shapes: kind::Shapes =
            weights.list().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        let kind = Kind::detect(&shapes).map_err(|problem| Error::folder(path, problem))?;
        Ok(Self { path: path.to_owned(), kind, shapes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The family, and what the U-Net reads beside noise and text.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn bad(&self, problem: impl Into<String>) -> Error {
        Error::folder(&self.path, problem)
    }
}
