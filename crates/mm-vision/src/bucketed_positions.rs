//! The positions of patches by their place in an image of any size.

use tch::{Device, Kind, Tensor};

/// The rows of a table of positions of `grid` x `grid` for the patches of an image of `rows` x `columns`
/// patches, row by row: `[rows * columns]`, i64. A patch takes the position whose cell of the unit square
/// holds its upper left corner (NaViT, Dehghani et al. 2023, as in Idefics2 and its successors). Of an image
/// of `grid` x `grid` patches each has its own.
///
/// libtorch's own operations decide, in f32 as in the peer: corners lie on the borders of cells.
pub(crate) fn bucketed_positions(grid: i64, rows: i64, columns: i64) -> Vec<i64> {
    let (rows, columns) = (buckets(grid, rows), buckets(grid, columns));
    rows.iter().flat_map(|row| columns.iter().map(move |column| row * grid + column)).collect()
}

/// The cell, of `grid` along a side, of each of `count` patches along it.
fn buckets(grid: i64, count: i64) -> Vec<i64> {
    let float = (Kind::Float, Device::Cpu);
    let cell = 1.0 / grid as f64;
    let borders = Tensor::arange_start_step(cell, 1.0, cell, float);
    let step = Tensor::from(1.0f32) / Tensor::from(count as f32);
    let corners = (Tensor::arange(count, float) * step).clamp_max(1.0 - 1e-6);
    let buckets = corners.bucketize(&borders, false, true).clamp_max(grid - 1);
    Vec::try_from(buckets).expect("buckets are i64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_square_has_each_position_once() {
        for grid in [1, 2, 6, 14, 26, 27, 32, 37] {
            assert!(bucketed_positions(grid, grid, grid).into_iter().eq(0..grid * grid), "{grid}");
        }
    }

    #[test]
    fn other_sizes_are_spread_over_the_table() {
        assert_eq!(bucketed_positions(4, 2, 4), [0, 1, 2, 3, 8, 9, 10, 11]);
        assert_eq!(bucketed_positions(4, 1, 3), [0, 1, 2]);
        let larger = bucketed_positions(3, 7, 7);
        assert!(larger.iter().all(|&position| (0..9).contains(&position)));
        assert_eq!((larger[0], larger[48]), (0, 8));
    }
}
