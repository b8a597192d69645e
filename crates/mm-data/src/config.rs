//! Which data to read, as the config says it.

use serde::{Deserialize, Serialize};

use crate::emoji::{EmojiConfig, EmojiSource};
use crate::folder::{FolderConfig, FolderSource};
use crate::shapes::{ShapesConfig, ShapesSource};
use crate::table::{TableConfig, TableFormat, TableSource};
use crate::webdataset::WebDatasetConfig;
use crate::{MixConfig, Result, Source};

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
    /// Tar shards.
    Webdataset(WebDatasetConfig),
    /// Several data sets, mixed by weight.
    Mix(MixConfig),
}

impl SourceConfig {
    /// Opens the data set: reads its list of samples, but no image.
    ///
    /// Errors: a missing file, folder or column, a file without rows, a number out of its range.
    pub fn open(&self) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::Emoji(config) => Box::new(EmojiSource::new(config)),
            Self::Shapes(config) => Box::new(ShapesSource::new(config)?),
            Self::Csv(config) => Box::new(TableSource::open(config, TableFormat::Csv)?),
            Self::Tsv(config) => Box::new(TableSource::open(config, TableFormat::Tsv)?),
            Self::Jsonl(config) => Box::new(TableSource::open(config, TableFormat::Jsonl)?),
            Self::Folder(config) => Box::new(FolderSource::open(config)?),
            Self::Webdataset(config) => config.open()?,
            Self::Mix(config) => config.open()?,
        })
    }
}
