//! Work on whole data sets: packing as shards, counting, comparing, contact sheets, exporting the emoji.

pub(crate) mod emoji_export;
pub mod html;
pub(crate) mod in_order;
pub(crate) mod overlap;
pub mod shards;
pub mod sheet;
pub(crate) mod stats;
