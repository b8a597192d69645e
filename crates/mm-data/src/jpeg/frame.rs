//! The frame of a JPEG: its components, and the reduced blocks that are made of each.

use super::inverse::{Inverse, Transform, transform};
use super::scan::{StoredBlock, ZIGZAG};

/// What the header of a frame says, and what has been decoded of it.
pub(super) struct Frame {
    pub is_progressive: bool,
    /// Of the whole image, in pixels.
    pub width: usize,
    pub height: usize,
    /// Units of all components, side by side and below each other.
    pub units: (usize, usize),
    pub components: Vec<Component>,
}

/// A component: brightness, or one of two differences in colour.
pub(super) struct Component {
    pub id: u8,
    /// Blocks in a unit, side by side and below each other.
    pub sampling: (usize, usize),
    /// Blocks that hold pixels of the image.
    pub blocks: (usize, usize),
    /// The number of its quantization table.
    pub table: usize,
    /// Steps of the coefficients, in the order of a scan; none until a scan needs them.
    pub steps: Option<[f32; 64]>,
    /// The last coefficient that is needed, in the order of a scan.
    pub last: usize,
    /// Reduced pixels of a block.
    size: (usize, usize),
    transform: Transform,
    /// The block at work, in its natural order, and the last coefficient that is set, in the order of a scan.
    block: [f32; 64],
    top: usize,
    pixels: Vec<u8>,
    /// Reduced pixels in a row of blocks.
    stride: usize,
    /// Of a progressive JPEG, the coefficients of all blocks: which are set, and the needed ones.
    set: Vec<u64>,
    values: Vec<i16>,
}

impl Frame {
    /// Of the contents of a SOF segment. None: it is corrupt, or has what is not reduced: other than 8 bits,
    /// other than one or three components, or samplings that do not come out even.
    pub fn new(segment: &[u8], is_progressive: bool, divisor: usize) -> Option<Self> {
        let (&[8, h1, h0, w1, w0, count], rest) = segment.split_first_chunk::<6>()? else { return None };
        let (height, width) =
            (usize::from(u16::from_be_bytes([h1, h0])), usize::from(u16::from_be_bytes([w1, w0])));
        let (parts, []) = rest.as_chunks::<3>() else { return None };
        if width == 0 || height == 0 || !matches!(count, 1 | 3) || parts.len() != usize::from(count) {
            return None;
        }
        // The sampling of a component alone has no meaning.
        let sampling =
            |byte: u8| if count == 1 { (1, 1) } else { (usize::from(byte >> 4), usize::from(byte & 15)) };
        let samplings = parts.iter().map(|&[_, byte, _]| sampling(byte));
        let (h, v) = samplings.fold((1, 1), |(h, v), sampling| (h.max(sampling.0), v.max(sampling.1)));
        let units = (width.div_ceil(8 * h), height.div_ceil(8 * v));
        let component = |&[id, byte, table]: &[u8; 3]| {
            let own = sampling(byte);
            if !(1..=4).contains(&own.0) || !(1..=4).contains(&own.1) || h % own.0 != 0 || v % own.1 != 0 {
                return None;
            }
            let size = (8 * h / (own.0 * divisor), 8 * v / (own.1 * divisor));
            let (wide, high) = (units.0 * own.0, units.1 * own.1);
            let stored = if is_progressive { wide * high } else { 0 };
            let is_needed =
                |at: &usize| usize::from(ZIGZAG[*at] % 8) < size.0 && usize::from(ZIGZAG[*at] / 8) < size.1;
            let last = (0..64).rfind(is_needed)?;
            Some(Component {
                id,
                sampling: own,
                blocks: ((width * own.0).div_ceil(8 * h), (height * own.1).div_ceil(8 * v)),
                table: usize::from(table),
                steps: None,
                last,
                size,
                transform: transform(size.0, size.1)?,
                block: [0.0; 64],
                top: 0,
                pixels: vec![0; wide * size.0 * high * size.1],
                stride: wide * size.0,
                set: vec![0; stored],
                values: vec![0; stored * (last + 1)],
            })
        };
        let components = parts.iter().map(component).collect::<Option<Vec<_>>>()?;
        Some(Self { is_progressive, width, height, units, components })
    }

    /// Makes the pixels of a progressive JPEG, after its last scan.
    pub fn transform_stored(&mut self, inverse: &Inverse) -> Option<()> {
        for component in &mut self.components {
            let steps = component.steps?;
            let (wide, high) = component.blocks;
            for (x, y) in (0..high).flat_map(|y| (0..wide).map(move |x| (x, y))) {
                let number = component.number((x, y));
                let (last, set) = (component.last, component.set[number]);
                let values = &component.values[number * (last + 1)..][..=last];
                component.top = (set & (u64::MAX >> (63 - last))).checked_ilog2().unwrap_or(0) as usize;
                for ((&value, step), place) in values.iter().zip(&steps).zip(ZIGZAG) {
                    component.block[usize::from(place)] = f32::from(value) * step;
                }
                component.transform_block((x, y), inverse);
            }
        }
        Some(())
    }
}

impl Component {
    /// Sets a coefficient of the block at work, by its place in the order of a scan, which must not fall.
    #[inline]
    pub fn set(&mut self, at: usize, value: i32) {
        // A scan does not begin without steps.
        let step = self.steps.as_ref().map_or(0.0, |steps| steps[at]);
        self.block[usize::from(ZIGZAG[at])] = value as f32 * step;
        self.top = at;
    }

    /// Makes the pixels of the block at work, which is the one at this column and row of blocks, and clears
    /// it.
    #[inline]
    pub fn transform_block(&mut self, (x, y): (usize, usize), inverse: &Inverse) {
        let (width, height) = self.size;
        let out = &mut self.pixels[y * height * self.stride + x * width..];
        if self.top > 0 {
            (self.transform)(inverse, &self.block, self.top, out, self.stride);
            self.block = [0.0; 64];
            self.top = 0;
        } else {
            let level = (self.block[0] / 8.0 + 128.5) as u8;
            out.chunks_mut(self.stride).take(height).for_each(|row| row[..width].fill(level));
        }
    }

    /// A block of a progressive JPEG.
    #[inline]
    pub fn stored_block(&mut self, at: (usize, usize)) -> StoredBlock<'_> {
        let (number, kept) = (self.number(at), self.last + 1);
        StoredBlock { set: &mut self.set[number], values: &mut self.values[number * kept..][..kept] }
    }

    fn number(&self, (x, y): (usize, usize)) -> usize {
        y * (self.stride / self.size.0) + x
    }

    /// The beginning of a row of reduced pixels.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.stride..]
    }
}
