//! A sample: an image with its texts.

use std::borrow::Cow;
use std::path::PathBuf;

use mm_image::{Augment, Reduced, RgbImage, decode, decode_reduced};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::shapes::Drawing;
use crate::{Error, Fault, Result};

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
    /// The key of the sample that this one is a variation of (an emoji with a chosen skin tone: the one
    /// without), so that evaluation can tell near twins from other pairs.
    pub variant_of: Option<String>,
    /// What of the sample could not be read and is not needed: it is whole without it.
    pub warning: Option<String>,
}

impl Sample {
    /// A sample that is nothing but an image: `Sample { captions, ..Sample::new(key, image) }` adds to it.
    pub fn new(key: impl Into<String>, image: SampleImage) -> Self {
        let key = key.into();
        Self {
            key,
            image,
            captions: Vec::new(),
            label: None,
            questions: Vec::new(),
            variant_of: None,
            warning: None,
        }
    }
}

/// A question about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

    /// How many encoded bytes are at hand without reading, for the rate that is told of.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            Self::Static(bytes) => bytes.len() as u64,
            Self::File(path) => path.metadata().map_or(0, |file| file.len()),
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Drawn(_) => 0,
        }
    }

    /// The pixels, with transparent ones over `background`. Errors: those of [`bytes`](Self::bytes) and
    /// [`decode`](mm_image::decode()).
    pub fn decode(&self, background: [u8; 3]) -> Result<RgbImage> {
        match self {
            Self::Drawn(drawing) => Ok(drawing.render()),
            encoded => Ok(decode(&encoded.bytes()?, background)?),
        }
    }

    /// As [`decode`](Self::decode), but at a fraction of the size where `largest` allows it: see
    /// [`decode_reduced`].
    pub fn decode_reduced(
        &self,
        background: [u8; 3],
        largest: impl FnOnce(u32, u32) -> u32,
    ) -> Result<Reduced<'static>> {
        match self {
            Self::Drawn(drawing) => {
                let pixels = drawing.render();
                largest(pixels.width(), pixels.height());
                Ok(Reduced::full_size(Cow::Owned(pixels)))
            }
            encoded => Ok(decode_reduced(&encoded.bytes()?, background, largest)?),
        }
    }

    /// Decodes and augments the image: see [`Augment::decode_and_apply`]. `size` is the side of the result in
    /// pixels.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn augmented(
        &self,
        augment: &Augment,
        background: [u8; 3],
        size: u32,
        rng: &mut impl Rng,
    ) -> Result<RgbImage> {
        match self {
            Self::Drawn(drawing) => Ok(augment.apply(&drawing.render(), size, rng)),
            encoded => Ok(augment.decode_and_apply(&encoded.bytes()?, background, size, rng)?),
        }
    }
}

/// A sample that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadSample {
    /// The source.
    pub source: String,
    /// Its key: with its shard, if it has one.
    pub key: String,
    /// What kind of fault it has.
    pub fault: Fault,
    /// What is wrong with it, in words.
    pub reason: String,
}
