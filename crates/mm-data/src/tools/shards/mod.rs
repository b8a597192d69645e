//! Packs any data set as WebDataset shards.
//!
//! A shard is a fixed range of the data set's samples, `k * S .. (k + 1) * S`. The kept ones are in
//! `0000k.tar`, named by their index in the data set. So shards depend on the data alone: any number of
//! threads, and an interrupted and resumed packing, write the same bytes. A shard is written under a
//! temporary name, synced and renamed, followed by its record `0000k.json`. A shard with a record is not
//! written again.
//!
//! With the filter `duplicates`, a first pass over all samples decides in the order of their indices, and a
//! second pass writes.

mod filter;
mod filter_pass;
mod folder;
mod hash;
mod manifest;
mod pack;
mod tar;

pub(crate) use hash::perceptual_hash;

pub use filter::{Bounds, Filter};
pub use filter_pass::Score;
pub use manifest::{Job, Manifest, Shard};
pub use pack::{PackOptions, Packing, Progress, Summary};
