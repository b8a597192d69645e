//! Near-duplicate images: a perceptual hash, and an index of hashes.
//!
//! The hash is pHash (Zauner 2010, <https://www.phash.org/docs/pubs/thesis_zauner.pdf>): the image in grey is
//! reduced to 32 x 32 by area means; each of the 8 x 8 lowest frequencies of its cosine transform gives one
//! bit, set if it is above their median. It is computed in integers, so it is the same on every machine. A
//! change of size, compression or brightness flips few of the 64 bits; photographs of different subjects
//! differ in about half. The hash ignores color and fine detail.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::sync::LazyLock;

use image::RgbImage;

use mm_image::resize::{self, Filter};

/// The limit on the allowed difference in bits: beyond it, images are not near duplicates.
pub(super) const MOST_BITS: u32 = 16;

/// The side of the image that is transformed.
const SIDE: usize = 32;
/// Frequencies along each side.
const WAVES: usize = 8;

/// The cosines of the frequencies, in steps of 1 / 4096.
static COSINES: LazyLock<[[i64; SIDE]; WAVES]> = LazyLock::new(|| {
    let cosine = |wave: usize, place: usize| (PI / SIDE as f64 * wave as f64 * (place as f64 + 0.5)).cos();
    std::array::from_fn(|wave| std::array::from_fn(|place| (4096.0 * cosine(wave, place)).round() as i64))
});

/// The hash of an image.
pub(crate) fn perceptual_hash(image: &RgbImage) -> u64 {
    let small = resize::exact(image, SIDE as u32, SIDE as u32, Filter::Box);
    // ITU-R 601 luma.
    let grey = |&[red, green, blue]: &[u8; 3]| {
        (299 * i64::from(red) + 587 * i64::from(green) + 114 * i64::from(blue) + 500) / 1000
    };
    let levels: Vec<i64> = small.as_raw().as_chunks::<3>().0.iter().map(grey).collect();
    // The exact distance from the mean: a uniform image is all zeros.
    let sum: i64 = levels.iter().sum();
    let levels: Vec<i64> = levels.iter().map(|level| level * (SIDE * SIDE) as i64 - sum).collect();
    let along = |values: &[i64], wave: usize| {
        values.iter().zip(&COSINES[wave]).map(|(value, cosine)| value * cosine).sum()
    };
    let rows: Vec<[i64; WAVES]> =
        levels.chunks_exact(SIDE).map(|row| std::array::from_fn(|wave| along(row, wave))).collect();
    let frequencies: [i64; WAVES * WAVES] = std::array::from_fn(|place| {
        let column: Vec<i64> = rows.iter().map(|row| row[place % WAVES]).collect();
        along(&column, place / WAVES)
    });
    let mut sorted = frequencies;
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2 - 1];
    frequencies.iter().fold(0, |hash, frequency| hash << 1 | u64::from(*frequency > median))
}

/// An index of hashes. Two hashes that differ in at most `bits` bits agree in at least one of `bits + 1`
/// parts, so a hash is compared only with those that share a part with it.
pub(super) struct Seen {
    bits: u32,
    hashes: Vec<u64>,
    /// For each part, a map from its value to the positions of the hashes with it.
    parts: Vec<HashMap<u64, Vec<u32>>>,
}

impl Seen {
    pub fn new(bits: u32) -> Self {
        Self { bits, hashes: Vec::new(), parts: vec![HashMap::new(); bits as usize + 1] }
    }

    /// Whether no near hash is in the index. If so, adds it.
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

    /// A picture with some structure, another for each seed.
    fn picture(seed: u64) -> RgbImage {
        let mut rng = SampleRng::seed_from_u64(seed);
        let small = RgbImage::from_fn(12, 10, |_, _| [0; 3].map(|_: u8| rng.random_range(0..=255u8)).into());
        resize::exact(&small, 240, 200, Filter::Bicubic)
    }

    #[test]
    fn a_copy_of_other_size_compression_or_brightness_is_near_and_another_picture_far() {
        let bits = |a: &RgbImage, b: &RgbImage| (perceptual_hash(a) ^ perceptual_hash(b)).count_ones();
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
        assert_eq!(perceptual_hash(&RgbImage::new(1, 1)), 0);
    }

    #[test]
    fn near_hashes_are_found_as_by_exhaustive_comparison() {
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
