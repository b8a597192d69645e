//! The device that a model computes on.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// The device: `"auto"` (the first GPU if there is one, else the CPU), `"cpu"` or `"cuda:N"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceConfig(pub String);

impl Default for DeviceConfig {
    fn default() -> Self {
        Self("auto".to_owned())
    }
}

impl DeviceConfig {
    /// The device, checked to be available.
    ///
    /// # Errors
    /// The name is not one of the above, or names a GPU that this machine or this libtorch does not have.
    pub fn resolve(&self) -> Result<Device> {
        self.resolve_for(0)
    }

    /// The device of the process with this local rank, each with its own GPU: `"auto"` counts from the first
    /// GPU, `"cuda:N"` from N.
    ///
    /// # Errors
    /// As [`DeviceConfig::resolve`].
    pub fn resolve_for(&self, local_rank: usize) -> Result<Device> {
        let fail = |problem| Err(Error::Device { device: self.0.clone(), problem });
        let gpu = |index: usize| {
            if (index as i64) < tch::Cuda::device_count() {
                Ok(Device::Cuda(index))
            } else if local_rank > 0 {
                fail("this machine has fewer GPUs than processes of the run")
            } else {
                fail("there are fewer GPUs than that")
            }
        };
        match self.0.as_str() {
            "auto" if tch::Cuda::is_available() => gpu(local_rank),
            "auto" => Ok(Device::Cpu),
            "cpu" => Ok(Device::Cpu),
            name => match name.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()) {
                None => fail("not a device; use \"auto\", \"cpu\" or \"cuda:N\""),
                Some(_) if !tch::Cuda::is_available() => fail(
                    "libtorch has no CUDA; use device = \"cpu\", or install it with \
                     `cargo xtask setup --cuda` on a machine with an NVIDIA GPU",
                ),
                Some(index) => gpu(index.saturating_add(local_rank)),
            },
        }
    }
}

impl From<Device> for DeviceConfig {
    fn from(device: Device) -> Self {
        Self(match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        })
    }
}

/// Copies a batch from the loader to `device`: to a GPU through pinned memory, asynchronously; on the CPU it
/// is the same tensor. (Not run on a GPU yet.)
pub fn upload(batch: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => batch.pin_memory(device).to_device_(device, batch.kind(), true, false),
        _ => batch.to_device(device),
    }
}
