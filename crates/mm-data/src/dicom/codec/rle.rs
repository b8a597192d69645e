//! RLE Lossless (PS3.5 annex G): one PackBits segment for each byte of a sample, the high byte first.

use std::borrow::Cow;

use crate::Result;
use crate::dicom::pixels::{Frame, Layout};
use crate::dicom::undecodable;

/// The bytes of the header: the number of segments and 15 offsets.
const HEADER_BYTES: usize = 64;

/// Decodes a frame. The result is planar.
///
/// # Errors
/// Another number of segments than the layout has, a segment outside the frame or too short.
pub(super) fn decode(codestream: &[u8], layout: &Layout) -> Result<Frame<'static>> {
    let width = layout.sample_bytes();
    let pixels = layout.frame_pixels();
    let offsets = offsets(codestream, width * layout.samples)?;
    let mut bytes = vec![0; layout.frame_samples() * width];
    for (index, from) in offsets.iter().enumerate() {
        let to = offsets.get(index + 1).copied().unwrap_or(codestream.len());
        let segment = codestream.get(*from..to).ok_or_else(|| {
            undecodable(format!("RLE segment {index} is at bytes {from} to {to} of {}", codestream.len()))
        })?;
        let (sample, place) = (index / width, width - 1 - index % width);
        let plane = &mut bytes[sample * pixels * width..(sample + 1) * pixels * width];
        let written = unpack(segment, plane.iter_mut().skip(place).step_by(width));
        if written < pixels {
            return Err(undecodable(format!("RLE segment {index} has {written} of {pixels} bytes")));
        }
    }
    Ok(Frame {
        bytes: Cow::Owned(bytes),
        width,
        big_endian: false,
        bits: layout.bits_stored,
        is_planar: true,
        photometric: layout.photometric.expanded(),
    })
}

/// The offsets of the segments.
fn offsets(codestream: &[u8], expected: usize) -> Result<Vec<usize>> {
    let Some(header) = codestream.get(..HEADER_BYTES) else {
        return Err(undecodable(format!("an RLE frame of {} bytes has no header", codestream.len())));
    };
    let numbers: Vec<usize> =
        header.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number) as usize).collect();
    if numbers[0] != expected {
        return Err(undecodable(format!("{} RLE segments where {expected} are expected", numbers[0])));
    }
    Ok(numbers[1..=expected].to_vec())
}

/// Writes the bytes of a segment as far as there is room, and returns their number.
fn unpack<'o>(segment: &[u8], mut out: impl Iterator<Item = &'o mut u8>) -> usize {
    let mut written = 0;
    let mut at = 0;
    let mut write = |byte: u8| {
        out.next().map(|place| {
            *place = byte;
            written += 1;
        })
    };
    while let Some(&control) = segment.get(at) {
        at += 1;
        let full = match control {
            0..128 => {
                let literal = &segment[at..segment.len().min(at + usize::from(control) + 1)];
                at += literal.len();
                literal.iter().any(|byte| write(*byte).is_none())
            }
            128 => false,
            _ => {
                let byte = segment.get(at).copied();
                at += 1;
                (0..257 - usize::from(control)).any(|_| byte.and_then(&mut write).is_none())
            }
        };
        if full {
            break;
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_runs_are_unpacked_as_far_as_there_is_room() {
        // Apple's example of PackBits, with a no-op at its front.
        let packed = [0x80, 0xfe, 0xaa, 0x02, 0x80, 0x00, 0x2a, 0xfd, 0xaa, 0x03, 0x80, 0x00, 0x2a, 0x22];
        let unpacked = [0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0xaa, 0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0x22];
        for room in [5, 14, 20] {
            let mut out = vec![0; room];
            assert_eq!(unpack(&packed, out.iter_mut()), room.min(14));
            assert_eq!(out[..room.min(14)], unpacked[..room.min(14)]);
        }
        assert_eq!(unpack(&[0x05, 1], [0; 9].iter_mut()), 1);
        assert_eq!(unpack(&[0xfe], [0; 9].iter_mut()), 0);
    }
}
