//! Decodes JPEGs at 1/2, 1/4 or 1/8 of their width and height, in about a third of the time of a full decode.
//!
//! Most of the time of a full decode goes into the inverse DCT, the color conversion and the output of
//! pixels; the Huffman codes must be read in any case. Here only the N x N lowest frequencies of each 8 x 8
//! block are kept and transformed to N x N pixels, as in libjpeg (`scale_num`; Pillow's `draft`). Each
//! component is reduced to the size of the result directly: subsampled chroma is reduced less than luma and
//! never upsampled.
//!
//! zune-jpeg, which decodes full images, has no reduced decode. A file that is unusual or corrupt gives
//! `None` here and is left to zune-jpeg, which reports the error.

mod frame;
mod huffman;
mod inverse;
mod scan;

use image::RgbImage;

use frame::Frame;
use huffman::HuffmanTable;
use inverse::InverseDct;
use scan::{Scan, ScanComponent};

/// Decodes a JPEG of this width and height at 1/8, 1/4 or 1/2, by the largest divisor up to `largest`.
/// Returns the image and the divisor, or `None` where `largest` is below 2 or the file must be decoded in
/// full.
pub(crate) fn decode_reduced(
    bytes: &[u8],
    (width, height): (u32, u32),
    largest: u32,
) -> Option<(RgbImage, u32)> {
    let divisor = [8, 4, 2].into_iter().find(|divisor| *divisor <= largest)?;
    let frame = Decoder::default().decode(bytes, (width as usize, height as usize), divisor as usize)?;
    Some((to_rgb(&frame, divisor as usize), divisor))
}

/// The state that the segments of a file set for the scans that follow.
#[derive(Default)]
struct Decoder {
    frame: Option<Frame>,
    steps: [Option<[f32; 64]>; 4],
    dc: [Option<Box<HuffmanTable>>; 4],
    ac: [Option<Box<HuffmanTable>>; 4],
    restart_interval: usize,
}

impl Decoder {
    fn decode(mut self, bytes: &[u8], size: (usize, usize), divisor: usize) -> Option<Frame> {
        let inverse = InverseDct::new();
        let mut position = 2 * usize::from(bytes.starts_with(&[0xff, 0xd8]));
        loop {
            // Any number of 0xff bytes may precede a marker.
            position += bytes.get(position..)?.iter().take_while(|byte| **byte == 0xff).count();
            let marker = *bytes.get(position).filter(|_| position > 0 && bytes[position - 1] == 0xff)?;
            position += 1;
            if marker == 0xd9 {
                break;
            }
            let length = usize::from(u16::from_be_bytes(*bytes.get(position..)?.first_chunk()?));
            let segment = bytes.get(position + 2..position + length)?;
            position += length;
            match marker {
                0xc0..=0xc2 if self.frame.is_none() => {
                    let frame = Frame::new(segment, marker == 0xc2, divisor)?;
                    self.frame = Some(frame).filter(|frame| (frame.width, frame.height) == size);
                }
                0xc4 => self.huffman_tables(segment)?,
                0xdb => self.quantization_tables(segment)?,
                0xdd => self.restart_interval = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
                0xda => position = self.scan(segment, bytes, position, &inverse)?,
                // Adobe's segment: anything but YCbCr is left to the full decoder.
                0xee if segment.starts_with(b"Adobe") && segment.get(11) != Some(&1) => return None,
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
        let mut frame = self.frame?;
        if frame.is_progressive {
            frame.transform_stored(&inverse)?;
        }
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        let is_decoded = frame.components.iter().all(|component| component.steps.is_some());
        (is_decoded && ids != *b"RGB").then_some(frame)
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let (symbols, rest) =
                rest.split_at_checked(counts.iter().map(|count| usize::from(*count)).sum())?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some(HuffmanTable::new(counts, symbols)?);
            segment = rest;
        }
        Some(())
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = segment.split_first() {
            let (steps, rest): (Vec<u16>, _) = match kind >> 4 {
                0 => rest
                    .split_at_checked(64)
                    .map(|(s, rest)| (s.iter().map(|&byte| byte.into()).collect(), rest))?,
                1 => rest.split_at_checked(128).map(|(s, rest)| {
                    (s.as_chunks().0.iter().map(|&pair| u16::from_be_bytes(pair)).collect(), rest)
                })?,
                _ => return None,
            };
            *self.steps.get_mut(usize::from(kind & 15))? =
                Some(std::array::from_fn(|at| f32::from(steps[at])));
            segment = rest;
        }
        Some(())
    }

    /// Decodes the scan with this header, and returns the position after it.
    fn scan(&mut self, header: &[u8], bytes: &[u8], position: usize, inverse: &InverseDct) -> Option<usize> {
        let frame = self.frame.as_mut()?;
        let (&count, rest) = header.split_first()?;
        let (selectors, band) = rest.split_at_checked(2 * usize::from(count))?;
        let &[first, last, bits] = band else { return None };
        let select = |&[id, tables]: &[u8; 2]| {
            let component = frame.components.iter().position(|component| component.id == id)?;
            let dc = self.dc.get(usize::from(tables >> 4))?.as_deref();
            Some(ScanComponent { component, dc, ac: self.ac.get(usize::from(tables & 15))?.as_deref() })
        };
        let components = selectors.as_chunks().0.iter().map(select).collect::<Option<Vec<_>>>()?;
        let band = if frame.is_progressive { (usize::from(first), usize::from(last)) } else { (0, 63) };
        let is_repeated =
            |at: usize| components[..at].iter().any(|s| s.component == components[at].component);
        let is_twice = (1..components.len()).any(is_repeated);
        let is_band =
            band.1 <= 63 && band.0 <= band.1 && (!frame.is_progressive || (band.0 == 0) == (band.1 == 0));
        let (high, low) = (u32::from(bits >> 4), u32::from(bits & 15));
        if components.is_empty() || is_twice || !is_band || low > 13 || band.0 > 0 && components.len() > 1 {
            return None;
        }
        for scanned in &components {
            // A component keeps the quantization table of its first scan.
            let component = &mut frame.components[scanned.component];
            component.steps = component.steps.or(*self.steps.get(component.table)?);
            component.steps?;
        }
        let scan = Scan { components, band, high, low, restart_interval: self.restart_interval };
        scan::decode(frame, &scan, bytes, position, inverse)
    }
}

/// The reduced pixels of a frame as RGB.
fn to_rgb(frame: &Frame, divisor: usize) -> RgbImage {
    let (width, height) = (frame.width.div_ceil(divisor), frame.height.div_ceil(divisor));
    let mut out = RgbImage::new(width as u32, height as u32);
    for (y, row) in out.as_chunks_mut::<3>().0.chunks_exact_mut(width).enumerate() {
        match &frame.components[..] {
            [luma, blue, red] => {
                let levels = luma.row(y).iter().zip(blue.row(y)).zip(red.row(y));
                row.iter_mut()
                    .zip(levels)
                    .for_each(|(pixel, ((&luma, &blue), &red))| *pixel = rgb(luma, blue, red));
            }
            planes => row.iter_mut().zip(planes[0].row(y)).for_each(|(pixel, &level)| *pixel = [level; 3]),
        }
    }
    out
}

/// JFIF's conversion from YCbCr, in 16-bit fixed point.
fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let (luma, blue, red) = (i32::from(luma) << 16 | 0x8000, i32::from(blue) - 128, i32::from(red) - 128);
    [luma + 91_881 * red, luma - 22_554 * blue - 46_802 * red, luma + 116_130 * blue]
        .map(|level| (level >> 16).clamp(0, 255) as u8)
}
