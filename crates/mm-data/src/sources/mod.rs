//! The kinds of data sets: one file or folder for each, with its config struct and its
//! [`Dataset`](crate::Dataset).

pub(crate) mod broken;
pub(crate) mod coco;
pub(crate) mod delimited;
pub(crate) mod dicom;
pub mod emoji;
pub(crate) mod flickr;
pub(crate) mod folder;
pub(crate) mod image_list;
pub(crate) mod json_file;
pub(crate) mod karpathy;
pub(crate) mod lines;
pub(crate) mod listed;
pub(crate) mod mix;
pub(crate) mod pairs;
pub(crate) mod parquet;
pub(crate) mod prompts;
pub mod shapes;
pub(crate) mod splits;
pub(crate) mod table;
pub(crate) mod vqa;
pub(crate) mod walk;
pub(crate) mod webdataset;

pub use coco::CocoConfig;
pub use dicom::{DicomConfig, DicomFrames};
pub use flickr::FlickrConfig;
pub use folder::FolderConfig;
pub use image_list::ImageList;
pub use karpathy::KarpathyConfig;
pub use mix::{MixConfig, Weighted};
pub use pairs::PairsConfig;
pub use parquet::ParquetConfig;
pub use prompts::PromptsConfig;
pub use table::TableConfig;
pub use vqa::VqaConfig;
pub use webdataset::WebDatasetConfig;
