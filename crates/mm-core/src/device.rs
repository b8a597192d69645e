use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Where to compute: `"auto"` (the first GPU if there is one, else the CPU), `"cpu"` or `"cuda:N"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceConfig(pub String);

impl Default for DeviceConfig {
    fn default() -> Self {
        Self("auto".to_owned())
    }
}

impl DeviceConfig {
    /// The device, if it is here.
    ///
    /// # Errors
    /// The name is none of the above, or asks for a GPU that this machine or this libtorch does not have.
    pub fn resolve(&self) -> Result<Device> {
        self.resolve_for(0)
    }

    /// The device of the process with this number among those of a run on this machine, each of which has a
    /// GPU of its own: `"auto"` counts from the first GPU, `"cuda:N"` from N.
    ///
    /// # Errors
    /// As [`DeviceConfig::resolve`].
    pub fn resolve_for(&self, local_rank: usize) -> Result<Device> {
        let fail = |problem| Err(Error::Device { device: self.0.clone(), problem });
        let here = |index: usize| match (index as i64) < tch::Cuda::device_count() {
            true => Ok(Device::Cuda(index)),
            false if local_rank > 0 => fail("this machine has fewer GPUs than processes of the run"),
            false => fail("there are fewer GPUs than that"),
        };
        match self.0.as_str() {
            "auto" if tch::Cuda::is_available() => here(local_rank),
            "auto" => Ok(Device::Cpu),
            "cpu" => Ok(Device::Cpu),
            name => match name.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()) {
                None => fail("not a device; use \"auto\", \"cpu\" or \"cuda:N\""),
                Some(_) if !tch::Cuda::is_available() => fail(
                    "libtorch sees no CUDA; use device = \"cpu\", or install it with `cargo xtask setup --cuda` on a machine with an NVIDIA GPU",
                ),
                Some(index) => here(index.saturating_add(local_rank)),
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

/// Brings a batch from the loader to `device`. To a GPU it goes through pinned memory, so that the copy runs
/// beside what the GPU computes already; on the CPU it is the same tensor. (Not run on a GPU yet.)
pub fn upload(batch: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => batch.pin_memory(device).to_device_(device, batch.kind(), true, false),
        _ => batch.to_device(device),
    }
}
