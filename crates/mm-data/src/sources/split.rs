//! A part of any data set, held out by image or by group.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sources::splits::{check_share, hash, is_held_out};
use crate::sources::wrapped::{open_indexed, read};
use crate::{Dataset, DatasetConfig, Error, Result, Sample, SampleImage};

/// The training part or the held-out part of a data set. The part of a sample follows from a hash of its
/// image or group, so no image or group is in both. In the config:
///
/// ```
/// let config: mm_data::DatasetConfig = toml::from_str(r#"
///     kind = "split"
///     split = "held_out"
///     held_out = 0.25
///     by = "key"
///     of = { kind = "emoji" }
/// "#)?;
/// assert!((800..1000).contains(&config.open()?.len())); // of 3,550
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Opening the data set reads each sample once. A sample that cannot be read is in both parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The data set. It has random access, and is not a mix.
    pub of: Box<DatasetConfig>,
    /// The part.
    #[serde(default)]
    pub split: SplitPart,
    /// The share of images or groups in the held-out part, above 0 and below 1.
    #[serde(default = "held_out")]
    pub held_out: f64,
    /// What no two parts share.
    #[serde(default)]
    pub by: SplitBy,
}

fn held_out() -> f64 {
    0.1
}

/// A part of a [`SplitConfig`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitPart {
    /// All but the held-out part.
    #[default]
    Train,
    /// The held-out part.
    HeldOut,
}

/// What the parts of a [`SplitConfig`] do not share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Images: the last two parts of the path of a file, `train2014/a.jpg`; the bytes of an image that is in
    /// memory; the key of a sample that is drawn or has no image.
    #[default]
    Image,
    /// [`Sample::group`]: patients, cases, articles.
    Group,
    /// Keys.
    Key,
}

/// # Errors
/// `held_out` is out of its range, the data set cannot be opened, a sample has no group to split by, or the
/// part has no sample that can be read.
pub(crate) fn open(config: &SplitConfig) -> Result<Split> {
    let SplitConfig { of, split, held_out, by } = config;
    check_share("held_out", *held_out)?;
    let dataset = open_indexed("split", of)?;
    let mut indices = Vec::new();
    let mut readable = 0;
    for index in 0..dataset.len() {
        match read(&*dataset, index) {
            Err(_) => indices.push(index),
            Ok(sample) => {
                let unit = unit(*by, &sample).ok_or_else(|| {
                    let (name, key) = (dataset.name(), &sample.key);
                    Error::Setting(format!(
                        "by = \"group\": sample {key} of `{name}` has no group: split by \"image\" or \"key\""
                    ))
                })?;
                if is_held_out(&unit, *held_out) == (*split == SplitPart::HeldOut) {
                    indices.push(index);
                    readable += 1;
                }
            }
        }
    }
    let part = match split {
        SplitPart::Train => "train",
        SplitPart::HeldOut => "held out",
    };
    let name = format!("{} ({part})", dataset.name());
    if readable == 0 {
        return Err(Error::Empty { name, hint: format!("held_out = {held_out} leaves none in this part") });
    }
    Ok(Split { name, dataset, indices })
}

/// The name of what is in one part; `None` where there is no group.
fn unit(by: SplitBy, sample: &Sample) -> Option<String> {
    let image = || match sample.images.first()? {
        SampleImage::File(path) => Some(last_two(path)),
        // All frames of a file are of one patient.
        SampleImage::Dicom(frame) => Some(last_two(&frame.path)),
        SampleImage::Memory(bytes) => Some(hash(0, bytes).to_string()),
        SampleImage::Static(bytes) => Some(hash(0, bytes).to_string()),
        SampleImage::Drawn(_) => None,
    };
    match by {
        SplitBy::Image => Some(image().unwrap_or_else(|| sample.key.clone())),
        SplitBy::Group => sample.group.clone(),
        SplitBy::Key => Some(sample.key.clone()),
    }
}

/// The last two parts of a path: a data set that is moved keeps its split, and SLAKE's files are all named
/// `source.jpg`.
fn last_two(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// A part of a data set.
pub(crate) struct Split {
    name: String,
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Dataset for Split {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.dataset.sample(self.indices[index])
    }

    fn key(&self, index: usize) -> String {
        self.dataset.key(self.indices[index])
    }

    fn location(&self, index: usize) -> String {
        self.dataset.location(self.indices[index])
    }

    fn credit(&self) -> &str {
        self.dataset.credit()
    }
}
