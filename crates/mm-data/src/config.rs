//! Which data to read, as the config says it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::coco::{self, CocoConfig};
use crate::emoji::{EmojiConfig, EmojiSource};
use crate::flickr::{self, FlickrConfig};
use crate::folder::{FolderConfig, FolderSource};
use crate::karpathy::{self, KarpathyConfig};
use crate::parquet::{ParquetConfig, ParquetSource};
use crate::table::{TableConfig, TableFormat, TableSource};
use crate::vqa::{VqaConfig, VqaSource};
use crate::{Result, Source};

/// A data set of the config: `kind` says which reader, the other keys are that reader's own.
///
/// ```
/// let config: mm_data::SourceConfig = toml::from_str(r#"
///     kind = "tsv"
///     path = "flickr/train.tsv"
///     caption_column = ["title", "description"]
/// "#)?;
/// assert!(config.open().is_err()); // no such file here
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceConfig {
    /// The embedded emoji.
    Emoji(EmojiConfig),
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
}

impl SourceConfig {
    /// Opens the data set: reads its list of samples, but no image.
    ///
    /// Errors: a missing file, folder or column, a file without rows.
    pub fn open(&self) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::Emoji(config) => Box::new(EmojiSource::new(config)),
            Self::Csv(config) => Box::new(TableSource::open(config, TableFormat::Csv)?),
            Self::Tsv(config) => Box::new(TableSource::open(config, TableFormat::Tsv)?),
            Self::Jsonl(config) => Box::new(TableSource::open(config, TableFormat::Jsonl)?),
            Self::Folder(config) => Box::new(FolderSource::open(config)?),
            Self::Coco(config) => Box::new(coco::open(config)?),
            Self::Karpathy(config) => Box::new(karpathy::open(config)?),
            Self::Flickr30k(config) => Box::new(flickr::open(config)?),
            Self::VqaV2(config) => Box::new(VqaSource::open(config)?),
            Self::Parquet(config) => Box::new(ParquetSource::open(config)?),
        })
    }

    /// The file or folder that this reads, if any, the first of several; so that a config can be checked before work begins.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Emoji(_) => None,
            Self::Csv(table) | Self::Tsv(table) | Self::Jsonl(table) => Some(&table.path),
            Self::Folder(folder) => Some(&folder.path),
            Self::Coco(coco) => Some(&coco.path),
            Self::Karpathy(karpathy) => Some(&karpathy.path),
            Self::Flickr30k(flickr) => Some(&flickr.path),
            Self::VqaV2(vqa) => Some(&vqa.path),
            Self::Parquet(parquet) => parquet.path.first(),
        }
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
