//! The scans of a JPEG (ITU-T T.81, annexes F and G): coefficients out of Huffman codes, as few of them as
//! the reduced blocks need.

use super::frame::{Component, Frame};
use super::huffman::{Bits, Table};
use super::inverse::Inverse;

/// From the order of a scan to the place in a block.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One of a scan's components, by its place in the frame, with its tables.
pub(super) struct Part<'a> {
    pub component: usize,
    pub dc: Option<&'a Table>,
    pub ac: Option<&'a Table>,
}

/// What the header of a scan says.
pub(super) struct Scan<'a> {
    pub parts: Vec<Part<'a>>,
    /// The first and the last coefficient, in the order of the scan.
    pub band: (usize, usize),
    /// Bits of a coefficient that earlier scans and this one leave out.
    pub high: u32,
    pub low: u32,
    /// Blocks of the smallest unit between two restart markers; 0: there are none.
    pub restart_interval: usize,
}

/// Decodes a scan. Gives the place of the marker behind it; none: it is corrupt, or needs what is not there.
pub(super) fn decode(
    frame: &mut Frame,
    scan: &Scan,
    data: &[u8],
    position: usize,
    inverse: &Inverse,
) -> Option<usize> {
    let is_valid = |part: &Part| {
        let needs_dc = scan.band.0 == 0 && scan.high == 0;
        let needs_ac = scan.band.1 > 0;
        (part.dc.is_some() || !needs_dc) && (part.ac.is_some() || !needs_ac)
    };
    if !scan.parts.iter().all(is_valid) {
        return None;
    }
    // A component alone comes block by block, and without the blocks that only fill up a unit of all
    // components.
    let (wide, high) = match scan.parts[..] {
        [Part { component, .. }] => frame.components[component].blocks,
        _ => frame.units,
    };
    let mut bits = Bits::new(data, position);
    let mut state = State { predictions: [0; 3], zero_blocks: 0 };
    let mut until_restart = scan.restart_interval;
    for y in 0..high {
        for x in 0..wide {
            if scan.restart_interval > 0 && until_restart == 0 {
                let marker = bits.end()?;
                if !matches!(data.get(marker + 1), Some(0xd0..=0xd7)) {
                    return None;
                }
                bits = Bits::new(data, marker + 2);
                state = State { predictions: [0; 3], zero_blocks: 0 };
                until_restart = scan.restart_interval;
            }
            until_restart = until_restart.wrapping_sub(1);
            for (place, part) in scan.parts.iter().enumerate() {
                let component = &mut frame.components[part.component];
                let (h, v) = if scan.parts.len() == 1 { (1, 1) } else { component.sampling };
                for (dx, dy) in (0..v).flat_map(|dy| (0..h).map(move |dx| (dx, dy))) {
                    let at = (x * h + dx, y * v + dy);
                    if frame.is_progressive {
                        state.progressive(&mut bits, scan, part, place, component, at)?;
                    } else {
                        state.baseline(&mut bits, part, place, component)?;
                        component.transform_block(at, inverse);
                    }
                }
            }
        }
        if bits.is_lost() {
            return None;
        }
    }
    bits.end()
}

/// What one block of a scan leaves to the next.
struct State {
    /// The last DC coefficient of each part.
    predictions: [i32; 3],
    /// Blocks to come whose band is zero.
    zero_blocks: u32,
}

impl State {
    /// Reads all of a block, and keeps of it what the component needs.
    fn baseline(
        &mut self,
        bits: &mut Bits,
        part: &Part,
        place: usize,
        component: &mut Component,
    ) -> Option<()> {
        let (dc, ac) = (part.dc?, part.ac?);
        self.predictions[place] = self.predictions[place].wrapping_add(difference(bits, dc));
        component.set(0, self.predictions[place]);
        let mut at = 1;
        while at < 64 {
            bits.need();
            let (run, value) = match ac.coefficient(bits) {
                Some(found) => found,
                None => {
                    let symbol = ac.symbol(bits);
                    let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                    if size == 0 && run < 15 {
                        break;
                    }
                    (run, bits.take_signed(size))
                }
            };
            at += run;
            if at <= component.last {
                component.set(at, value);
            }
            at += 1;
        }
        if at > 64 {
            bits.corrupt();
        }
        Some(())
    }

    /// Reads what a scan of a progressive JPEG says of a block.
    fn progressive(
        &mut self,
        bits: &mut Bits,
        scan: &Scan,
        part: &Part,
        place: usize,
        component: &mut Component,
        at: (usize, usize),
    ) -> Option<()> {
        let block = component.stored_block(at);
        match (scan.band, scan.high) {
            ((0, 0), 0) => {
                self.predictions[place] = self.predictions[place].wrapping_add(difference(bits, part.dc?));
                block.values[0] = self.predictions[place].wrapping_shl(scan.low) as i16;
            }
            ((0, 0), _) => block.values[0] |= i16::from(bits.bit()) << scan.low,
            (_, 0) => self.first(bits, scan, part.ac?, block),
            _ => self.refine(bits, scan, part.ac?, block),
        }
        Some(())
    }

    /// The first bits of a band.
    fn first(&mut self, bits: &mut Bits, scan: &Scan, ac: &Table, mut block: StoredBlock) {
        if self.zero_blocks > 0 {
            self.zero_blocks -= 1;
            return;
        }
        let mut at = scan.band.0;
        while at <= scan.band.1 {
            bits.need();
            let (run, value) = match ac.coefficient(bits) {
                Some(found) => found,
                None => {
                    let symbol = ac.symbol(bits);
                    let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                    match (size, run) {
                        (0, 15) => {
                            at += 16;
                            continue;
                        }
                        (0, _) => {
                            self.zero_blocks = (1 << run) + bits.take(run as u32) - 1;
                            return;
                        }
                        _ => (run, bits.take_signed(size)),
                    }
                }
            };
            at += run;
            if at > 63 {
                return bits.corrupt();
            }
            block.set(at, value << scan.low);
            at += 1;
        }
    }

    /// One more bit of a band: of coefficients that are not zero a bit each, and those that become so.
    fn refine(&mut self, bits: &mut Bits, scan: &Scan, ac: &Table, mut block: StoredBlock) {
        let (mut at, last) = scan.band;
        while self.zero_blocks == 0 && at <= last {
            bits.need();
            let symbol = ac.symbol(bits);
            let (run, size) = (u32::from(symbol >> 4), symbol & 15);
            let value = match size {
                0 if run < 15 => {
                    self.zero_blocks = (1 << run) + bits.take(run);
                    break;
                }
                0 => 0,
                _ => (2 * bits.take(1) as i32 - 1) << scan.low,
            };
            at = block.pass(bits, at, last, run, scan.low);
            if value != 0 && at <= last {
                block.set(at, value);
            }
            at += 1;
        }
        if self.zero_blocks > 0 {
            block.pass(bits, at, last, 64, scan.low);
            self.zero_blocks -= 1;
        }
    }
}

/// The difference of a DC coefficient to the last one.
fn difference(bits: &mut Bits, dc: &Table) -> i32 {
    bits.need();
    let size = u32::from(dc.symbol(bits));
    if size > 15 {
        bits.corrupt();
    }
    bits.take_signed(size.min(15))
}

/// The coefficients of a block between the scans of a progressive JPEG.
pub(super) struct StoredBlock<'a> {
    /// Which of the 64 are not zero, the first aside.
    pub set: &'a mut u64,
    /// The first ones, as many as the reduced block needs.
    pub values: &'a mut [i16],
}

impl StoredBlock<'_> {
    fn set(&mut self, at: usize, value: i32) {
        *self.set |= 1 << at;
        if let Some(kept) = self.values.get_mut(at) {
            *kept = value as i16;
        }
    }

    /// Goes on from `at` over `zeros` coefficients that are zero and stops at the next one, or behind `last`.
    /// Reads a bit for each that is not zero.
    fn pass(&mut self, bits: &mut Bits, mut at: usize, last: usize, mut zeros: u32, low: u32) -> usize {
        while at <= last && at < self.values.len() {
            if *self.set >> at & 1 == 1 {
                let value = &mut self.values[at];
                if bits.bit() && (*value >> low) & 1 == 0 {
                    *value = value.wrapping_add(if *value < 0 { -1i16 << low } else { 1 << low });
                }
            } else if zeros == 0 {
                return at;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        // Of those that are not kept, it is enough to know how many bits there are.
        let mut corrections = 0;
        while at <= last {
            if *self.set >> at & 1 == 1 {
                corrections += 1;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        bits.skip(corrections);
        at
    }
}
