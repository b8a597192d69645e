//! The Image Pixel module (PS3.3 section C.7.6.3) and the frames that it describes.

use std::borrow::Cow;
use std::ops::Range;

use mm_image::MAX_PIXELS;

use super::dataset::{Attributes, DataSet, Value, named};
use super::tags::{self, Tag};
use super::transfer_syntax::PixelCoding;
use super::{codec, undecodable};
use crate::Result;

/// The layout of the stored pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// Samples per pixel: 1 or 3.
    pub(super) samples: usize,
    pub(super) frames: usize,
    /// 1, 8, 16, 32 or 64.
    pub(super) bits_allocated: u32,
    /// The low bits of a sample that are used.
    pub(super) bits_stored: u32,
    pub(super) is_signed: bool,
    pub(super) is_float: bool,
    /// Whether a frame has all red samples first, then all green and all blue ones.
    pub(super) is_planar: bool,
    pub(super) photometric: Photometric,
}

/// The colour space of the stored pixels (PS3.3 section C.7.6.3.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    /// The lowest value is white.
    Monochrome1,
    /// The lowest value is black.
    Monochrome2,
    Palette,
    Rgb,
    /// Luma and chroma over the full range.
    Ybr,
    /// As `Ybr`; uncompressed, two pixels share their chroma.
    Ybr422,
}

/// The samples of one frame, as stored.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// Samples in the order of the pixels, each in `width` bytes.
    pub(super) bytes: Cow<'a, [u8]>,
    /// The bytes of a sample: 1, 2, 4 or 8.
    pub(super) width: usize,
    pub(super) big_endian: bool,
    /// The low bits of a sample that are used.
    pub(super) bits: u32,
    pub(super) is_planar: bool,
    pub(super) photometric: Photometric,
}

impl Layout {
    /// Reads the layout, and checks that it is supported and not too large.
    ///
    /// # Errors
    /// A missing attribute, no pixel data, an unsupported value, a frame of more than
    /// [`MAX_PIXELS`](mm_image::MAX_PIXELS) samples, less uncompressed pixel data than the frames need.
    pub(super) fn read(data_set: &DataSet) -> Result<Self> {
        let root = &data_set.root;
        let (tag, is_float) = pixel_data(root)?;
        let number = |tag: Tag, name: &str| {
            let value = data_set.words(root, tag).and_then(|words| words.first().copied());
            value.ok_or_else(|| undecodable(format!("the attribute {name} {} is missing", named(tag))))
        };
        let photometric = match data_set.text(root, tags::PHOTOMETRIC_INTERPRETATION) {
            Some(name) => Photometric::of(&name)?,
            None => {
                return Err(undecodable("the attribute Photometric Interpretation (0028,0004) is missing"));
            }
        };
        let optional = |tag| number(tag, "").unwrap_or(0);
        let bits_allocated = number(tags::BITS_ALLOCATED, "Bits Allocated")?.into();
        let layout = Self {
            rows: number(tags::ROWS, "Rows")?.into(),
            columns: number(tags::COLUMNS, "Columns")?.into(),
            samples: number(tags::SAMPLES_PER_PIXEL, "Samples per Pixel").unwrap_or(1).into(),
            frames: frames(data_set)?,
            bits_allocated,
            bits_stored: number(tags::BITS_STORED, "").map_or(bits_allocated, u32::from),
            is_signed: optional(tags::PIXEL_REPRESENTATION) == 1,
            is_float,
            is_planar: optional(tags::PLANAR_CONFIGURATION) == 1,
            photometric,
        };
        layout.check(data_set.syntax.pixels)?;
        if let Some(Value::Bytes(range)) = root.get(tag).map(|element| &element.value) {
            layout.check_length(range.len())?;
        }
        Ok(layout)
    }

    fn check(&self, coding: PixelCoding) -> Result<()> {
        let Self { rows, columns, samples, bits_allocated, bits_stored, .. } = *self;
        let expected = if self.photometric.is_colour() { 3 } else { 1 };
        if samples != expected {
            let photometric = self.photometric;
            return Err(undecodable(format!("{samples} samples per pixel do not go with {photometric:?}")));
        }
        if rows == 0 || columns == 0 {
            return Err(undecodable(format!("{columns} x {rows} pixels")));
        }
        if self.frame_samples() as u64 > MAX_PIXELS {
            return Err(undecodable(format!(
                "rows x columns x samples, {rows} x {columns} x {samples}, are more than {MAX_PIXELS}"
            )));
        }
        let is_known = match (self.is_float, coding) {
            (true, _) => matches!(bits_allocated, 32 | 64),
            (false, PixelCoding::Native) => matches!(bits_allocated, 1 | 8 | 16 | 32),
            (false, PixelCoding::Rle) => matches!(bits_allocated, 8 | 16 | 32),
            (false, PixelCoding::Jpeg | PixelCoding::Jpeg2000) => matches!(bits_allocated, 8 | 16),
        };
        let is_eight_bit_colour = matches!(self.photometric, Photometric::Ybr | Photometric::Ybr422);
        if !is_known || bits_stored == 0 || bits_stored > bits_allocated {
            return Err(undecodable(format!(
                "{bits_stored} bits stored of {bits_allocated} are not supported"
            )));
        }
        if is_eight_bit_colour && bits_allocated != 8 {
            return Err(undecodable(format!("YBR colours of {bits_allocated} bits are not supported")));
        }
        Ok(())
    }

    /// Checks that uncompressed pixel data holds all frames.
    fn check_length(&self, length: usize) -> Result<()> {
        let needed = (self.native_bits() as u128 * self.frames as u128).div_ceil(8);
        if needed > length as u128 {
            let Self { frames, rows, columns, samples, bits_allocated, .. } = self;
            return Err(undecodable(format!(
                "frames x rows x columns x samples, {frames} x {rows} x {columns} x {samples} of \
                 {bits_allocated} bits, are {needed} bytes, but the pixel data has {length}: the file is \
                 truncated or damaged"
            )));
        }
        Ok(())
    }

    /// The number of pixels of a frame.
    pub(super) fn frame_pixels(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// The number of samples of a decoded frame.
    pub(super) fn frame_samples(&self) -> usize {
        self.frame_pixels() * self.samples
    }

    /// The bits of an uncompressed frame.
    fn native_bits(&self) -> usize {
        let samples = match self.photometric {
            Photometric::Ybr422 => 2 * self.frame_pixels(),
            _ => self.frame_samples(),
        };
        samples * self.bits_allocated as usize
    }

    /// The bytes of a stored sample.
    pub(super) fn sample_bytes(&self) -> usize {
        (self.bits_allocated as usize).div_ceil(8)
    }
}

/// The attribute that has the pixels, and whether they are floats.
fn pixel_data(root: &Attributes) -> Result<(Tag, bool)> {
    let choices =
        [(tags::PIXEL_DATA, false), (tags::FLOAT_PIXEL_DATA, true), (tags::DOUBLE_FLOAT_PIXEL_DATA, true)];
    choices.into_iter().find(|(tag, _)| root.get(*tag).is_some()).ok_or_else(|| {
        undecodable("the file has no pixel data: it is a report, a plan or another object without an image")
    })
}

/// The number of frames, 1 where the attribute is missing.
pub(super) fn frames(data_set: &DataSet) -> Result<usize> {
    match data_set.text(&data_set.root, tags::NUMBER_OF_FRAMES) {
        None => Ok(1),
        Some(text) => match text.parse() {
            Ok(frames @ 1..) => Ok(frames),
            // Single images in the wild have a zero here.
            Ok(0) => Ok(1),
            Err(_) => Err(undecodable(format!("the Number of Frames (0028,0008) is `{text}`"))),
        },
    }
}

impl Photometric {
    fn of(name: &str) -> Result<Self> {
        Ok(match name {
            "MONOCHROME1" => Self::Monochrome1,
            "MONOCHROME2" => Self::Monochrome2,
            "PALETTE COLOR" => Self::Palette,
            // The JPEG 2000 decoder inverts these two transforms.
            "RGB" | "YBR_ICT" | "YBR_RCT" => Self::Rgb,
            "YBR_FULL" => Self::Ybr,
            "YBR_FULL_422" => Self::Ybr422,
            other => {
                return Err(undecodable(format!(
                    "the Photometric Interpretation `{other}` is not supported"
                )));
            }
        })
    }

    /// The colour space once every pixel has its own chroma.
    pub(super) fn expanded(self) -> Self {
        if self == Self::Ybr422 { Self::Ybr } else { self }
    }

    /// Whether a pixel has three samples.
    pub(super) fn is_colour(self) -> bool {
        matches!(self, Self::Rgb | Self::Ybr | Self::Ybr422)
    }
}

/// The stored samples of a frame, decompressed.
///
/// # Errors
/// Compressed data that is corrupt, or not of the size that the layout says.
pub(super) fn frame<'d>(data_set: &'d DataSet, layout: &Layout, number: usize) -> Result<Frame<'d>> {
    let (tag, _) = pixel_data(&data_set.root)?;
    match data_set.root.get(tag).map(|element| &element.value) {
        Some(Value::Bytes(range)) if data_set.syntax.pixels == PixelCoding::Native => {
            let is_words = data_set.root.get(tag).and_then(|element| element.vr) == Some(*b"OW");
            Ok(native(&data_set.bytes[range.clone()], data_set.syntax.big_endian, is_words, layout, number))
        }
        Some(Value::Fragments(fragments)) if data_set.syntax.pixels != PixelCoding::Native => {
            let pieces = codec::fragments_of_frame(&data_set.bytes, fragments, layout.frames, number)?;
            codec::decode(data_set.syntax.pixels, &joined(&data_set.bytes, pieces), layout)
        }
        _ => Err(undecodable("the pixel data is not encoded as the transfer syntax says")),
    }
}

/// The bytes of all pieces, copied only where there are several.
fn joined<'d>(bytes: &'d [u8], pieces: &[Range<usize>]) -> Cow<'d, [u8]> {
    match pieces {
        [piece] => Cow::Borrowed(&bytes[piece.clone()]),
        pieces => Cow::Owned(pieces.iter().flat_map(|piece| &bytes[piece.clone()]).copied().collect()),
    }
}

/// A frame of uncompressed pixel data, which has the length for it.
fn native<'d>(data: &'d [u8], big_endian: bool, is_words: bool, layout: &Layout, number: usize) -> Frame<'d> {
    let bits = layout.native_bits();
    let start = number * bits;
    let bytes = if layout.bits_allocated == 1 {
        let bit = |at: usize| data[at / 8] >> (at % 8) & 1;
        Cow::Owned((start..start + bits).map(bit).collect())
    } else if layout.bits_allocated == 8 && big_endian && is_words {
        // Bytes in big-endian words are swapped in pairs.
        let byte = |at: usize| data.get(at ^ 1).or(data.get(at)).copied().unwrap_or(0);
        Cow::Owned((start / 8..(start + bits) / 8).map(byte).collect())
    } else {
        Cow::Borrowed(&data[start / 8..(start + bits) / 8])
    };
    let is_subsampled = layout.photometric == Photometric::Ybr422;
    let bytes = if is_subsampled { Cow::Owned(with_chroma_repeated(&bytes)) } else { bytes };
    Frame {
        bytes,
        width: layout.sample_bytes(),
        big_endian,
        bits: layout.bits_stored,
        is_planar: layout.is_planar && !is_subsampled,
        photometric: layout.photometric.expanded(),
    }
}

/// YBR_FULL_422 has two lumas and then the chroma of both pixels.
fn with_chroma_repeated(bytes: &[u8]) -> Vec<u8> {
    bytes.as_chunks().0.iter().flat_map(|&[y0, y1, cb, cr]| [y0, cb, cr, y1, cb, cr]).collect()
}

impl Frame<'_> {
    /// The samples as numbers: unused bits are ignored, and signed samples are extended. Floats are rounded
    /// to `f32`, integers are exact up to 24 bits.
    pub(super) fn values(&self, layout: &Layout) -> Vec<f32> {
        let big = self.big_endian;
        let unused = 64 - self.bits;
        let number = |raw: u64| {
            if layout.is_signed {
                (((raw << unused) as i64) >> unused) as f32
            } else {
                ((raw << unused) >> unused) as f32
            }
        };
        let bytes = &*self.bytes;
        match (self.width, layout.is_float) {
            (1, _) => bytes.iter().map(|byte| number(u64::from(*byte))).collect(),
            (2, _) => words(bytes)
                .map(|raw| number(u64::from(swapped(u16::from_le_bytes(raw), big, u16::swap_bytes))))
                .collect(),
            (4, false) => words(bytes)
                .map(|raw| number(u64::from(swapped(u32::from_le_bytes(raw), big, u32::swap_bytes))))
                .collect(),
            (4, true) => words(bytes)
                .map(|raw| f32::from_bits(swapped(u32::from_le_bytes(raw), big, u32::swap_bytes)))
                .collect(),
            _ => words(bytes)
                .map(|raw| f64::from_bits(swapped(u64::from_le_bytes(raw), big, u64::swap_bytes)) as f32)
                .collect(),
        }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks().0.iter().copied()
}

fn swapped<T>(little: T, big_endian: bool, swap: fn(T) -> T) -> T {
    if big_endian { swap(little) } else { little }
}
