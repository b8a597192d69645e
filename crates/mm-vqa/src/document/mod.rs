//! Documents: pages to structured content, by Donut (Kim et al. 2022).
//!
//! A [`DocumentPipeline`] reads pages: its [`DocumentModel`] writes the content of a page as a sequence of
//! tags and texts ([`to_tokens`]), which becomes a [`DocumentReading`]: a document, and its fields, each with
//! a confidence and the place on the page where it was read.
//!
//! ```no_run
//! use mm_core::OpenOptions;
//! use mm_vqa::document::DocumentPipeline;
//!
//! let name = "naver-clova-ix/donut-base-finetuned-cord-v2";
//! let pipeline = DocumentPipeline::open(name, &OpenOptions::default())?;
//! let page = mm_image::decode(&std::fs::read("receipt.png")?, [255; 3])?;
//! let readings = pipeline.read(&[page], Some("<s_cord-v2>"), &pipeline.generation)?;
//! for field in &readings[0].fields {
//!     println!("{}: {} ({:.0} %) at {:?}", field.path, field.text, 100.0 * field.confidence, field.place);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod config;
mod evaluate;
mod fields;
mod folder;
mod init_from;
mod loss;
mod model;
mod pipeline;
mod place;
mod run_config;
mod sections;
mod set_reader;
mod spelling;
mod target;
mod task;
mod token_tree;
mod tokens;

pub use batch::{DocumentBatch, DocumentItem};
pub use config::DocumentModelConfig;
pub use fields::{DocumentReading, FieldReading};
pub use folder::DocumentFolder;
pub use mm_vision::DocumentProcessor;
pub use model::DocumentModel;
pub use pipeline::DocumentPipeline;
pub use run_config::{DocumentRunConfig, InputConfig, LossConfig, MetricsConfig, ModelConfig};
pub use set_reader::{PageReading, SetReader};
pub use task::DocumentTask;
pub use tokens::{SEPARATOR, from_tokens, tag, to_tokens};
