//! From the lower frequencies of an 8 x 8 block to fewer pixels than 64.

use std::f64::consts::PI;

use super::scan::ZIGZAG;

/// The cosines of an inverse transform to N pixels: `[frequency][pixel]`, scaled so that a block keeps its
/// brightness.
type Cosines = [[f32; 8]; 8];

/// The inverse transforms to 1, 2, 4 and 8 pixels.
pub(super) struct Inverse([Cosines; 4]);

/// Computes the pixels of a block from its coefficients, of which the last that is not zero stands at this
/// place in the order of a scan. Writes them, row by row, at the beginning of each `stride` bytes.
pub(super) type Transform = fn(&Inverse, &[f32; 64], usize, &mut [u8], usize);

impl Inverse {
    pub fn new() -> Self {
        Self([1, 2, 4, 8].map(|side: usize| {
            let n = side as f64;
            // The orthonormal transform of N points, by sqrt(N / 8) for coefficients of 8 points.
            let cosine = |frequency: usize, pixel: usize| {
                let scale = if frequency == 0 { (1.0 / 8.0f64).sqrt() } else { (2.0 / 8.0f64).sqrt() };
                let angle = PI * (2 * pixel + 1) as f64 * frequency as f64 / (2.0 * n);
                if frequency < side && pixel < side { (scale * angle.cos()) as f32 } else { 0.0 }
            };
            std::array::from_fn(|frequency| std::array::from_fn(|pixel| cosine(frequency, pixel)))
        }))
    }
}

/// The transform to blocks of this width and height; none: not offered.
pub(super) fn transform(width: usize, height: usize) -> Option<Transform> {
    Some(match (width, height) {
        (1, 1) => pixels::<1, 1>,
        (2, 2) => pixels::<2, 2>,
        (4, 4) => pixels::<4, 4>,
        (8, 8) => pixels::<8, 8>,
        (2, 1) => pixels::<2, 1>,
        (4, 2) => pixels::<4, 2>,
        (8, 4) => pixels::<8, 4>,
        (1, 2) => pixels::<1, 2>,
        (2, 4) => pixels::<2, 4>,
        (4, 8) => pixels::<4, 8>,
        _ => return None,
    })
}

fn pixels<const W: usize, const H: usize>(
    inverse: &Inverse,
    block: &[f32; 64],
    top: usize,
    out: &mut [u8],
    stride: usize,
) {
    let cosines = |side: usize| &inverse.0[side.trailing_zeros() as usize];
    // The order of a scan goes by diagonals: no frequency is beyond that of the last coefficient.
    let frequencies = usize::from(ZIGZAG[top] % 8 + ZIGZAG[top] / 8) + 1;
    let mut rows = [[0.0f32; W]; H];
    for frequency in 0..frequencies.min(H) {
        let values: &[f32; W] =
            block[8 * frequency..].first_chunk().expect("a row of a block has 8 coefficients");
        for (row, cosine) in rows.iter_mut().zip(cosines(H)[frequency]) {
            for (sum, value) in row.iter_mut().zip(values) {
                *sum += cosine * value;
            }
        }
    }
    for (row, out) in rows.iter().zip(out.chunks_mut(stride)) {
        let mut sums = [128.5f32; W]; // the level shift, and a half for rounding
        for (frequency, value) in row.iter().enumerate().take(frequencies) {
            for (sum, cosine) in sums.iter_mut().zip(cosines(W)[frequency]) {
                *sum += value * cosine;
            }
        }
        out[..W].copy_from_slice(&sums.map(|sum| sum as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brightness_is_kept_and_a_slope_stays_a_slope() {
        let inverse = Inverse::new();
        let mut block = [0.0; 64];
        block[0] = 8.0 * 50.0;
        for (width, height) in
            [(1, 1), (2, 2), (4, 4), (8, 8), (2, 1), (4, 2), (8, 4), (1, 2), (2, 4), (4, 8)]
        {
            let mut out = [0; 64];
            transform(width, height).unwrap()(&inverse, &block, 0, &mut out, 8);
            for (place, level) in out.iter().enumerate() {
                let inside = place % 8 < width && place / 8 < height;
                assert_eq!(*level, if inside { 178 } else { 0 }, "{width} x {height} at {place}");
            }
        }
        block[1] = 100.0; // brighter at the left
        let mut out = [0; 16];
        transform(4, 4).unwrap()(&inverse, &block, 1, &mut out, 4);
        assert!(out.chunks(4).all(|row| row.is_sorted_by(|a, b| a > b) && row == &out[..4]), "{out:?}");
        assert!(transform(8, 1).is_none());
    }
}
