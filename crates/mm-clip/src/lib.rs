//! CLIP and SigLIP: two towers with outputs in one space.
//!
//! An image tower and a text tower each map their input to a unit vector; training pulls the vectors of a
//! pair together and pushes all others apart (Radford et al. 2021, "Learning transferable visual models from
//! natural language supervision"; with a pairwise loss, Zhai et al. 2023, "Sigmoid loss for language image
//! pre-training"). The cosine of two vectors then compares any image with any text:
//!
//! - [`ClipTask`] trains one, from a TOML that is a [`ClipRunConfig`];
//! - [`ClipPipeline`] opens and saves a model's folder and embeds images and texts; [`ImageEmbedder`] and
//!   [`TextEmbedder`] are its two sides, each usable alone; [`ModelFolder`] reads the formats of
//!   transformers, open_clip and OpenAI, [`ModelConverter`] converts between them;
//! - [`ZeroShot`] classifies by labels, [`Retrieval`] measures search both ways, [`Embedded`] does
//!   both over a set;
//! - [`ImageTowerCheckpoint`] is the image tower of a checkpoint, for models of other tasks;
//! - [`LinearProbe`] is a linear classifier on frozen embeddings;
//! - [`relevance`] shows which parts of an image contribute to its similarity with a text.
//!
//! ```
//! use mm_clip::{Clip, ClipConfig};
//! use mm_text::{Padding, TokenBatch};
//! use tch::{nn::VarStore, Device, Kind, Tensor};
//!
//! let config: ClipConfig = toml::from_str(r#"
//!     embed_dim = 16
//!     image = { kind = "vit", image_size = 16, patch_size = 8, hidden_size = 32, num_attention_heads = 4,
//!               num_hidden_layers = 2, intermediate_size = 64 }
//!     text = { kind = "clip", vocab_size = 100, eos_token_id = 99, hidden_size = 32, intermediate_size = 64,
//!              num_hidden_layers = 2, num_attention_heads = 4, max_position_embeddings = 8 }
//! "#)?;
//! let vs = VarStore::new(Device::Cpu);
//! let clip = Clip::new(&vs.root(), &config)?;
//! let images = clip.image.encode(&Tensor::zeros([2, 3, 16, 16], (Kind::Float, Device::Cpu)), false);
//! let texts = clip.text.encode(&TokenBatch::from_rows(&[vec![98, 5, 99], vec![98, 7, 8, 99]], 0, 99));
//! assert_eq!(clip.head.logits(&images, &texts).size(), [2, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To add a tower, add it to `mm-vision` or `mm-text` and to the enum of towers there; nothing changes here.

mod batch;
mod cached_text_features;
mod checkpoint;
mod config;
mod convert;
mod encoder;
mod error;
mod evaluate;
mod folder;
mod grad_cache;
mod head;
pub mod heat_map;
mod image_tower;
mod init_from;
mod layer_groups;
mod linear_probe;
mod model;
mod model_config;
mod pipeline;
mod relevance;
mod retrieval;
mod run_config;
mod sections;
mod task;
mod text_projection;
mod timm;
mod tokenizer;
mod zero_shot;

pub use batch::{ClipBatch, ClipItem, TextInput};
pub use config::{ClipConfig, ContrastiveLoss};
pub use convert::ModelConverter;
pub use encoder::{ImageEncoder, TextEncoder};
pub use error::{Error, Result};
pub use evaluate::{Embedded, EvalSample, PairReport};
pub use folder::{Architecture, CheckpointFormat, Description, ModelFolder, Saved};

pub use head::{ContrastiveHead, Probability};
pub use image_tower::ImageTowerCheckpoint;
pub use linear_probe::{CSweep, Confusion, LabelledFeatures, LinearProbe, ProbeConfig, TriedC, sweep_c};
pub use mm_core::OpenOptions;
pub use mm_core::checkpoint::StoredType;
pub use model::Clip;
pub use model_config::{Lock, ModelConfig};
pub use pipeline::{ClipPipeline, ImageEmbedder, TextEmbedder, check_rows};
pub use relevance::{Relevance, relevance};
pub use retrieval::Retrieval;
pub use run_config::{ClipRunConfig, InputConfig, LossConfig, TokenizerConfig, ZeroShotConfig};
pub use task::ClipTask;
pub use text_projection::TextProjection;
pub use tokenizer::run_tokenizer;
pub use zero_shot::{ClassReport, Templates, ZeroShot, ZeroShotReport};
