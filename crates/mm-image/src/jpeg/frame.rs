//! The frame of a JPEG: its components and their reduced pixels.

use super::inverse::{InverseDct, Transform, transform};
use super::scan::{StoredBlock, ZIGZAG};

/// The header of a frame and the components decoded so far.
pub(super) struct Frame {
    pub is_progressive: bool,
    /// Width of the full image in pixels.
    pub width: usize,
    /// Height of the full image in pixels.
    pub height: usize,
    /// Columns and rows of minimum coded units (MCUs) of the interleaved components.
    pub units: (usize, usize),
    pub components: Vec<Component>,
}

/// A component: luma, or one of the two chroma planes.
pub(super) struct Component {
    pub id: u8,
    /// Columns and rows of blocks in an MCU.
    pub sampling: (usize, usize),
    /// Columns and rows of blocks that hold pixels of the image.
    pub blocks: (usize, usize),
    /// The number of its quantization table.
    pub table: usize,
    /// The quantization table, in zigzag order; `None` until a scan needs it.
    pub steps: Option<[f32; 64]>,
    /// The last coefficient that the reduced block needs, in zigzag order.
    pub last: usize,
    /// Width and height of a reduced block in pixels.
    size: (usize, usize),
    transform: Transform,
    /// The coefficients of the current block, in natural order.
    block: [f32; 64],
    /// The last coefficient of the current block that is set, in zigzag order.
    top: usize,
    pixels: Vec<u8>,
    /// Reduced pixels per row of blocks.
    stride: usize,
    /// For a progressive JPEG: a bit mask per block of the coefficients that are not zero.
    set: Vec<u64>,
    /// For a progressive JPEG: the coefficients of all blocks up to `last`.
    values: Vec<i16>,
}

impl Frame {
    /// Parses the contents of a SOF segment. `None` where it is corrupt or unsupported: not 8 bits, not one
    /// or three components, or sampling factors that do not divide evenly.
    pub fn new(segment: &[u8], is_progressive: bool, divisor: usize) -> Option<Self> {
        let (&[8, h1, h0, w1, w0, count], rest) = segment.split_first_chunk::<6>()? else { return None };
        let (height, width) =
            (usize::from(u16::from_be_bytes([h1, h0])), usize::from(u16::from_be_bytes([w1, w0])));
        let (parts, []) = rest.as_chunks::<3>() else { return None };
        if width == 0 || height == 0 || !matches!(count, 1 | 3) || parts.len() != usize::from(count) {
            return None;
        }
        // The sampling factor of a single component has no meaning.
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

    /// Computes the pixels of a progressive JPEG after its last scan.
    pub fn transform_stored(&mut self, inverse: &InverseDct) -> Option<()> {
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
    /// Sets a coefficient of the current block. `at` is in zigzag order and does not decrease between calls.
    #[inline]
    pub fn set(&mut self, at: usize, value: i32) {
        // A scan does not begin without a quantization table.
        let step = self.steps.as_ref().map_or(0.0, |steps| steps[at]);
        self.block[usize::from(ZIGZAG[at])] = value as f32 * step;
        self.top = at;
    }

    /// Computes the pixels of the current block, at this column and row of blocks, and clears the block.
    #[inline]
    pub fn transform_block(&mut self, (x, y): (usize, usize), inverse: &InverseDct) {
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

    /// The stored coefficients of a block of a progressive JPEG.
    #[inline]
    pub fn stored_block(&mut self, at: (usize, usize)) -> StoredBlock<'_> {
        let (number, kept) = (self.number(at), self.last + 1);
        StoredBlock { set: &mut self.set[number], values: &mut self.values[number * kept..][..kept] }
    }

    fn number(&self, (x, y): (usize, usize)) -> usize {
        y * (self.stride / self.size.0) + x
    }

    /// The reduced pixels from the start of row `y`.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.stride..]
    }
}
