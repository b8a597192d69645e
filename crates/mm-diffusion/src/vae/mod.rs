//! The autoencoder of latent diffusion (Rombach et al. 2022, section 3.1).

mod blocks;
mod config;
mod load;
mod model;
mod tiling;

pub use config::VaeConfig;
pub use model::{LatentDistribution, Vae};
