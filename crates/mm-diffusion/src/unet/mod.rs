//! The U-Net of Stable Diffusion 1, 2 and XL (Rombach et al. 2022, Podell et al. 2023).

mod blocks;
mod config;
mod model;

pub use config::{AddedConditions, UNetConfig};
pub use model::{TextKeyValues, UNet, UNetInputs};
