//! Packing: any data set as WebDataset shards.
//!
//! A shard is a fixed range of the data set's samples, `k * S .. (k + 1) * S`; those of them that are kept
//! are in `0000k.tar`, each under its number in the data set. So shards hang on nothing but the data: any
//! number of threads, and a packing that was ended and gone on with, make the same bytes. A shard is written
//! under another name, synced and renamed, and then its record `0000k.json`; what has a record is not made
//! again.
//!
//! Duplicates are found in a first pass over all samples, which decides in the order of their numbers; the
//! second then writes.

mod filter;
mod filter_pass;
mod folder;
mod hash;
mod manifest;
mod pack;
mod tar;

pub use filter::{Bounds, Filter};
pub use filter_pass::Score;
pub use manifest::{Job, Manifest, Shard};
pub use pack::{PackOptions, Packing, Progress, Summary};
