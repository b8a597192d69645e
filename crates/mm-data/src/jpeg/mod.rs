//! JPEGs at a half, a quarter or an eighth of their width and height, in about a third of the time that the
//! whole image takes.
//!
//! Most of that time goes into transforms, colours and pixels of the whole image; its codes must be read in
//! any case. Here only the lower frequencies of each block are kept, N x N of 8 x 8, and transformed to N x N
//! pixels, as libjpeg does it in its own fashion (`scale_num`, Pillow's `draft`). Each component is reduced
//! to the size of the result, so that the halved colours of a photograph lose less than its brightness, and
//! nothing is scaled up.
//!
//! The decoder that reads whole images, zune-jpeg, does not reduce. Whatever is unusual or corrupt is left to
//! it: here it is no error, but no result.

mod frame;
mod huffman;
mod inverse;
mod scan;

use image::RgbImage;

use frame::Frame;
use huffman::Table;
use inverse::Inverse;
use scan::{Part, Scan};

/// Decodes a JPEG of this width and height at one over 8, 4 or 2, the largest that is at most `most`, and
/// gives that divisor too. None: `most` is less than 2, or the file is one that must be decoded whole.
pub(crate) fn decode_reduced(
    bytes: &[u8],
    (width, height): (u32, u32),
    most: u32,
) -> Option<(RgbImage, u32)> {
    let divisor = [8, 4, 2].into_iter().find(|divisor| *divisor <= most)?;
    let frame = Decoder::default().decode(bytes, (width as usize, height as usize), divisor as usize)?;
    Some((to_rgb(&frame, divisor as usize), divisor))
}

/// What the segments of a file set for the scans behind them.
#[derive(Default)]
struct Decoder {
    frame: Option<Frame>,
    steps: [Option<[f32; 64]>; 4],
    dc: [Option<Box<Table>>; 4],
    ac: [Option<Box<Table>>; 4],
    restart_interval: usize,
}

impl Decoder {
    fn decode(mut self, bytes: &[u8], size: (usize, usize), divisor: usize) -> Option<Frame> {
        let inverse = Inverse::new();
        let mut position = 2 * usize::from(bytes.starts_with(&[0xff, 0xd8]));
        loop {
            // A marker may be preceded by any number of 0xff.
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
                // Adobe's: anything but YCbCr is left to the other decoder.
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
            *tables.get_mut(usize::from(kind & 15))? = Some(Table::new(counts, symbols)?);
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

    /// Decodes the scan of this header; gives the place behind it.
    fn scan(&mut self, header: &[u8], bytes: &[u8], position: usize, inverse: &Inverse) -> Option<usize> {
        let frame = self.frame.as_mut()?;
        let (&count, rest) = header.split_first()?;
        let (parts, band) = rest.split_at_checked(2 * usize::from(count))?;
        let &[first, last, bits] = band else { return None };
        let part = |&[id, tables]: &[u8; 2]| {
            let component = frame.components.iter().position(|component| component.id == id)?;
            let dc = self.dc.get(usize::from(tables >> 4))?.as_deref();
            Some(Part { component, dc, ac: self.ac.get(usize::from(tables & 15))?.as_deref() })
        };
        let parts = parts.as_chunks().0.iter().map(part).collect::<Option<Vec<_>>>()?;
        let band = if frame.is_progressive { (usize::from(first), usize::from(last)) } else { (0, 63) };
        let is_twice =
            (1..parts.len()).any(|at| parts[..at].iter().any(|part| part.component == parts[at].component));
        let is_band =
            band.1 <= 63 && band.0 <= band.1 && (!frame.is_progressive || (band.0 == 0) == (band.1 == 0));
        let (high, low) = (u32::from(bits >> 4), u32::from(bits & 15));
        if parts.is_empty() || is_twice || !is_band || low > 13 || band.0 > 0 && parts.len() > 1 {
            return None;
        }
        for part in &parts {
            // The steps of a component are those of its first scan.
            let component = &mut frame.components[part.component];
            component.steps = component.steps.or(*self.steps.get(component.table)?);
            component.steps?;
        }
        let scan = Scan { parts, band, high, low, restart_interval: self.restart_interval };
        scan::decode(frame, &scan, bytes, position, inverse)
    }
}

/// The reduced pixels of a frame.
fn to_rgb(frame: &Frame, divisor: usize) -> RgbImage {
    let (width, height) = (frame.width.div_ceil(divisor), frame.height.div_ceil(divisor));
    let mut out = RgbImage::new(width as u32, height as u32);
    for (y, row) in out.as_chunks_mut::<3>().0.chunks_exact_mut(width).enumerate() {
        match &frame.components[..] {
            [luma, blue, red] => {
                let parts = luma.row(y).iter().zip(blue.row(y)).zip(red.row(y));
                row.iter_mut()
                    .zip(parts)
                    .for_each(|(pixel, ((&luma, &blue), &red))| *pixel = rgb(luma, blue, red));
            }
            planes => row.iter_mut().zip(planes[0].row(y)).for_each(|(pixel, &level)| *pixel = [level; 3]),
        }
    }
    out
}

/// JFIF's colours, in 16 bits behind the point.
fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let (luma, blue, red) = (i32::from(luma) << 16 | 0x8000, i32::from(blue) - 128, i32::from(red) - 128);
    [luma + 91_881 * red, luma - 22_554 * blue - 46_802 * red, luma + 116_130 * blue]
        .map(|level| (level >> 16).clamp(0, 255) as u8)
}
