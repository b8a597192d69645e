//! From images to vectors: the towers of vision-language models, and the pixels that they read.
//!
//! - [`Vit`]: the vision transformer (Dosovitskiy et al. 2021) of CLIP, SigLIP, BLIP and the original paper.
//! - [`ResNet`]: 18, 34, 50 and 101 layers (He et al. 2016), as in torchvision.
//! - [`ModifiedResNet`]: CLIP's own, with attention pooling (Radford et al. 2021, section 2.4).
//! - [`ImageTower`]: the interface of all of them, built from the [`ImageTowerConfig`] of a TOML.
//! - [`ImageProcessor`]: `preprocessor_config.json` to resized, cropped, normalized `pixel_values`, equal to
//!   Pillow's.
//!
//! Parameters have the names of the checkpoints that transformers, torchvision and open_clip write, below the
//! path that the caller passes; `tests/goldens.rs` compares outputs and gradients with theirs.
//!
//! ```
//! use image::RgbImage;
//! use mm_vision::{ImageProcessor, ImageTowerConfig};
//! use tch::{Device, nn};
//!
//! let config: ImageTowerConfig = toml::from_str(
//!     r#"
//!     kind = "vit"
//!     hidden_size = 64
//!     intermediate_size = 256
//!     num_hidden_layers = 2
//!     num_attention_heads = 4
//!     image_size = 64
//!     patch_size = 16
//!     "#,
//! )?;
//! let vs = nn::VarStore::new(Device::Cpu);
//! let tower = config.build(&(vs.root() / "vision_model"))?;
//!
//! let processor = ImageProcessor::default_clip(64);
//! let pixel_values = processor.process_batch(&[RgbImage::new(120, 80), RgbImage::new(64, 200)])?;
//! assert_eq!(pixel_values.size(), [2, 3, 64, 64]);
//! assert_eq!(tower.forward(&pixel_values, false).size(), [2, 64]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A new tower is one file and one line:
//!
//! 1. a file with a config that implements [`TowerSpec`](mm_core::nn::TowerSpec) and [`ImageTowerSpec`]
//!    (`validate` names the field that is wrong, with the numbers), and a struct that implements
//!    [`ImageTower`];
//! 2. its line in the enum [`ImageTowerConfig`] in `tower.rs`;
//! 3. a golden in `xtask/goldens/vision.py` and `tests/goldens.rs`.

mod attention_pool;
mod bucketed_positions;
mod channels;
mod conv;
mod describe;
mod differentiable;
mod donut_processor;
mod error;
mod geometry;
mod idefics3_processor;
mod map_head;
mod modified_resnet;
mod open_clip_config;
mod position_table;
mod preprocessor_config;
mod processor;
mod resnet;
mod swin;
mod swin_config;
mod swin_hf;
mod swin_stem;
mod tower;
mod vilt_processor;
mod vit;
mod vit_config;
mod vit_hf;
mod vit_parts;
mod vit_timm;
mod window_attention;
mod windows;

pub use donut_processor::{DocumentProcessor, PagePlacement};
pub use error::{Error, Result};
pub use idefics3_processor::{Idefics3Processor, ImageTiles};
pub use modified_resnet::{ModifiedResNet, ModifiedResNetConfig};
pub use position_table::{PositionTable, resize_positions};
pub use preprocessor_config::image_processor_config;
pub use processor::ImageProcessor;
pub use resnet::{ResNet, ResNetConfig};
pub use swin::Swin;
pub use swin_config::{SwinConfig, SwinStem};
pub use tower::{HeatMapTaps, ImageTower, ImageTowerConfig, ImageTowerSpec, TokenGrid};
pub use vilt_processor::{PaddedImages, ViltProcessor};
pub use vit::{Vit, VitAttention};
pub use vit_config::{VitConfig, VitVariant};
