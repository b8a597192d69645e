//! Decoders of compressed frames.
//!
//! The codecs are called here and not through `dicom-pixeldata`: its adapters allocate for the size that a
//! codestream declares, panic where that differs from the data set's, and read signed JPEG 2000 samples as
//! unsigned. Here the size is compared first, and a panic of a codec is an error of the frame.

mod jpeg;
mod jpeg2000;
mod rle;

use std::ops::Range;

use super::pixels::{Frame, Layout};
use super::transfer_syntax::PixelCoding;
use super::undecodable;
use crate::{Error, Result};

/// Frames of up to this number of samples may be compressed to any degree.
const ANY_RATIO_SAMPLES: usize = 1 << 24;
/// The limit on the samples for each byte of a larger frame. JPEG of a blank image has 256, RLE 64.
const MAX_SAMPLES_PER_BYTE: usize = 1000;

/// Decodes the codestream of one frame.
///
/// # Errors
/// A corrupt codestream, one whose size is not that of the layout, or one that is too short for it.
pub(super) fn decode(coding: PixelCoding, codestream: &[u8], layout: &Layout) -> Result<Frame<'static>> {
    let (samples, length) = (layout.frame_samples(), codestream.len());
    if samples > ANY_RATIO_SAMPLES && samples / MAX_SAMPLES_PER_BYTE > length {
        return Err(undecodable(format!(
            "a compressed frame of {length} bytes is too short for {samples} samples"
        )));
    }
    Error::guarded(|| match coding {
        PixelCoding::Rle => rle::decode(codestream, layout),
        PixelCoding::Jpeg => jpeg::decode(codestream, layout),
        PixelCoding::Jpeg2000 => jpeg2000::decode(codestream, layout),
        PixelCoding::Native => Err(undecodable("uncompressed pixel data is in fragments")),
    })
}

/// The fragments of a frame: those between two offsets of the basic offset table, else one a frame, else
/// those from one start of a codestream to the next.
///
/// # Errors
/// The fragments cannot be assigned to the frames.
pub(super) fn fragments_of_frame<'f>(
    bytes: &[u8],
    fragments: &'f [Range<usize>],
    frames: usize,
    number: usize,
) -> Result<&'f [Range<usize>]> {
    let Some((table, fragments)) = fragments.split_first() else {
        return Err(undecodable("the pixel data has no fragments"));
    };
    let missing = || {
        let count = fragments.len();
        undecodable(format!(
            "frame {number} of {frames} is not in the {count} fragments of the pixel data: the file is \
             truncated or damaged"
        ))
    };
    if frames == 1 {
        return if fragments.is_empty() { Err(missing()) } else { Ok(fragments) };
    }
    if fragments.len() == frames {
        return Ok(&fragments[number..=number]);
    }
    let offsets: Vec<usize> = bytes[table.clone()]
        .as_chunks()
        .0
        .iter()
        .map(|offset| u32::from_le_bytes(*offset) as usize)
        .collect();
    // Offsets count from the header of the first fragment, which is eight bytes long.
    let first = fragments.first().map_or(0, |fragment| fragment.start);
    let starts: Vec<usize> = if offsets.len() == frames {
        let at = |offset: &usize| fragments.iter().position(|fragment| fragment.start - first == *offset);
        offsets.iter().filter_map(at).collect()
    } else {
        let is_start = |fragment: &Range<usize>| {
            matches!(bytes[fragment.clone()], [0xff, 0xd8, ..] | [0xff, 0x4f, 0xff, 0x51, ..])
        };
        (0..fragments.len()).filter(|index| is_start(&fragments[*index])).collect()
    };
    if starts.len() != frames {
        return Err(missing());
    }
    let end = starts.get(number + 1).copied().unwrap_or(fragments.len());
    fragments.get(starts[number]..end).filter(|pieces| !pieces.is_empty()).ok_or_else(missing)
}

/// Checks that a codestream has the size of the layout, before its pixels are decoded.
fn check_size(layout: &Layout, width: u32, height: u32, components: usize) -> Result<()> {
    let Layout { rows, columns, samples, .. } = *layout;
    if (width, height, components) == (columns, rows, samples) {
        return Ok(());
    }
    Err(undecodable(format!(
        "the compressed frame is {height} x {width} x {components} (rows x columns x samples), but the data \
         set says {rows} x {columns} x {samples}"
    )))
}
