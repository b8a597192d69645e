//! Latents and text states that are computed once, before training, and kept in files.
//!
//! A folder holds `cache.json`, which says what the numbers were made with, and shards of some hundred
//! samples in the order of the data set. A shard is written completely or not at all, so that an interrupted
//! work goes on with the first shard that is missing.

mod build;
mod fingerprint;
mod shard;

pub use build::CacheConfig;
pub(super) use build::open;
pub(super) use shard::{Cache, CachedText};
