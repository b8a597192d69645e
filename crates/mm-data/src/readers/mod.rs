//! Readers of the files that data sets come in: one file each, with its config and its
//! [`Dataset`](crate::Dataset).

pub(crate) mod broken;
pub(crate) mod coco;
pub(crate) mod delimited;
pub(crate) mod flickr;
pub(crate) mod folder;
pub(crate) mod json;
pub(crate) mod karpathy;
pub(crate) mod listed;
pub(crate) mod parquet;
pub(crate) mod splits;
pub(crate) mod table;
pub(crate) mod vqa;
pub(crate) mod walk;

pub use coco::CocoConfig;
pub use flickr::FlickrConfig;
pub use folder::FolderConfig;
pub use karpathy::KarpathyConfig;
pub use parquet::ParquetConfig;
pub use table::TableConfig;
pub use vqa::VqaConfig;
