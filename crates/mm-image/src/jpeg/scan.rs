//! The scans of a JPEG (ITU-T T.81, annexes F and G): decodes the coefficients that the reduced blocks need.

use super::frame::{Component, Frame};
use super::huffman::{BitReader, HuffmanTable};
use super::inverse::InverseDct;

/// From zigzag order to the index in a block.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A component of a scan with its Huffman tables.
pub(super) struct ScanComponent<'a> {
    /// The index of the component in the frame.
    pub component: usize,
    pub dc: Option<&'a HuffmanTable>,
    pub ac: Option<&'a HuffmanTable>,
}

/// The header of a scan.
pub(super) struct Scan<'a> {
    pub components: Vec<ScanComponent<'a>>,
    /// The first and the last coefficient, in zigzag order (spectral selection).
    pub band: (usize, usize),
    /// The number of low bits that earlier scans leave out (successive approximation); 0 in a first scan.
    pub high: u32,
    /// The number of low bits that this scan leaves out.
    pub low: u32,
    /// MCUs between two restart markers; 0 where there are none.
    pub restart_interval: usize,
}

/// Decodes a scan. Returns the position of the marker after it; `None` where it is corrupt or a table is
/// missing.
pub(super) fn decode(
    frame: &mut Frame,
    scan: &Scan,
    data: &[u8],
    position: usize,
    inverse: &InverseDct,
) -> Option<usize> {
    let has_tables = |scanned: &ScanComponent| {
        let needs_dc = scan.band.0 == 0 && scan.high == 0;
        let needs_ac = scan.band.1 > 0;
        (scanned.dc.is_some() || !needs_dc) && (scanned.ac.is_some() || !needs_ac)
    };
    if !scan.components.iter().all(has_tables) {
        return None;
    }
    // A single component is coded block by block, without the blocks that only pad an MCU.
    let (wide, high) = match scan.components[..] {
        [ScanComponent { component, .. }] => frame.components[component].blocks,
        _ => frame.units,
    };
    let mut bits = BitReader::new(data, position);
    let mut state = State { predictions: [0; 3], zero_blocks: 0 };
    let mut until_restart = scan.restart_interval;
    for y in 0..high {
        for x in 0..wide {
            if scan.restart_interval > 0 && until_restart == 0 {
                let marker = bits.end()?;
                if !matches!(data.get(marker + 1), Some(0xd0..=0xd7)) {
                    return None;
                }
                bits = BitReader::new(data, marker + 2);
                state = State { predictions: [0; 3], zero_blocks: 0 };
                until_restart = scan.restart_interval;
            }
            until_restart = until_restart.wrapping_sub(1);
            for (index, scanned) in scan.components.iter().enumerate() {
                let component = &mut frame.components[scanned.component];
                let (h, v) = if scan.components.len() == 1 { (1, 1) } else { component.sampling };
                for (dx, dy) in (0..v).flat_map(|dy| (0..h).map(move |dx| (dx, dy))) {
                    let at = (x * h + dx, y * v + dy);
                    if frame.is_progressive {
                        state.progressive(&mut bits, scan, scanned, index, component, at)?;
                    } else {
                        state.baseline(&mut bits, scanned, index, component)?;
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

/// The state that one block of a scan passes to the next.
struct State {
    /// The last DC coefficient of each component.
    predictions: [i32; 3],
    /// The number of further blocks with an all-zero band (EOBRUN).
    zero_blocks: u32,
}

impl State {
    /// Reads a block and keeps the coefficients that the component needs.
    fn baseline(
        &mut self,
        bits: &mut BitReader,
        scanned: &ScanComponent,
        index: usize,
        component: &mut Component,
    ) -> Option<()> {
        let (dc, ac) = (scanned.dc?, scanned.ac?);
        self.predictions[index] = self.predictions[index].wrapping_add(difference(bits, dc));
        component.set(0, self.predictions[index]);
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
            bits.mark_corrupt();
        }
        Some(())
    }

    /// Reads the data of a block in a scan of a progressive JPEG.
    fn progressive(
        &mut self,
        bits: &mut BitReader,
        scan: &Scan,
        scanned: &ScanComponent,
        index: usize,
        component: &mut Component,
        at: (usize, usize),
    ) -> Option<()> {
        let block = component.stored_block(at);
        match (scan.band, scan.high) {
            ((0, 0), 0) => {
                self.predictions[index] = self.predictions[index].wrapping_add(difference(bits, scanned.dc?));
                block.values[0] = self.predictions[index].wrapping_shl(scan.low) as i16;
            }
            ((0, 0), _) => block.values[0] |= i16::from(bits.bit()) << scan.low,
            (_, 0) => self.first(bits, scan, scanned.ac?, block),
            _ => self.refine(bits, scan, scanned.ac?, block),
        }
        Some(())
    }

    /// The first scan of a band (T.81, G.1.2.2).
    fn first(&mut self, bits: &mut BitReader, scan: &Scan, ac: &HuffmanTable, mut block: StoredBlock) {
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
                return bits.mark_corrupt();
            }
            block.set(at, value << scan.low);
            at += 1;
        }
    }

    /// A refinement scan of a band (T.81, G.1.2.3): one more bit of each non-zero coefficient, and the
    /// coefficients that become non-zero.
    fn refine(&mut self, bits: &mut BitReader, scan: &Scan, ac: &HuffmanTable, mut block: StoredBlock) {
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
            at = block.refine_nonzero(bits, at, last, run, scan.low);
            if value != 0 && at <= last {
                block.set(at, value);
            }
            at += 1;
        }
        if self.zero_blocks > 0 {
            block.refine_nonzero(bits, at, last, 64, scan.low);
            self.zero_blocks -= 1;
        }
    }
}

/// The difference of a DC coefficient to the previous one.
fn difference(bits: &mut BitReader, dc: &HuffmanTable) -> i32 {
    bits.need();
    let size = u32::from(dc.symbol(bits));
    if size > 15 {
        bits.mark_corrupt();
    }
    bits.take_signed(size.min(15))
}

/// The coefficients of a block, stored between the scans of a progressive JPEG.
pub(super) struct StoredBlock<'a> {
    /// A bit mask of the AC coefficients that are not zero.
    pub set: &'a mut u64,
    /// The coefficients that the reduced block needs, in zigzag order.
    pub values: &'a mut [i16],
}

impl StoredBlock<'_> {
    fn set(&mut self, at: usize, value: i32) {
        *self.set |= 1 << at;
        if let Some(kept) = self.values.get_mut(at) {
            *kept = value as i16;
        }
    }

    /// Refines the non-zero coefficients from `at` on, reading a bit for each. Skips `zeros` zero
    /// coefficients and returns the position of the next zero, or the one after `last`.
    fn refine_nonzero(
        &mut self,
        bits: &mut BitReader,
        mut at: usize,
        last: usize,
        mut zeros: u32,
        low: u32,
    ) -> usize {
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
        // For coefficients that are not kept, only the number of bits matters.
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
