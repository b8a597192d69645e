//! The bit reader of entropy-coded data and the Huffman tables (ITU-T T.81, annexes C and F).

/// The number of bits that one table lookup decodes.
const LOOKUP_BITS: u32 = 10;

/// Reads the bits of one entropy-coded segment, up to the marker after it. Past the marker it returns zeros
/// and counts them.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// The next byte to load into `buffer`.
    position: usize,
    /// The next bits, most significant first.
    buffer: u64,
    /// Valid bits in `buffer`.
    count: u32,
    /// Trailing zeros among the valid bits that are not in the data.
    padding: u32,
    /// Whether an invalid code was read.
    is_corrupt: bool,
}

impl<'a> BitReader<'a> {
    /// A reader from byte `position` on.
    pub fn new(data: &'a [u8], position: usize) -> Self {
        Self { data, position, buffer: 0, count: 0, padding: 0, is_corrupt: false }
    }

    /// Makes at least 56 bits valid.
    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.data.get(self.position..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_be_bytes(*next);
            if !has_ff(word) {
                // The next call loads the same bits below `count` again, so they may already be there.
                self.buffer |= word >> self.count;
                self.position += ((63 - self.count) / 8) as usize;
                self.count |= 56;
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.position..) {
                Some([0xff, 0, ..]) => {
                    self.position += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    self.position += 1;
                    *byte
                }
                _ => {
                    self.padding += 8;
                    0
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Makes at least 32 bits valid.
    #[inline]
    pub fn need(&mut self) {
        if self.count < 32 {
            self.refill();
        }
    }

    #[inline]
    fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// Takes `bits` bits, at most 16, which must be valid.
    #[inline]
    pub fn take(&mut self, bits: u32) -> u32 {
        let value = (self.buffer >> 32 >> (32 - bits)) as u32;
        self.consume(bits);
        value
    }

    /// Takes one bit; refills the buffer if needed.
    #[inline]
    pub fn bit(&mut self) -> bool {
        self.need();
        self.take(1) == 1
    }

    /// Skips any number of bits.
    pub fn skip(&mut self, mut bits: u32) {
        while bits > 0 {
            self.need();
            let now = bits.min(32);
            self.consume(now);
            bits -= now;
        }
    }

    /// Takes a signed number of `bits` bits, at most 16, in JPEG's coding (EXTEND of T.81, F.2.2.1).
    #[inline]
    pub fn take_signed(&mut self, bits: u32) -> i32 {
        extend(self.take(bits) as i32, bits)
    }

    /// Marks the data as corrupt.
    pub fn mark_corrupt(&mut self) {
        self.is_corrupt = true;
    }

    /// The position of the marker after the segment; `None` unless exactly the segment was read.
    pub fn end(&self) -> Option<usize> {
        let left = self.count.checked_sub(self.padding)?;
        let is_at_marker = self.data.get(self.position) == Some(&0xff);
        (!self.is_corrupt && left < 8 && is_at_marker).then_some(self.position)
    }

    /// Whether an invalid code or more bits than the segment has were read.
    pub fn is_lost(&self) -> bool {
        self.is_corrupt || self.count < self.padding
    }
}

fn has_ff(word: u64) -> bool {
    let inverse = !word;
    inverse.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 != 0
}

fn extend(value: i32, bits: u32) -> i32 {
    if bits > 0 && value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value }
}

/// A Huffman table with lookup tables for short codes.
pub(super) struct HuffmanTable {
    /// By the next bits: the code's length << 8 | its symbol; 0 for a longer code.
    lookup: [u16; 1 << LOOKUP_BITS],
    /// By the next bits, where code and number fit: number << 16 | run of zeros << 8 | length of both; else
    /// 0.
    coefficients: [i32; 1 << LOOKUP_BITS],
    /// By length: 16-bit codes at or above this limit are longer.
    limits: [u32; 17],
    /// By length: the offset from a code to its index in `symbols`.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl HuffmanTable {
    /// The table of a DHT segment: the number of codes of each length, and their symbols. `None` where there
    /// are more codes than a length allows.
    pub fn new(counts: &[u8; 16], given: &[u8]) -> Option<Box<Self>> {
        let mut table = Box::new(Self {
            lookup: [0; 1 << LOOKUP_BITS],
            coefficients: [0; 1 << LOOKUP_BITS],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
        });
        table.symbols.get_mut(..given.len())?.copy_from_slice(given);
        let (mut code, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                let symbol = *given.get(place)?;
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    let entries = table.lookup.get_mut(first..first + (1 << (LOOKUP_BITS - length)))?;
                    entries.fill((length as u16) << 8 | u16::from(symbol));
                }
                (code, place) = (code + 1, place + 1);
            }
            if code > 1 << length {
                return None;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for (bits, (&entry, coefficient)) in table.lookup.iter().zip(&mut table.coefficients).enumerate() {
            let (length, run, size) =
                (u32::from(entry >> 8), i32::from(entry >> 4 & 15), u32::from(entry & 15));
            if length > 0 && size > 0 && length + size <= LOOKUP_BITS {
                let number = bits as i32 >> (LOOKUP_BITS - length - size) & ((1 << size) - 1);
                *coefficient = extend(number, size) << 16 | run << 8 | (length + size) as i32;
            }
        }
        Some(table)
    }

    /// Decodes the next symbol. At least 16 bits must be valid.
    #[inline]
    pub fn symbol(&self, bits: &mut BitReader) -> u8 {
        let entry = self.lookup[(bits.buffer >> (64 - LOOKUP_BITS)) as usize];
        if entry != 0 {
            bits.consume(u32::from(entry >> 8));
            return entry as u8;
        }
        let code = (bits.buffer >> 48) as u32;
        for length in LOOKUP_BITS + 1..=16 {
            if code < self.limits[length as usize] {
                bits.consume(length);
                let place = self.offsets[length as usize] + (code >> (16 - length)) as i32;
                return self.symbols[place as usize & 255];
            }
        }
        bits.mark_corrupt();
        bits.consume(16);
        0
    }

    /// Decodes the next run of zeros and the number after it, where both fit into one lookup. At least 16
    /// bits must be valid.
    #[inline]
    pub fn coefficient(&self, bits: &mut BitReader) -> Option<(usize, i32)> {
        let entry = self.coefficients[(bits.buffer >> (64 - LOOKUP_BITS)) as usize];
        (entry != 0).then(|| {
            bits.consume(entry as u32 & 255);
            ((entry >> 8 & 255) as usize, entry >> 16)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_codes_are_read_and_byte_stuffing_is_removed() {
        // Lengths 1 and 2, and one of 12: 0, 10, 110000000000.
        let mut counts = [0; 16];
        (counts[0], counts[1], counts[11]) = (1, 1, 1);
        let table = HuffmanTable::new(&counts, &[0x05, 0x12, 0x34]).unwrap();
        // 0 | 10 | 110000000000 | 1111 1111 (stuffed), then a marker.
        let data = [0b0101_1000, 0b0000_0001, 0xff, 0, 0b1111_1111, 0xd9];
        let mut bits = BitReader::new(&data, 0);
        bits.need();
        assert_eq!([0; 3].map(|_: u8| table.symbol(&mut bits)), [0x05, 0x12, 0x34]);
        assert_eq!((bits.take(1), bits.take(8)), (1, 255));
        assert_eq!((bits.end(), bits.is_lost()), (Some(4), false));
        bits.skip(1);
        assert!(bits.is_lost() && bits.end().is_none(), "there are no more bits");
        assert!(HuffmanTable::new(&[3; 16], &[0; 48]).is_none(), "three codes of one bit");
    }

    #[test]
    fn numbers_are_extended_as_in_jpeg() {
        assert_eq!([extend(0, 0), extend(0, 1), extend(1, 1), extend(0, 3), extend(4, 3)], [0, -1, 1, -7, 4]);
        assert!(has_ff(0x0011_22ff_0000_0000) && has_ff(0xff) && !has_ff(0x7ffe_8000_fefe_0180));
    }
}
