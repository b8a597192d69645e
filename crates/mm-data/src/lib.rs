//! Data sets of images with texts, from files to batches, without tensors.
//!
//! A sample goes through this crate in the order of its parts:
//!
//! 1. A [`DatasetConfig`] of the TOML opens a [`Dataset`]: samples by index. A [`Sample`] has a key and, as
//!    the data set provides them, encoded images, captions, questions, a label, an instruction or a
//!    preference. Reading one decodes nothing. The kinds of data sets are in `sources/`: tables (CSV, TSV,
//!    JSON lines), image folders, published formats (COCO captions, Karpathy's splits, Flickr30k, VQA v2,
//!    easy-VQA, GQA, CLEVR, POPE, VQA-RAD, SLAKE, PMC-VQA, DocVQA, ChartQA, CORD, Parquet with images
//!    inside), WebDataset shards, prompts, image pairs, DICOM files, mixes, balanced sets and splits of
//!    these, and the embedded sets [`emoji`], [`shapes`] and [`invoices`].
//! 2. The crate [`mm_image`] decodes, resizes, augments and normalizes the images; [`dicom`] renders those of
//!    scanners.
//! 3. A [`Loader`] does this on threads, in an order that depends on the seed alone. Its [`Position`] resumes
//!    it exactly.
//!
//! In `tools/`, [`shards`] packs any data set as tars, [`Stats`] counts the contents of one, [`Overlap`]
//! compares two, and a [`sheet`] shows one.
//!
//! ```
//! use mm_data::DatasetConfig;
//! use mm_image::{Normalize, resize};
//!
//! let config: DatasetConfig = toml::from_str("kind = \"emoji\"\nsplit = \"held_out\"")?;
//! let dataset = config.open()?;
//! assert_eq!(dataset.len(), 394);
//!
//! let sample = dataset.sample(0)?;
//! let image = sample.image()?.decode([255; 3])?;
//! let image = resize::short_side_center_crop(&image, 64);
//! let mut pixel_values = vec![0.0; 3 * 64 * 64]; // [3, H, W]
//! Normalize::CLIP.write(&image, &mut pixel_values);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # To extend
//!
//! A new kind of data set is a file in `sources/` with a config struct and a [`Dataset`], and a variant of
//! [`DatasetConfig`]. `sources/prompts.rs` is the shortest example. A sample that cannot be read is an `Err`:
//! the loader counts it and goes on. `docs/data.md` documents the kinds for users.

mod config;
mod dataset;
pub mod dicom;
mod document;
mod error;
mod file_kind;
mod json;
mod loader;
mod message;
mod rng;
mod sample;
mod sources;
pub mod text;
mod tools;

/// The random number generator of a sample: the same numbers on every machine.
pub use rand_chacha::ChaCha8Rng as SampleRng;

pub use config::DatasetConfig;
pub use dataset::{
    Dataset, Rank, StreamHandle, StreamOrder, StreamReader, StreamingDataset, WeightedDataset,
};
pub use document::{Document, DocumentField, DocumentValue, DocumentWord};
pub use error::{Error, Fault, Result};
pub use loader::{Batch, BatchGroups, Item, Loader, LoaderConfig, Map, Position, Tally};
pub use message::{Message, MessagePart, Role};
pub use sample::{BadSample, Draw, NegativeCaption, Question, Sample, SampleImage};
pub use sources::{
    BalanceBy, BalancedConfig, ChartQaConfig, ChatConfig, ClevrConfig, CocoConfig, CordConfig, DicomConfig,
    DicomFrames, DocVqaConfig, EasyVqaConfig, EasyVqaSplit, FlickrConfig, FolderConfig, GqaConfig, ImageList,
    KarpathyConfig, MixConfig, PairsConfig, ParquetConfig, PmcVqaConfig, PopeConfig, PromptsConfig,
    QuestionList, RadSplit, RadSplitBy, SlakeConfig, SlakeLanguage, SplitBy, SplitConfig, SplitPart,
    TableConfig, VqaConfig, VqaRadConfig, WebDatasetConfig, Weighted, emoji, invoices, is_held_out, shapes,
};
pub use tools::emoji_export::{EmojiStats, export_emoji};
pub use tools::overlap::{Overlap, OverlapSet, Shared, SharedExample};
pub use tools::stats::{Measure, Spread, Stats};
pub use tools::{html, shards, sheet};
