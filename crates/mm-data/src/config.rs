//! Which data to read, as the config says it.

use serde::{Deserialize, Serialize};

use crate::emoji::{EmojiConfig, EmojiDataset};
use crate::readers::coco::{self, CocoConfig};
use crate::readers::flickr::{self, FlickrConfig};
use crate::readers::folder::{FolderConfig, FolderDataset};
use crate::readers::karpathy::{self, KarpathyConfig};
use crate::readers::parquet::{ParquetConfig, ParquetDataset};
use crate::readers::table::{TableConfig, TableDataset, TableFormat};
use crate::readers::vqa::{VqaConfig, VqaDataset};
use crate::shapes::{ShapesConfig, ShapesDataset};
use crate::webdataset::WebDatasetConfig;
use crate::{Dataset, MixConfig, Result};

/// A data set of the config: `kind` says which reader, the other keys are that reader's own.
///
/// ```
/// let config: mm_data::DatasetConfig = toml::from_str(r#"
///     kind = "tsv"
///     path = "flickr/train.tsv"
///     caption_column = ["title", "description"]
/// "#)?;
/// assert!(config.open().is_err()); // no such file here
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DatasetConfig {
    /// The embedded emoji.
    Emoji(EmojiConfig),
    /// The embedded shapes.
    Shapes(ShapesConfig),
    /// A file of comma-separated values with a header line.
    Csv(TableConfig),
    /// The same with tabs.
    Tsv(TableConfig),
    /// One JSON object a line.
    Jsonl(TableConfig),
    /// A folder of images, with a folder a class or caption files beside the images.
    Folder(FolderConfig),
    /// COCO captions.
    Coco(CocoConfig),
    /// Karpathy's splits of COCO, Flickr30k or Flickr8k.
    Karpathy(KarpathyConfig),
    /// Flickr30k's own captions.
    Flickr30k(FlickrConfig),
    /// VQA v2 questions, with or without their answers.
    VqaV2(VqaConfig),
    /// Parquet files with images inside, as Hugging Face `datasets` writes them.
    Parquet(ParquetConfig),
    /// Tar shards.
    Webdataset(WebDatasetConfig),
    /// Several data sets, mixed by weight.
    Mix(MixConfig),
}

impl DatasetConfig {
    /// Opens the data set: reads its list of samples, but no image.
    ///
    /// Errors: a missing file, folder or column, a file without rows, a number out of its range.
    pub fn open(&self) -> Result<Box<dyn Dataset>> {
        Ok(match self {
            Self::Emoji(config) => Box::new(EmojiDataset::new(config)),
            Self::Shapes(config) => Box::new(ShapesDataset::new(config)?),
            Self::Csv(config) => Box::new(TableDataset::open(config, TableFormat::Csv)?),
            Self::Tsv(config) => Box::new(TableDataset::open(config, TableFormat::Tsv)?),
            Self::Jsonl(config) => Box::new(TableDataset::open(config, TableFormat::Jsonl)?),
            Self::Folder(config) => Box::new(FolderDataset::open(config)?),
            Self::Coco(config) => Box::new(coco::open(config)?),
            Self::Karpathy(config) => Box::new(karpathy::open(config)?),
            Self::Flickr30k(config) => Box::new(flickr::open(config)?),
            Self::VqaV2(config) => Box::new(VqaDataset::open(config)?),
            Self::Parquet(config) => Box::new(ParquetDataset::open(config)?),
            Self::Webdataset(config) => config.open()?,
            Self::Mix(config) => config.open()?,
        })
    }
}

/// Reads one thing or a list of things as a list.
pub(crate) fn one_or_many<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected one text or a list of texts")]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}
