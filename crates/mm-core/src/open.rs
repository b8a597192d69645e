//! How a model is opened for inference.

use crate::{DeviceConfig, Error, Precision, PrecisionProbe, Result};
use tch::Device;
use tch::nn::VarStore;

/// How a model is opened for inference.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The device that the model computes on.
    pub device: DeviceConfig,
    /// The precision that the model computes in.
    pub precision: Precision,
    /// Side of the images in pixels, where it differs from the model's own.
    pub resolution: Option<i64>,
}

impl OpenOptions {
    /// The device, checked against the precision.
    ///
    /// # Errors
    /// The device is not available, or does not support the precision.
    pub fn resolve_device(&self) -> Result<Device> {
        let device = self.device.resolve()?;
        if self.precision == Precision::Int8 && device != Device::Cpu {
            let problem = "int8 is for the CPU: take precision bf16 here";
            return Err(Error::Device { device: self.device.0.clone(), problem });
        }
        Ok(device)
    }

    /// Warns where the precision is bf16 and that is slower than f32 on this processor, for a model with the
    /// variables of `vs`.
    pub fn warn_if_slow(&self, vs: &VarStore) {
        if self.precision == Precision::Bf16 {
            PrecisionProbe::inference(vs).iter().for_each(PrecisionProbe::warn_if_bf16_is_slower);
        }
    }

    /// Converts a model with the variables of `vs` to the precision by `pack`; f32 needs no conversion. Warns
    /// as [`OpenOptions::warn_if_slow`].
    pub fn pack(&self, vs: &VarStore, pack: impl FnOnce(Precision)) {
        self.warn_if_slow(vs);
        if self.precision != Precision::F32 {
            pack(self.precision);
        }
    }
}
