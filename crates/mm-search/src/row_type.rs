//! The numbers of a row as they are stored.

use half::f16;
use serde::{Deserialize, Serialize};

/// The type of the stored numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowType {
    /// 32 bits: the embedding itself.
    #[default]
    F32,
    /// 16 bits: half the size, with scores of unit rows off by less than 0.001.
    F16,
    /// 8 bits and a scale for each row: a quarter of the size, with scores off by less than 0.01.
    Int8,
}

impl RowType {
    /// The bytes of a row of `dim` numbers.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::F32 => 4 * dim,
            Self::F16 => 2 * dim,
            Self::Int8 => 4 + dim,
        }
    }

    /// Appends `row` to `bytes`.
    pub(crate) fn encode(self, row: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(row.iter().flat_map(|x| x.to_le_bytes())),
            Self::F16 => bytes.extend(row.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            Self::Int8 => {
                let scale = row.iter().fold(0f32, |largest, x| largest.max(x.abs())) / 127.0;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                bytes.extend(scale.to_le_bytes());
                bytes.extend(row.iter().map(|x| (x * inverse).round() as i8 as u8));
            }
        }
    }

    /// The numbers of the row in `bytes`.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|&x| f16::from_le_bytes(x).to_f32()).collect(),
            Self::Int8 => {
                let (scale, numbers) = scale_of(bytes);
                numbers.iter().map(|&x| scale * f32::from(x as i8)).collect()
            }
        }
    }

    /// The product of `query` with the row in `bytes`. It has one order of summation, so that a score depends
    /// on the two alone.
    pub(crate) fn dot(self, bytes: &[u8], query: &[f32]) -> f32 {
        match self {
            Self::F32 => sum_of_products::<4>(bytes, query, f32::from_le_bytes),
            Self::F16 => sum_of_products::<2>(bytes, query, |x| f16::from_le_bytes(x).to_f32()),
            Self::Int8 => {
                let (scale, numbers) = scale_of(bytes);
                scale * sum_of_products::<1>(numbers, query, |[x]| f32::from(x as i8))
            }
        }
    }
}

fn scale_of(bytes: &[u8]) -> (f32, &[u8]) {
    match bytes.split_first_chunk() {
        Some((scale, numbers)) => (f32::from_le_bytes(*scale), numbers),
        None => (0.0, &[]),
    }
}

/// Independent sums, which the compiler turns into vector instructions.
const LANES: usize = 16;

fn sum_of_products<const BYTES: usize>(
    bytes: &[u8],
    query: &[f32],
    number: impl Fn([u8; BYTES]) -> f32,
) -> f32 {
    let (numbers, _) = bytes.as_chunks::<BYTES>();
    let (blocks, rest) = numbers.as_chunks::<LANES>();
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (block, query) in blocks.iter().zip(query_blocks) {
        for ((sum, &x), y) in sums.iter_mut().zip(block).zip(query) {
            *sum += number(x) * y;
        }
    }
    let rest: f32 = rest.iter().zip(query_rest).map(|(&x, y)| number(x) * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_reads_back_within_the_rounding_of_its_type(row in prop::collection::vec(-1f32..1.0, 1..70)) {
            let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for (row_type, tolerance) in
                [(RowType::F32, 0.0), (RowType::F16, 1.0 / 2048.0), (RowType::Int8, 0.51 * largest / 127.0)]
            {
                let mut bytes = Vec::new();
                row_type.encode(&row, &mut bytes);
                prop_assert_eq!(bytes.len(), row_type.row_bytes(row.len()));
                let read = row_type.decode(&bytes);
                prop_assert_eq!(read.len(), row.len());
                for (x, y) in row.iter().zip(&read) {
                    prop_assert!((x - y).abs() <= tolerance, "{:?}: {} is read as {}", row_type, x, y);
                }
                let expected: f64 = row.iter().zip(&read).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                let dot = row_type.dot(&bytes, &row);
                prop_assert!((f64::from(dot) - expected).abs() < 1e-5 * row.len() as f64);
            }
        }
    }
}
