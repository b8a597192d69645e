//! A sample, and the trait of what has samples.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use image::RgbImage;

use crate::shapes::Drawing;
use crate::{Error, Result, decode};

/// One image with its texts, as it lies in the data set: nothing is decoded yet.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of the sample in logs and result files, unique in its source.
    pub key: String,
    /// The image.
    pub image: SampleImage,
    /// All texts of the image; the first is the canonical one, which evaluation uses.
    pub captions: Vec<String>,
    /// The class: folder name, emoji group or label column.
    pub label: Option<String>,
    /// Questions about the image.
    pub questions: Vec<Question>,
    /// The key of the sample that this one is a variation of (an emoji with a chosen skin tone: the one without),
    /// so that evaluation can tell near twins from other pairs.
    pub variant_of: Option<String>,
}

impl Sample {
    /// A sample that is nothing but an image: `Sample { captions, ..Sample::new(key, image) }` adds to it.
    pub fn new(key: impl Into<String>, image: SampleImage) -> Self {
        let key = key.into();
        Self { key, image, captions: Vec::new(), label: None, questions: Vec::new(), variant_of: None }
    }
}

/// A question about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The number that result files name it by.
    pub id: u64,
    /// The question.
    pub text: String,
    /// What people answered, all of them, most agreed on or not; empty where answers are kept back.
    pub answers: Vec<String>,
    /// What sort of answer is asked for, in the data set's own words: `yes/no`, `number`, `count`.
    pub kind: Option<String>,
}

/// Where an image is.
#[derive(Debug, Clone)]
pub enum SampleImage {
    /// Encoded, in the program itself.
    Static(&'static [u8]),
    /// Encoded, in a file, which is read when asked for.
    File(PathBuf),
    /// Encoded, in memory.
    Memory(Vec<u8>),
    /// Not yet anywhere: drawn when asked for.
    Drawn(Box<Drawing>),
}

impl SampleImage {
    /// The encoded bytes; a drawing as PNG. Errors: a file that cannot be read.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Static(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => std::fs::read(path).map(Cow::Owned).map_err(Error::io(path)),
            Self::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Drawn(drawing) => drawing.png().map(Cow::Owned),
        }
    }

    /// The pixels, with transparent ones over `background`. Errors: those of [`bytes`](Self::bytes) and [`decode`].
    pub fn decode(&self, background: [u8; 3]) -> Result<RgbImage> {
        match self {
            Self::Drawn(drawing) => Ok(drawing.render()),
            encoded => decode(&encoded.bytes()?, background),
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

    /// How many consecutive samples lie together and are best read one after the other, block by block to the end of the
    /// source; none where samples lie anywhere. Shuffling keeps blocks together, as far as its window goes.
    fn blocks(&self) -> Option<Vec<u32>> {
        None
    }

    /// Tells that these samples, a block or a part of one, are read soon.
    fn will_need(&self, indices: Range<usize>) {
        let _ = indices;
    }
}
