//! A sample: images with their texts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::PathBuf;
use std::sync::Arc;

use mm_image::image::ImageFormat;
use mm_image::{Augment, Header, Reduced, RgbImage, decode, decode_reduced};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::dicom::{self, DicomFrame, DicomImage, Window};
use crate::shapes::Scene;
use crate::{Document, Error, Fault, Message, Result, SampleRng};

/// A sample of a data set. Images are encoded, in a file or in memory: nothing is decoded yet.
///
/// Most samples have one image. A prompt has none. An edit has the image before and the image after, in this
/// order, with an [`instruction`](Self::instruction). A preference pair has two images for the prompt in
/// `captions[0]`, with [`preferred`](Self::preferred).
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The name of the sample in logs and result files, unique in its data set.
    pub key: String,
    /// The images.
    pub images: Vec<SampleImage>,
    /// How much each pixel of the image that is learned counts in training, of the same size: white counts,
    /// black does not.
    pub mask: Option<SampleImage>,
    /// The captions of the image. The first one is canonical: evaluation uses it. For an edit that has
    /// captions: that of the image before and that of the image after.
    pub captions: Vec<String>,
    /// Hard negatives: false captions, each close to a true one.
    pub negatives: Vec<NegativeCaption>,
    /// The class: folder name, emoji group or label column.
    pub label: Option<String>,
    /// Questions about the image.
    pub questions: Vec<Question>,
    /// The instruction that turns the first image into the second, in the imperative.
    pub instruction: Option<String>,
    /// The probability that the first of two images is preferred: 1 or 0 for a clear preference, 0.5 for a
    /// tie.
    pub preferred: Option<f32>,
    /// The key of the sample that this one is a variant of (for an emoji with a skin tone, the one without),
    /// so that evaluation can tell near duplicates apart from other pairs.
    pub variant_of: Option<String>,
    /// The patient, case or document that the sample is from: samples of one group belong into one split.
    pub group: Option<String>,
    /// The scene graph of the image, against which captions can be judged. [`shapes`](crate::shapes) has it,
    /// except for edits; shards do not store it.
    pub scene: Option<Arc<Scene>>,
    /// What the page says, for a reader of documents; shards do not store it.
    pub document: Option<Arc<Document>>,
    /// A conversation about the images, with a place for each of them in order; shards do not store it.
    pub messages: Vec<Message>,
    /// An optional part of the sample that could not be read. The sample is complete without it.
    pub warning: Option<String>,
}

impl Sample {
    /// A sample with one image and nothing else: `Sample { captions, ..Sample::new(key, image) }` adds to it.
    pub fn new(key: impl Into<String>, image: SampleImage) -> Self {
        Self { key: key.into(), images: vec![image], ..Self::default() }
    }

    /// The only image of the sample.
    ///
    /// # Errors
    /// [`Fault::NoImage`] where there is none, [`Fault::Other`] where there are several.
    pub fn image(&self) -> Result<&SampleImage> {
        match &self.images[..] {
            [image] => Ok(image),
            [] => Err(Error::bad(Fault::NoImage, "the sample has no image")),
            several => {
                let count = several.len();
                Err(Error::bad(Fault::Other, format!("the sample has {count} images where one is expected")))
            }
        }
    }

    /// The two images of an edit (before, after) or of a preference pair (first, second).
    ///
    /// # Errors
    /// [`Fault::NoImage`] where there are fewer than two, [`Fault::Other`] where there are more.
    pub fn image_pair(&self) -> Result<[&SampleImage; 2]> {
        match &self.images[..] {
            [first, second] => Ok([first, second]),
            images => {
                let (count, fault) =
                    (images.len(), if images.len() < 2 { Fault::NoImage } else { Fault::Other });
                Err(Error::bad(fault, format!("the sample has {count} images where two are expected")))
            }
        }
    }

    /// The canonical caption with probability `canonical_share`, else one of all; none where there is none.
    /// It draws the same numbers whatever the captions.
    pub fn draw_caption(&self, canonical_share: f64, rng: &mut SampleRng) -> Option<&str> {
        let (canonical, any) = (rng.random::<f64>() < canonical_share, rng.random::<f64>());
        let index = if canonical { 0 } else { (any * self.captions.len() as f64) as usize };
        self.captions.get(index).map(String::as_str)
    }

    /// The encoded bytes of all images that are known without reading them, for the reported data rate.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.images.iter().map(SampleImage::stored_bytes).sum()
    }
}

/// A false caption with the true caption that it is close to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegativeCaption {
    /// True of the image.
    pub positive: String,
    /// False of the image.
    pub negative: String,
    /// The kind of difference, in the data set's own words: `swapped_attributes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// A question about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The id of the question in result files.
    pub id: u64,
    /// The question.
    pub text: String,
    /// All given answers; empty where the data set withholds them.
    pub answers: Vec<String>,
    /// The type of the answer, in the data set's own words: `yes/no`, `number`, `count`. VQA v2's
    /// `answer_type`.
    pub kind: Option<String>,
    /// VQA v2's type of the question, its first words: `what color is the`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question_type: Option<String>,
    /// VQA v2's most frequent answer, the ground truth of its multiple-choice task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple_choice_answer: Option<String>,
    /// The options of a multiple-choice question, in order and without their letters; the right one is in
    /// `answers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// Other properties, in the data set's own words: `modality`, `location`, `semantic`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// An image that is drawn on demand instead of being stored.
pub trait Draw: fmt::Debug + Send + Sync {
    /// The pixels: the same at each call.
    fn draw(&self) -> RgbImage;

    /// The width and height of the pixels.
    fn dimensions(&self) -> (u32, u32) {
        self.draw().dimensions()
    }
}

/// The source of an image: encoded in one of the formats of [`decode`](mm_image::decode()) or in DICOM, of
/// which the first frame is shown with the file's first window.
#[derive(Debug, Clone)]
pub enum SampleImage {
    /// Encoded bytes in the program itself.
    Static(&'static [u8]),
    /// An encoded file, which is read on demand.
    File(PathBuf),
    /// Encoded bytes in memory.
    Memory(Vec<u8>),
    /// A frame of a DICOM file, which is read on demand.
    Dicom(DicomFrame),
    /// Drawn on demand.
    Drawn(Arc<dyn Draw>),
}

/// What a [`SampleImage`] gives when it is read.
enum Content<'a> {
    Encoded(Cow<'a, [u8]>),
    Pixels(RgbImage),
}

impl SampleImage {
    /// The encoded bytes; DICOM and drawings as PNG.
    ///
    /// # Errors
    /// The file cannot be read, DICOM cannot be decoded, or the drawing has no pixels.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match self.content()? {
            Content::Encoded(bytes) => Ok(bytes),
            Content::Pixels(pixels) => Ok(Cow::Owned(self.to_png(&pixels)?)),
        }
    }

    /// The image as PNG, whatever its own format.
    pub(crate) fn png_bytes(&self) -> Result<Vec<u8>> {
        match self.content()? {
            Content::Encoded(bytes) if Header::read(Cursor::new(&bytes))?.format == ImageFormat::Png => {
                Ok(bytes.into_owned())
            }
            Content::Encoded(bytes) => self.to_png(&decode(&bytes, [0; 3])?),
            Content::Pixels(pixels) => self.to_png(&pixels),
        }
    }

    fn to_png(&self, pixels: &RgbImage) -> Result<Vec<u8>> {
        let mut png = Cursor::new(Vec::new());
        pixels
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::bad(Fault::Image, format!("no PNG of {self:?}: {error}")))?;
        Ok(png.into_inner())
    }

    /// Width and height in pixels, with the EXIF orientation applied. Of an encoded image only the header is
    /// read: the rest may still be corrupt.
    ///
    /// # Errors
    /// The file cannot be read, or has no header of an image.
    pub fn dimensions(&self) -> Result<(u32, u32)> {
        let header = match self {
            Self::Drawn(drawing) => return Ok(drawing.dimensions()),
            Self::File(path) if !dicom::is_dicom_file(path) => {
                Header::read(BufReader::new(File::open(path).map_err(Error::io(path))?))?
            }
            _ => match self.content()? {
                Content::Pixels(pixels) => return Ok(pixels.dimensions()),
                Content::Encoded(bytes) => Header::read(Cursor::new(&bytes))?,
            },
        };
        Ok((header.width, header.height))
    }

    fn content(&self) -> Result<Content<'_>> {
        let bytes = match self {
            Self::Static(bytes) => Cow::Borrowed(*bytes),
            Self::File(path) => Cow::Owned(std::fs::read(path).map_err(Error::io(path))?),
            Self::Memory(bytes) => Cow::Borrowed(&bytes[..]),
            Self::Dicom(frame) => return frame.render().map(Content::Pixels),
            Self::Drawn(drawing) => return Ok(Content::Pixels(drawing.draw())),
        };
        let is_named_dicom = matches!(self, Self::File(path) if dicom::has_dicom_extension(path));
        if is_named_dicom || dicom::is_dicom(&bytes) {
            return DicomImage::parse(&bytes)?.render(0, Window::default()).map(Content::Pixels);
        }
        Ok(Content::Encoded(bytes))
    }

    /// The number of encoded bytes that is known without reading the image.
    fn stored_bytes(&self) -> u64 {
        match self {
            Self::Static(bytes) => bytes.len() as u64,
            Self::File(path) => path.metadata().map_or(0, |file| file.len()),
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Dicom(frame) => frame.path.metadata().map_or(0, |file| file.len()),
            Self::Drawn(_) => 0,
        }
    }

    /// The pixels, with transparent ones composited over `background`.
    ///
    /// # Errors
    /// The file cannot be read, and those of [`decode`](mm_image::decode()) and [`DicomImage`].
    pub fn decode(&self, background: [u8; 3]) -> Result<RgbImage> {
        match self.content()? {
            Content::Pixels(pixels) => Ok(pixels),
            Content::Encoded(bytes) => Ok(decode(&bytes, background)?),
        }
    }

    /// As [`decode`](Self::decode), but at a fraction of the size where `largest` allows it: see
    /// [`decode_reduced`].
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn decode_reduced(
        &self,
        background: [u8; 3],
        largest: impl FnOnce(u32, u32) -> u32,
    ) -> Result<Reduced<'static>> {
        match self.content()? {
            Content::Pixels(pixels) => {
                largest(pixels.width(), pixels.height());
                Ok(Reduced::full_size(Cow::Owned(pixels)))
            }
            Content::Encoded(bytes) => Ok(decode_reduced(&bytes, background, largest)?),
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
        match self.content()? {
            Content::Pixels(pixels) => Ok(augment.apply(&pixels, size, rng)),
            Content::Encoded(bytes) => Ok(augment.decode_and_apply(&bytes, background, size, rng)?),
        }
    }
}

/// A sample that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadSample {
    /// The name of the data set.
    pub source: String,
    /// The key of the sample, with its shard where there is one.
    pub key: String,
    /// The kind of fault.
    pub fault: Fault,
    /// The reason, for people.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_without_an_image_or_with_several_has_no_single_image() {
        let image = || SampleImage::Static(b"");
        let sample = |images: Vec<SampleImage>| Sample { images, ..Sample::default() };
        assert!(sample(vec![image()]).image().is_ok());
        assert_eq!(sample(vec![]).image().unwrap_err().fault(), Fault::NoImage);
        let message = sample(vec![image(), image()]).image().unwrap_err().to_string();
        assert_eq!(message, "the sample has 2 images where one is expected");
        assert!(sample(vec![image(), image()]).image_pair().is_ok());
        assert_eq!(sample(vec![image()]).image_pair().unwrap_err().fault(), Fault::NoImage);
        assert_eq!(sample(vec![image(), image(), image()]).image_pair().unwrap_err().fault(), Fault::Other);
    }
}
