//! JPEG 2000, with and without loss.

use std::borrow::Cow;

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::check_size;
use crate::Result;
use crate::dicom::pixels::{Frame, Layout};
use crate::dicom::undecodable;

/// Decodes a frame to 16-bit samples, of which the codestream's precision is used.
///
/// # Errors
/// A corrupt codestream, one of another size, or more than 16 bits.
pub(super) fn decode(codestream: &[u8], layout: &Layout) -> Result<Frame<'static>> {
    let codestream = without_boxes(codestream)?;
    let bad = |error| undecodable(format!("the JPEG 2000 codestream of the frame: {error}"));
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let image = Image::new(codestream, &settings).map_err(bad)?;
    let signs = signs(codestream);
    check_size(layout, image.width(), image.height(), signs.len())?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(bad)?;
    let mut bytes = vec![0; 2 * layout.frame_samples()];
    let mut bits = 0;
    for (index, component) in decoded.components().iter().enumerate() {
        bits = u32::from(component.bit_depth());
        if bits > 16 || component.samples().len() != layout.frame_pixels() {
            return Err(undecodable(format!("component {index} has {bits} bits, or is subsampled")));
        }
        // The decoder adds half the range to every component, but only unsigned ones are stored without it.
        let half = (1 << (bits - 1)) as f32;
        let (low, high) = if signs[index] { (-half, half - 1.0) } else { (0.0, 2.0 * half - 1.0) };
        let shift = if signs[index] { half } else { 0.0 };
        let places = bytes.as_chunks_mut().0.iter_mut().skip(index).step_by(layout.samples);
        for (place, sample) in places.zip(component.samples()) {
            *place = ((sample - shift).round_ties_even().clamp(low, high) as i32 as u16).to_le_bytes();
        }
    }
    Ok(Frame {
        bytes: Cow::Owned(bytes),
        width: 2,
        big_endian: false,
        bits,
        is_planar: false,
        photometric: layout.photometric.expanded(),
    })
}

/// The codestream: some writers put the whole JP2 file into the frame.
fn without_boxes(frame: &[u8]) -> Result<&[u8]> {
    let start = [0xff, 0x4f, 0xff, 0x51]; // the markers SOC and SIZ
    let at = frame.windows(start.len()).position(|window| window == start);
    at.map(|at| &frame[at..]).ok_or_else(|| undecodable("the frame has no JPEG 2000 codestream"))
}

/// Whether each component is signed, from the SIZ marker (ISO/IEC 15444-1 section A.5.1).
fn signs(codestream: &[u8]) -> Vec<bool> {
    // Two markers, then 36 bytes from the marker's length up to the number of components.
    let components = codestream.get(40..42).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    let precisions = codestream.get(42..).unwrap_or_default().chunks(3).take(components.into());
    precisions.map(|component| component[0] & 0x80 != 0).collect()
}
