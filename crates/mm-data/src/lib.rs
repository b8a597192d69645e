//! Images with their texts, from files to batches, without tensors.
//!
//! The way of a sample, in the order of this crate's parts:
//!
//! 1. A [`DatasetConfig`] of the TOML opens a [`Dataset`]: samples by number. A [`Sample`] has a key, encoded
//!    bytes, captions, questions and a label; making one is cheap. Built in are tables (CSV, TSV, JSON
//!    lines), image folders, the field's own files (COCO captions, Karpathy's splits, Flickr30k, VQA v2,
//!    Parquet with images inside), and WebDataset shards, several sets mixed, and [`emoji`] and [`shapes`],
//!    data sets inside the program.
//! 2. The crate [`mm_image`] decodes, resizes, augments and normalizes the images.
//! 3. A [`Loader`] does this on threads, in an order that follows from the seed alone, and tells a
//!    [`Position`] from which it goes on exactly.
//!
//! Beside that way, [`shards`] packs any source as tars, [`Stats`] counts what is in one and a [`sheet`]
//! shows it.
//!
//! ```
//! use mm_data::DatasetConfig;
//! use mm_image::{Normalize, resize};
//!
//! let config: DatasetConfig = toml::from_str("kind = \"emoji\"\nsplit = \"held_out\"")?;
//! let source = config.open()?;
//! assert_eq!(source.len(), 394);
//!
//! let sample = source.sample(0)?;
//! let image = sample.image.decode([255; 3])?;
//! let image = resize::short_side_center_crop(&image, 64);
//! let mut pixel_values = vec![0.0; 3 * 64 * 64]; // [3, H, W]
//! Normalize::CLIP.write(&image, &mut pixel_values);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # To extend
//!
//! A new data set is a file with a config struct and a [`Dataset`], and a variant of [`DatasetConfig`]. Give a
//! sample that cannot be read back as an `Err`: the loader counts it and goes on. See `docs/data.md` for the
//! user's side.

mod config;
mod dataset;
pub mod emoji;
mod error;
mod file_kind;
pub mod html;
mod in_order;
mod json;
mod loader;
mod mix;
mod readers;
mod rng;
mod sample;
pub mod shapes;
pub mod shards;
pub mod sheet;
mod stats;
pub mod text;
mod webdataset;

/// The random numbers of a sample: the same on every machine.
pub use rand_chacha::ChaCha8Rng as SampleRng;

pub use config::DatasetConfig;
pub use dataset::{Dataset, Part, Rank, StreamHandle, StreamOrder, StreamReader, StreamingDataset};
pub use error::{Error, Fault, Result};
pub use loader::{Batch, Item, Loader, LoaderConfig, Map, Position, Tally};
pub use mix::{MixConfig, Weighted};
pub use readers::{
    CocoConfig, FlickrConfig, FolderConfig, KarpathyConfig, ParquetConfig, TableConfig, VqaConfig,
};
pub use sample::{BadSample, Question, Sample, SampleImage};
pub use stats::{Measure, Spread, Stats};
pub use webdataset::WebDatasetConfig;
