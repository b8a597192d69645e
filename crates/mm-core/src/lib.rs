//! What every model of `mm` shares, and nothing about any one of them.
//!
//! - [`nn`]: the layers, once: attention, MLP, norms, transformer block, patch embedding.
//! - [`loss`]: contrastive losses (InfoNCE, SigLIP), whole and in tiles.
//! - [`lora`]: low-rank adapters on the linear layers of a frozen model, in PEFT's files.
//! - [`optim`]: AdamW and Muon with parameter groups and clipping, learning-rate schedules.
//! - [`config`]: strict TOML: an unknown key is an error that names its line and the nearest valid key.
//! - [`hf`]: what the configs that Hugging Face writes have in common.
//! - [`hub`]: models by folder or by name, from the local cache of the Hugging Face hub or fetched into it.
//! - [`checkpoint`]: safetensors in and out, strictly by name and shape, written whole or not at all.
//! - [`Precision`], [`DeviceConfig`], [`seed`]: how and where numbers are computed, and from which
//!   randomness.
//!
//! ```
//! use mm_core::nn::{AttentionMask, BlockConfig, BlockNames, Transformer};
//! use tch::{nn, Device, Kind, Tensor};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let config = BlockConfig { width: 32, heads: 4, mlp_width: 128, layers: 2, ..BlockConfig::default() };
//! let transformer = Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP);
//! let x = Tensor::randn([2, 7, 32], (Kind::Float, Device::Cpu));
//! assert_eq!(transformer.forward(x, &AttentionMask::causal()).size(), [2, 7, 32]);
//! ```
//!
//! To add a loss, write a function in `loss/` from tensors to a scalar and test its gradient; to add a layer,
//! a struct in `nn/`.

pub mod checkpoint;
pub mod config;
mod device;
mod error;
pub mod hf;
pub mod hub;
mod json;
pub mod lora;
pub mod loss;
mod memory;
pub mod nn;
mod open;
pub mod optim;
mod precision;
pub mod seed;

pub use device::{DeviceConfig, upload};
pub use error::{Error, Result, one_line};
pub use json::{read_json, write_json};
pub use memory::peak_memory;
pub use open::OpenOptions;
pub use precision::{Precision, PrecisionConfig, PrecisionProbe};
