//! The data set tables of the config.

use serde::{Deserialize, Serialize};

use crate::sources::balanced::{self, BalancedConfig};
use crate::sources::chartqa::{self, ChartQaConfig};
use crate::sources::chat::{ChatConfig, ChatDataset};
use crate::sources::clevr::{self, ClevrConfig};
use crate::sources::coco::{self, CocoConfig};
use crate::sources::cord::{CordConfig, CordDataset};
use crate::sources::dicom::{DicomConfig, DicomDataset};
use crate::sources::docvqa::{self, DocVqaConfig};
use crate::sources::easy_vqa::{self, EasyVqaConfig};
use crate::sources::emoji::{EmojiConfig, EmojiDataset};
use crate::sources::flickr::{self, FlickrConfig};
use crate::sources::folder::{FolderConfig, FolderDataset};
use crate::sources::gqa::{self, GqaConfig};
use crate::sources::invoices::{self, InvoicesConfig};
use crate::sources::karpathy::{self, KarpathyConfig};
use crate::sources::mix::MixConfig;
use crate::sources::pairs::{PairsConfig, PairsDataset};
use crate::sources::parquet::{ParquetConfig, ParquetDataset};
use crate::sources::pmc_vqa::{self, PmcVqaConfig};
use crate::sources::pope::{self, PopeConfig};
use crate::sources::prompts::{PromptsConfig, PromptsDataset};
use crate::sources::shapes::{ShapesConfig, ShapesDataset};
use crate::sources::slake::{self, SlakeConfig};
use crate::sources::split::{self, SplitConfig};
use crate::sources::table::{TableConfig, TableDataset, TableFormat};
use crate::sources::vqa::{VqaConfig, VqaDataset};
use crate::sources::vqa_rad::{self, VqaRadConfig};
use crate::sources::webdataset::WebDatasetConfig;
use crate::{Dataset, Result};

/// A data set table of the config: `kind` selects the reader, which defines the other keys.
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
    /// The embedded emoji set.
    Emoji(EmojiConfig),
    /// The embedded shapes set.
    Shapes(ShapesConfig),
    /// Drawn pages of invoices with exact targets.
    Invoices(InvoicesConfig),
    /// A file of comma-separated values with a header line.
    Csv(TableConfig),
    /// A file of tab-separated values with a header line.
    Tsv(TableConfig),
    /// One JSON object a line.
    Jsonl(TableConfig),
    /// A folder of images, with one folder for each class or caption files beside the images.
    Folder(FolderConfig),
    /// A folder of DICOM files, such as X-ray images and CT slices.
    Dicom(DicomConfig),
    /// COCO captions.
    Coco(CocoConfig),
    /// Karpathy's splits of COCO, Flickr30k or Flickr8k.
    Karpathy(KarpathyConfig),
    /// Flickr30k's own captions.
    Flickr30k(FlickrConfig),
    /// VQA v2 questions, with or without their answers.
    VqaV2(VqaConfig),
    /// easy-VQA's questions about simple shapes.
    EasyVqa(EasyVqaConfig),
    /// GQA's questions about photographs.
    Gqa(GqaConfig),
    /// CLEVR's questions about rendered scenes.
    Clevr(ClevrConfig),
    /// POPE's yes/no questions about objects.
    Pope(PopeConfig),
    /// VQA-RAD's questions about radiology images.
    VqaRad(VqaRadConfig),
    /// SLAKE's questions about radiology images.
    Slake(SlakeConfig),
    /// PMC-VQA's multiple-choice questions about figures of medical articles.
    PmcVqa(PmcVqaConfig),
    /// DocVQA's questions about scanned pages.
    #[serde(rename = "docvqa")]
    DocVqa(DocVqaConfig),
    /// ChartQA's questions about charts.
    #[serde(rename = "chartqa")]
    ChartQa(ChartQaConfig),
    /// Conversations about images.
    Chat(ChatConfig),
    /// Pages with the JSON that they say, as CORD and Donut's data sets.
    Cord(CordConfig),
    /// Parquet files with images inside, as Hugging Face `datasets` writes them.
    Parquet(ParquetConfig),
    /// WebDataset tar shards.
    Webdataset(WebDatasetConfig),
    /// Prompts without images, one a line.
    Prompts(PromptsConfig),
    /// Edits and preferences: rows with two images.
    Pairs(PairsConfig),
    /// Several data sets, mixed by weight.
    Mix(MixConfig),
    /// A data set with its answers or labels balanced.
    Balanced(BalancedConfig),
    /// The training part or the held-out part of a data set.
    Split(SplitConfig),
}

impl DatasetConfig {
    /// Opens the data set: reads the list of its samples, but no image.
    ///
    /// # Errors
    /// A missing file, folder or column, a file without rows, a setting out of its range.
    pub fn open(&self) -> Result<Box<dyn Dataset>> {
        Ok(match self {
            Self::Emoji(config) => Box::new(EmojiDataset::new(config)),
            Self::Shapes(config) => Box::new(ShapesDataset::new(config)?),
            Self::Invoices(config) => invoices::open(config)?,
            Self::Csv(config) => Box::new(TableDataset::open(config, TableFormat::Csv)?),
            Self::Tsv(config) => Box::new(TableDataset::open(config, TableFormat::Tsv)?),
            Self::Jsonl(config) => Box::new(TableDataset::open(config, TableFormat::Jsonl)?),
            Self::Folder(config) => Box::new(FolderDataset::open(config)?),
            Self::Dicom(config) => Box::new(DicomDataset::open(config)?),
            Self::Coco(config) => Box::new(coco::open(config)?),
            Self::Karpathy(config) => Box::new(karpathy::open(config)?),
            Self::Flickr30k(config) => Box::new(flickr::open(config)?),
            Self::VqaV2(config) => Box::new(VqaDataset::open(config)?),
            Self::EasyVqa(config) => Box::new(easy_vqa::open(config)?),
            Self::Gqa(config) => Box::new(gqa::open(config)?),
            Self::Clevr(config) => Box::new(clevr::open(config)?),
            Self::Pope(config) => Box::new(pope::open(config)?),
            Self::VqaRad(config) => Box::new(vqa_rad::open(config)?),
            Self::Slake(config) => Box::new(slake::open(config)?),
            Self::PmcVqa(config) => Box::new(pmc_vqa::open(config)?),
            Self::DocVqa(config) => Box::new(docvqa::open(config)?),
            Self::ChartQa(config) => Box::new(chartqa::open(config)?),
            Self::Chat(config) => Box::new(ChatDataset::open(config)?),
            Self::Cord(config) => Box::new(CordDataset::open(config)?),
            Self::Parquet(config) => Box::new(ParquetDataset::open(config)?),
            Self::Webdataset(config) => config.open()?,
            Self::Prompts(config) => Box::new(PromptsDataset::open(config)?),
            Self::Pairs(config) => Box::new(PairsDataset::open(config)?),
            Self::Mix(config) => Box::new(config.open()?),
            Self::Balanced(config) => Box::new(balanced::open(config)?),
            Self::Split(config) => Box::new(split::open(config)?),
        })
    }
}

/// Deserializes a single value or a list as a list.
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
