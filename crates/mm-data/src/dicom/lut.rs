//! Lookup tables: of the modality (PS3.3 section C.11.1), of the values of interest (C.11.2) and of palettes
//! (C.7.6.3.1.5 and C.7.9).

use super::dataset::{Attributes, DataSet};
use super::tags::{self, Tag};
use super::undecodable;
use crate::Result;

/// A table from input values to output values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LookupTable {
    /// The input value of the first entry.
    first: f32,
    entries: Vec<u16>,
    /// The largest output that the entries have bits for.
    pub(super) max: u16,
}

/// The three numbers of a descriptor.
struct Descriptor {
    entries: usize,
    first: f32,
    bits: u32,
}

impl LookupTable {
    /// The table of a modality or VOI LUT item. `is_signed` says whether its input values are.
    ///
    /// # Errors
    /// A missing or invalid descriptor, or fewer entries than it says.
    pub(super) fn of_item(data_set: &DataSet, item: &Attributes, is_signed: bool) -> Result<Self> {
        let descriptor = descriptor(data_set, item, tags::LUT_DESCRIPTOR, is_signed)?;
        let bytes = data_set.bytes(item, tags::LUT_DATA).unwrap_or_default();
        Self::of_entries(data_set, descriptor, bytes, tags::LUT_DATA)
    }

    /// The tables for red, green and blue.
    ///
    /// # Errors
    /// A missing or invalid table.
    pub(super) fn of_palette(data_set: &DataSet, is_signed: bool) -> Result<[Self; 3]> {
        let root = &data_set.root;
        let table = |index: usize| {
            let descriptor = descriptor(data_set, root, tags::PALETTE_DESCRIPTORS[index], is_signed)?;
            let (plain, segmented) = (tags::PALETTE_DATA[index], tags::SEGMENTED_PALETTE_DATA[index]);
            match (data_set.bytes(root, plain), data_set.bytes(root, segmented)) {
                (None, Some(segments)) => {
                    let entries = expanded(data_set, descriptor.bits, segments, descriptor.entries)?;
                    Self::new(descriptor, entries, segmented)
                }
                (bytes, _) => Self::of_entries(data_set, descriptor, bytes.unwrap_or_default(), plain),
            }
        };
        Ok([table(0)?, table(1)?, table(2)?])
    }

    /// Entries of one byte each where there are just as many bytes, else of two.
    fn of_entries(data_set: &DataSet, mut descriptor: Descriptor, bytes: &[u8], tag: Tag) -> Result<Self> {
        let count = descriptor.entries;
        let entries = if bytes.len() == count || bytes.len() == count + count % 2 {
            descriptor.bits = descriptor.bits.min(8);
            bytes.iter().take(count).map(|byte| u16::from(*byte)).collect()
        } else {
            let word = if data_set.syntax.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
            bytes.as_chunks().0.iter().take(count).map(|pair| word(*pair)).collect()
        };
        Self::new(descriptor, entries, tag)
    }

    fn new(descriptor: Descriptor, entries: Vec<u16>, tag: Tag) -> Result<Self> {
        let (expected, count) = (descriptor.entries, entries.len());
        if count < expected {
            let name = super::dataset::named(tag);
            return Err(undecodable(format!("the lookup table {name} has {count} of {expected} entries")));
        }
        let max = ((1u32 << descriptor.bits) - 1) as u16;
        Ok(Self { first: descriptor.first, entries, max })
    }

    /// The output for an input value. Values before the first or after the last entry have that one's output.
    pub(super) fn get(&self, value: f32) -> u16 {
        let index = (value - self.first).max(0.0) as usize;
        self.entries[index.min(self.entries.len() - 1)]
    }

    /// The output for an input value, as a level of 255.
    pub(super) fn level(&self, value: f32) -> u8 {
        (f32::from(self.get(value)) / f32::from(self.max) * 255.0).round() as u8
    }
}

fn descriptor(data_set: &DataSet, item: &Attributes, tag: Tag, is_signed: bool) -> Result<Descriptor> {
    let name = super::dataset::named(tag);
    let words = data_set.words(item, tag).unwrap_or_default();
    let [entries, first, bits] = words[..] else {
        return Err(undecodable(format!("the lookup table descriptor {name} is missing or has no 3 values")));
    };
    if !(1..=16).contains(&bits) {
        return Err(undecodable(format!("the lookup table descriptor {name} says {bits} bits")));
    }
    let is_signed = match item.get(tag).and_then(|element| element.vr) {
        Some([b'S', b'S']) => true,
        Some([b'U', b'S']) => false,
        _ => is_signed,
    };
    Ok(Descriptor {
        // 0 stands for 65,536, which does not fit.
        entries: if entries == 0 { 1 << 16 } else { entries.into() },
        first: if is_signed { f32::from(first as i16) } else { f32::from(first) },
        bits: bits.into(),
    })
}

/// Expands the segments of a palette (PS3.3 section C.7.9.2): discrete values, linear ramps, and repeated
/// segments.
fn expanded(data_set: &DataSet, bits: u32, bytes: &[u8], most: usize) -> Result<Vec<u16>> {
    let word = if data_set.syntax.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
    let is_bytes = bits == 8;
    let data: Vec<u16> = if is_bytes {
        bytes.iter().map(|byte| u16::from(*byte)).collect()
    } else {
        bytes.as_chunks().0.iter().map(|pair| word(*pair)).collect()
    };
    let mut segments = Segments { data: &data, is_bytes, big_endian: data_set.syntax.big_endian, most };
    let mut entries = Vec::new();
    // A byte of padding may follow.
    segments
        .expand(0, usize::MAX, true, &mut entries)
        .ok_or_else(|| undecodable("a segmented palette is truncated, or has an unknown segment"))?;
    Ok(entries)
}

struct Segments<'d> {
    data: &'d [u16],
    is_bytes: bool,
    big_endian: bool,
    most: usize,
}

impl Segments<'_> {
    /// Expands up to `count` segments from `at`. An indirect segment repeats others, which are not indirect.
    fn expand(
        &mut self,
        mut at: usize,
        count: usize,
        may_repeat: bool,
        entries: &mut Vec<u16>,
    ) -> Option<()> {
        for _ in 0..count {
            if at + 1 >= self.data.len() || entries.len() >= self.most {
                break;
            }
            let (kind, length) = (self.data[at], usize::from(self.data[at + 1]));
            at += 2;
            match kind {
                0 => {
                    entries.extend(self.data.get(at..at + length)?);
                    at += length;
                }
                1 => {
                    let (from, to) = (f64::from(*entries.last()?), f64::from(*self.data.get(at)?));
                    let step = (to - from) / length as f64;
                    entries.extend((1..=length).map(|n| (from + step * n as f64).round_ties_even() as u16));
                    at += 1;
                }
                2 if may_repeat => {
                    let offset = self.offset(&mut at)?;
                    self.expand(offset, length, false, entries)?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// The place of the first repeated segment, as an index of the data.
    fn offset(&self, at: &mut usize) -> Option<usize> {
        let words = if self.is_bytes {
            let bytes = self.data.get(*at..*at + 4)?;
            *at += 4;
            let pair = |high: usize, low: usize| usize::from(bytes[high]) << 8 | usize::from(bytes[low]);
            if self.big_endian { [pair(0, 1), pair(2, 3)] } else { [pair(1, 0), pair(3, 2)] }
        } else {
            let words = self.data.get(*at..*at + 2)?;
            *at += 2;
            [words[0].into(), words[1].into()]
        };
        // The low word is first. The offset counts bytes.
        let bytes = words[1] << 16 | words[0];
        Some(if self.is_bytes { bytes } else { bytes / 2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_discrete_linear_or_repeated() {
        // Two values, a ramp of four, and the two values again.
        let data = [0, 2, 10, 20, 1, 4, 40, 2, 1, 0, 0];
        let mut segments = Segments { data: &data, is_bytes: false, big_endian: false, most: 100 };
        let mut entries = Vec::new();
        segments.expand(0, usize::MAX, true, &mut entries).unwrap();
        assert_eq!(entries, [10, 20, 25, 30, 35, 40, 10, 20]);
        let mut segments = Segments { data: &[1, 4, 40], is_bytes: false, big_endian: false, most: 100 };
        assert_eq!(segments.expand(0, usize::MAX, true, &mut Vec::new()), None);
    }

    #[test]
    fn values_outside_a_table_have_the_output_of_its_ends() {
        let table = LookupTable { first: -2.0, entries: vec![5, 6, 7], max: 15 };
        assert_eq!([-9.0, -2.0, -1.0, 0.9, 90.0].map(|value| table.get(value)), [5, 5, 6, 7, 7]);
        assert_eq!(table.level(0.0), 119); // 7 / 15 of 255
    }
}
