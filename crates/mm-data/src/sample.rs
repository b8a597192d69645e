//! A sample, and the trait of what has samples.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::{Error, Result};

/// One image with its texts, as it lies in the data set: nothing is decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The name of the sample in logs and result files, unique in its source.
    pub key: String,
    /// The encoded image.
    pub image: ImageBytes,
    /// All texts of the image; the first is the canonical one, which evaluation uses.
    pub captions: Vec<String>,
    /// The class: folder name, emoji group or label column.
    pub label: Option<String>,
    /// The key of the sample that this one is a variation of (an emoji with a chosen skin tone: the one without),
    /// so that evaluation can tell near twins from other pairs.
    pub variant_of: Option<String>,
}

/// Where the encoded bytes of an image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageBytes {
    /// In the program itself.
    Static(&'static [u8]),
    /// In a file, which is read when asked for.
    File(PathBuf),
    /// In memory.
    Owned(Vec<u8>),
}

impl ImageBytes {
    /// The bytes. Errors: a file that cannot be read.
    pub fn read(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Static(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => std::fs::read(path).map(Cow::Owned).map_err(Error::io(path)),
            Self::Owned(bytes) => Ok(Cow::Borrowed(bytes)),
        }
    }
}

/// A data set: samples by number. The [`Loader`](crate::Loader) reads any of these.
pub trait Source: Send + Sync {
    /// The name for logs: the kind and the path.
    fn name(&self) -> &str;

    /// How many samples there are, bad ones included.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample of an index below [`len`](Self::len). Cheap: it decodes nothing.
    /// Errors: this sample is broken; the others may be whole.
    fn sample(&self, index: usize) -> Result<Sample>;
}
