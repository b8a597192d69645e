//! Opening of an autoencoder's own folder.

use super::{Vae, VaeConfig};
use crate::Result;
use crate::pipeline::WEIGHTS;
use crate::text::build_below;
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::HfFolder;
use mm_core::{OpenOptions, hub};
use serde_json::Value;
use tch::nn::VarStore;

impl Vae {
    /// Opens the folder of an `AutoencoderKL` that diffusers saved, or a checkpoint of a run that trains one:
    /// a path or a hub name.
    ///
    /// # Errors
    /// There is no such folder, it is damaged or of another class, or the device is not available.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let mut vae = Self::load(model, &vs)?;
        options.pack(&vs, |precision| vae.pack(precision));
        Ok(vae)
    }

    /// As [`Vae::open`], as it is stored and with its variables in `vs`.
    pub(crate) fn load(model: &str, vs: &VarStore) -> Result<Self> {
        let (weights, config, layout) = Self::read(model)?;
        weights.build(vs, &layout, |path| Self::new(path, &config))
    }

    /// As [`Vae::load`], below `part` of `vs`, where other variables may be.
    pub(crate) fn load_below(model: &str, vs: &VarStore, part: &str) -> Result<Self> {
        let (mut weights, config, layout) = Self::read(model)?;
        build_below(vs, part, &mut weights, &layout, |path| Self::new(path, &config))
    }

    fn read(model: &str) -> Result<(Weights, VaeConfig, TensorLayout)> {
        let folder = HfFolder::at(hub::resolve(model)?);
        let config = VaeConfig::from_hf(&folder.config::<Value>()?)?;
        if folder.is_checkpoint() {
            return Ok((folder.checkpoint_weights(true)?, config, TensorLayout::AS_IS));
        }
        let mut weights = folder.weights(WEIGHTS)?;
        Self::rename_old_attention(&mut weights);
        Ok((weights, config, Self::LAYOUT))
    }
}
