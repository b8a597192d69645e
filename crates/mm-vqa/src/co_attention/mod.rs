//! Co-attention models: the tokens of an image and the states of a question attend to each other, and a
//! classifier chooses among the answers of a vocabulary.
//!
//! | `kind` | fusion | source |
//! |---|---|---|
//! | `guided` | the question attends to the image | Yang et al. 2016, Anderson et al. 2018 |
//! | `parallel` | both attend to each other at words, phrases and the question | Lu et al. 2016 |
//! | `mcan` | blocks of self-attention and of guided attention | Yu et al. 2019 |
//!
//! The image is read once: [`CoAttention::encode_images`] runs the tower and projects its tokens, and any
//! number of questions are then asked about them. An answer does not depend on the batch: padding of
//! questions is masked everywhere.
//!
//! ```
//! use mm_text::{LstmConfig, QuestionEncoderConfig};
//! use mm_vision::{ImageTowerConfig, ResNetConfig};
//! use mm_vqa::co_attention::{CoAttention, CoAttentionConfig, FusionConfig, McanConfig};
//! use tch::{Device, Kind, Tensor, nn::VarStore};
//!
//! # fn main() -> mm_vqa::Result<()> {
//! let lstm = LstmConfig { vocab_size: 50, embedding_size: 16, hidden_size: 32, ..LstmConfig::default() };
//! let mcan = McanConfig { width: 32, heads: 4, mlp_width: 64, layers: 2, ..McanConfig::default() };
//! let resnet = ResNetConfig { depth: 18, width: 4, image_size: 64, ..ResNetConfig::default() };
//! let config = CoAttentionConfig {
//!     image: ImageTowerConfig::ResNet(resnet),
//!     question: QuestionEncoderConfig::Lstm(lstm),
//!     fusion: FusionConfig::Mcan(mcan),
//!     classes: 10,
//! };
//! let vs = VarStore::new(Device::Cpu);
//! let model = CoAttention::new(&vs.root(), &config)?;
//! let pixel_values = Tensor::zeros([2, 3, 64, 64], (Kind::Float, Device::Cpu));
//! let image_tokens = model.encode_images(&pixel_values, false);
//!
//! // Two questions about the first image and one about the second.
//! let input_ids = Tensor::from_slice(&[5i64, 9, 2, 7, 2, 0, 5, 4, 2]).view([3, 3]);
//! let (image_index, lengths) = (Tensor::from_slice(&[0i64, 0, 1]), Tensor::from_slice(&[3i64, 2, 3]));
//! let logits = model.forward(&image_tokens, &image_index, &input_ids, &lengths);
//! assert_eq!(logits.size(), [3, 10]);
//! # Ok(())
//! # }
//! ```

mod config;
mod fusion;
mod guided;
mod head;
mod layers;
mod mcan;
mod model;
mod parallel;

pub use config::{
    CoAttentionConfig, DEFAULT_CLASSES, FusionConfig, GuidedConfig, GuidedScore, McanConfig, ParallelConfig,
};
pub use fusion::ImageAttention;
pub use head::{CoAttentionHead, ImageTokens};
pub use model::CoAttention;
