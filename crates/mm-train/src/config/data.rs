//! `[data]`: the training set, the evaluation sets, and how both are read.

use mm_data::{DatasetConfig, LoaderConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[data]`: the data sets of a run and how they are loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The training set.
    pub train: DatasetConfig,
    /// The evaluation sets, by name.
    #[serde(default)]
    pub eval: BTreeMap<String, DatasetConfig>,
    /// The color behind transparent images, 0 to 255.
    #[serde(default = "white")]
    pub background: [u8; 3],
    /// In training, whether a JPEG whose crop is several times as large as the model's input is decoded at a
    /// half, a quarter or an eighth of its size: faster, and off by a level or two. Evaluation decodes whole
    /// images.
    #[serde(default = "yes")]
    pub fast_decode: bool,
    /// Threads that decode; 0: one a core.
    #[serde(default)]
    pub workers: usize,
    /// Batches that are decoded ahead.
    #[serde(default = "default_prefetch")]
    pub prefetch: usize,
    /// Bytes that batches decoded ahead may take.
    #[serde(default = "default_prefetch_bytes")]
    pub prefetch_bytes: usize,
    /// Samples that are shuffled among each other, at least, where data is read in blocks: shards, Parquet.
    #[serde(default = "default_shuffle_window")]
    pub shuffle_window: usize,
    /// Whether samples are drawn with replacement.
    #[serde(default)]
    pub resample: bool,
    /// Different samples that may be unreadable before the run stops.
    #[serde(default)]
    pub max_bad_samples: usize,
}

fn white() -> [u8; 3] {
    [255; 3]
}
fn yes() -> bool {
    true
}
fn default_prefetch() -> usize {
    LoaderConfig::default().prefetch
}
fn default_prefetch_bytes() -> usize {
    LoaderConfig::default().prefetch_bytes
}
fn default_shuffle_window() -> usize {
    LoaderConfig::default().shuffle_window
}
