//! JPEG: the baseline, extended (8 bits) and lossless processes.

use std::borrow::Cow;

use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

use super::check_size;
use crate::Result;
use crate::dicom::pixels::{Frame, Layout, Photometric};
use crate::dicom::undecodable;

/// Decodes a frame. Colours stay as they are stored: [`photometric`] says which they are.
///
/// # Errors
/// A corrupt codestream, one of another size, or a process that is not supported: 12 bits with loss,
/// arithmetic coding, hierarchical.
pub(super) fn decode(codestream: &[u8], layout: &Layout) -> Result<Frame<'static>> {
    let bad = |error| undecodable(format!("the JPEG of the frame: {error}"));
    let mut decoder = Decoder::new(codestream);
    decoder.set_max_decoding_buffer_size(8 * layout.frame_samples() + 4096);
    if layout.samples == 3 {
        // The samples as they are, whatever they mean. `ColorTransform::None` is not usable: it leaves rows
        // planar, and panics where blocks are wider than the image.
        decoder.set_color_transform(ColorTransform::RGB);
    }
    decoder.read_info().map_err(bad)?;
    let Some(info) = decoder.info() else {
        return Err(undecodable("the JPEG of the frame has no frame header"));
    };
    let (components, width) = match info.pixel_format {
        PixelFormat::L8 => (1, 1),
        PixelFormat::L16 => (1, 2),
        PixelFormat::RGB24 => (3, 1),
        PixelFormat::CMYK32 => (4, 1),
    };
    check_size(layout, info.width.into(), info.height.into(), components)?;
    let bytes = decoder.decode().map_err(bad)?;
    if bytes.len() != layout.frame_samples() * width {
        return Err(undecodable(format!("the JPEG of the frame has {} bytes of samples", bytes.len())));
    }
    Ok(Frame {
        bytes: Cow::Owned(bytes),
        width,
        // The decoder writes 16-bit samples in the order of the machine.
        big_endian: cfg!(target_endian = "big"),
        bits: layout.bits_stored.min(8 * width as u32),
        is_planar: false,
        photometric: photometric(codestream, layout),
    })
}

/// The colour space of the codestream, where its markers are clearer than the data set: component ids `RGB`,
/// a JFIF header (always YCbCr), Adobe's marker for YCbCr. As pydicom has it.
fn photometric(codestream: &[u8], layout: &Layout) -> Photometric {
    if layout.samples != 3 {
        return layout.photometric;
    }
    let mut photometric = layout.photometric.expanded();
    let mut rest = codestream.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(4..2 + length).unwrap_or_default();
        match (marker, body) {
            (0xe0, [b'J', b'F', b'I', b'F', ..]) => photometric = Photometric::Ybr,
            (0xee, [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, 1, ..]) => photometric = Photometric::Ybr,
            (0xc0..=0xcf, [_, _, _, _, _, 3, b'R' | b'r', _, _, b'G' | b'g', _, _, b'B' | b'b', ..]) => {
                return Photometric::Rgb;
            }
            (0xda, _) => break,
            _ => {}
        }
        rest = rest.get(2 + length..).unwrap_or_default();
    }
    photometric
}
