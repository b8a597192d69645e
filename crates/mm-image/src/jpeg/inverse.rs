//! The inverse DCT from the low frequencies of an 8 x 8 block to 8 x 8 pixels or fewer.

use std::f64::consts::PI;

use super::scan::ZIGZAG;

/// The cosines of an inverse DCT to N pixels, `[frequency][pixel]`, scaled so that a block keeps its mean.
type Cosines = [[f32; 8]; 8];

/// The inverse DCTs to 1, 2, 4 and 8 pixels.
pub(super) struct InverseDct([Cosines; 4]);

/// Computes the pixels of a block: `(dct, coefficients, last, out, stride)`, where `last` is the last
/// non-zero coefficient in zigzag order. Writes each row of pixels at the start of `stride` bytes of `out`.
pub(super) type Transform = fn(&InverseDct, &[f32; 64], usize, &mut [u8], usize);

impl InverseDct {
    pub fn new() -> Self {
        Self([1, 2, 4, 8].map(|side: usize| {
            let n = side as f64;
            // The orthonormal transform of N points times sqrt(N / 8), for coefficients of 8 points.
            let cosine = |frequency: usize, pixel: usize| {
                let scale = if frequency == 0 { (1.0 / 8.0f64).sqrt() } else { (2.0 / 8.0f64).sqrt() };
                let angle = PI * (2 * pixel + 1) as f64 * frequency as f64 / (2.0 * n);
                if frequency < side && pixel < side { (scale * angle.cos()) as f32 } else { 0.0 }
            };
            std::array::from_fn(|frequency| std::array::from_fn(|pixel| cosine(frequency, pixel)))
        }))
    }
}

/// The transform to blocks of this width and height; `None` for an unsupported pair.
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
    inverse: &InverseDct,
    block: &[f32; 64],
    top: usize,
    out: &mut [u8],
    stride: usize,
) {
    let cosines = |side: usize| &inverse.0[side.trailing_zeros() as usize];
    // Zigzag order goes by diagonals: no frequency exceeds the diagonal of the last coefficient.
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
        let mut sums = [128.5f32; W]; // the level shift, plus a half for rounding
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
    fn the_mean_is_kept_and_a_gradient_stays_a_gradient() {
        let inverse = InverseDct::new();
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
        block[1] = 100.0; // brighter on the left
        let mut out = [0; 16];
        transform(4, 4).unwrap()(&inverse, &block, 1, &mut out, 4);
        assert!(out.chunks(4).all(|row| row.is_sorted_by(|a, b| a > b) && row == &out[..4]), "{out:?}");
        assert!(transform(8, 1).is_none());
    }
}
