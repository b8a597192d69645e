//! Images that look the same: a perceptual hash, and those seen so far.
//!
//! The hash is the difference hash (dHash; Krawetz 2013): the image in grey, shrunk to 9 x 8 by the mean of areas, one bit for
//! each two neighbours of a row, set where the right one is brighter. It is made of whole numbers alone, so it is the same on
//! every machine. Other sizes, other compression and small changes of brightness move few of its 64 bits; two photographs of
//! different things differ in about half. It sees neither colour nor fine detail: drawings on even ground may meet.

use std::collections::HashMap;

use image::RgbImage;

use crate::resize::{self, Filter};

/// The most bits of difference that can be asked for: beyond, other pictures are meant.
pub(super) const MOST_BITS: u32 = 16;

/// The hash of an image.
pub(super) fn difference_hash(image: &RgbImage) -> u64 {
    let small = resize::exact(image, 9, 8, Filter::Box);
    // ITU-R 601, in thousandths.
    let grey = |x: u32, y: u32| {
        let [red, green, blue] = small[(x, y)].0.map(u32::from);
        299 * red + 587 * green + 114 * blue
    };
    // A step of less than a level is the rounding's.
    let brighter = |x: u32, y: u32| grey(x + 1, y) >= grey(x, y) + 1000;
    (0..64).fold(0, |hash, bit| hash << 1 | u64::from(brighter(bit % 8, bit / 8)))
}

/// Hashes, to be asked for near ones. Two that differ in at most `bits` agree in one of `bits + 1` parts at least: a hash is compared
/// with those alone that share a part with it.
pub(super) struct Seen {
    bits: u32,
    hashes: Vec<u64>,
    /// For each part, its value to the places of those who have it.
    parts: Vec<HashMap<u64, Vec<u32>>>,
}

impl Seen {
    pub fn new(bits: u32) -> Self {
        Self { bits, hashes: Vec::new(), parts: vec![HashMap::new(); bits as usize + 1] }
    }

    /// Whether none near it was there. Then it is.
    pub fn is_new(&mut self, hash: u64) -> bool {
        let count = self.parts.len() as u32;
        let part = |number: u32| {
            let (start, end) = (64 * number / count, 64 * (number + 1) / count);
            if end - start == 64 { hash } else { hash >> start & ((1 << (end - start)) - 1) }
        };
        let near = |place: &u32| (self.hashes[*place as usize] ^ hash).count_ones() <= self.bits;
        for (number, map) in self.parts.iter().enumerate() {
            if map.get(&part(number as u32)).is_some_and(|places| places.iter().any(near)) {
                return false;
            }
        }
        let place = self.hashes.len() as u32;
        for (number, map) in self.parts.iter_mut().enumerate() {
            map.entry(part(number as u32)).or_default().push(place);
        }
        self.hashes.push(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, codecs::jpeg::JpegEncoder};
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::SampleRng;

    /// A soft picture with some structure, another for each seed.
    fn picture(seed: u64) -> RgbImage {
        let mut rng = SampleRng::seed_from_u64(seed);
        let small = RgbImage::from_fn(6, 6, |_, _| [0; 3].map(|_: u8| rng.random_range(0..=255u8)).into());
        resize::exact(&small, 240, 200, Filter::Bicubic)
    }

    #[test]
    fn a_copy_of_other_size_compression_or_brightness_is_near_and_another_picture_far() {
        let bits = |a: &RgbImage, b: &RgbImage| (difference_hash(a) ^ difference_hash(b)).count_ones();
        let mut others = 0;
        for seed in 0..20 {
            let image = picture(seed);
            let mut jpeg = Vec::new();
            image.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, 40)).unwrap();
            let compressed = image::load(Cursor::new(jpeg), ImageFormat::Jpeg).unwrap().into_rgb8();
            assert!(bits(&image, &compressed) <= 4);
            assert!(bits(&image, &resize::exact(&image, 97, 81, Filter::Bicubic)) <= 4);
            let mut dark = image.clone();
            dark.iter_mut().for_each(|level| *level = (u16::from(*level) * 4 / 5) as u8);
            assert!(bits(&image, &dark) <= 4);
            others += bits(&image, &picture(seed + 100));
        }
        assert!(others / 20 > 20, "{others}");
        assert_eq!(difference_hash(&RgbImage::new(1, 1)), 0);
    }

    #[test]
    fn what_is_near_is_found_as_by_comparing_with_all() {
        let mut rng = SampleRng::seed_from_u64(1);
        for bits in [0, 1, 4, MOST_BITS] {
            let (mut seen, mut kept): (_, Vec<u64>) = (Seen::new(bits), Vec::new());
            for number in 0..600 {
                let mut hash =
                    if number % 2 == 0 || kept.is_empty() { rng.random() } else { kept[number % kept.len()] };
                for _ in 0..rng.random_range(0..=bits + 2) {
                    hash ^= 1 << rng.random_range(0..64);
                }
                let expected = kept.iter().all(|other| (other ^ hash).count_ones() > bits);
                assert_eq!(seen.is_new(hash), expected, "{bits} {number}");
                kept.extend(expected.then_some(hash));
            }
        }
    }
}
