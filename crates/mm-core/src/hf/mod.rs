//! The files that Hugging Face's libraries write: a model folder and the fields of its configs.

mod config;
mod folder;

pub use config::{check_eps, check_heads, check_layers, check_sizes, overlay};
pub use folder::{CONFIG_FILE, HfFolder, OPEN_CLIP_CONFIG_FILE, PROCESSOR_CONFIG_FILE};
