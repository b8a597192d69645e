//! Learned position embeddings at another resolution.

use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// The parameter that holds a tower's learned positions, one vector for each position of a square grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionTable {
    /// The name of the parameter below the tower's path.
    pub name: &'static str,
    /// Rows before those of the grid: that of the class token.
    pub extra_tokens: i64,
    /// Positions along a side.
    pub grid: i64,
}

/// Resizes a table of positions `[extra_tokens + g * g, width]` to `[extra_tokens + grid * grid, width]`, in
/// f32, for a tower at another resolution. The grid is interpolated as in open_clip's `resize_pos_embed`
/// (bicubic, antialiased, corners not aligned); the first rows stay. A leading dimension of 1 is kept.
///
/// # Errors
/// The table has another shape or its grid is not square, or `grid` is below 1 or too large for the memory.
pub fn resize_positions(table: &Tensor, extra_tokens: i64, grid: i64) -> Result<Tensor> {
    let size = table.size();
    let (rows, width) = match *size.as_slice() {
        [rows, width] | [1, rows, width] => (rows, width),
        _ => return Err(Error::Config(format!("a table of positions is [rows, width], not {size:?}"))),
    };
    let places = rows - extra_tokens;
    let side = (places.max(0) as f64).sqrt() as i64;
    if extra_tokens < 0 || places < 1 || side * side != places {
        let problem = format!("{rows} rows without the first {extra_tokens} are not a square grid");
        return Err(Error::Config(format!("positions: {problem}")));
    }
    if grid < 1 {
        return Err(Error::Config(format!("positions: a grid of {grid} x {grid}: it must be at least 1")));
    }
    tch::no_grad(|| {
        let table = table.f_to_kind(Kind::Float)?.f_reshape([rows, width])?;
        let places = table
            .f_narrow(0, extra_tokens, places)?
            .f_reshape([1, side, side, width])?
            .f_permute([0, 3, 1, 2])?;
        // [1, width, grid, grid]
        let resized = places.f_internal_upsample_bicubic2d_aa([grid, grid], false, None, None)?;
        let resized = resized.f_permute([0, 2, 3, 1])?.f_reshape([-1, width])?;
        let all = Tensor::f_cat(&[table.f_narrow(0, 0, extra_tokens)?, resized], 0)?;
        if size.len() == 3 { Ok(all.f_unsqueeze(0)?) } else { Ok(all) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn extra_rows_stay_and_a_leading_dimension_is_kept() {
        let table = Tensor::arange(10 * 3, (Kind::Float, Device::Cpu)).view([1, 10, 3]);
        let resized = resize_positions(&table, 1, 5).unwrap();
        assert_eq!(resized.size(), [1, 26, 3]);
        assert_eq!(resized.narrow(1, 0, 1), table.narrow(1, 0, 1));
        let same = resize_positions(&table, 1, 3).unwrap();
        assert!((same - &table).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn a_table_that_is_not_square_is_an_error_with_its_numbers() {
        let table = |dims: &[i64]| Tensor::zeros(dims, (Kind::Float, Device::Cpu));
        let message =
            |table: Tensor, extra, grid| resize_positions(&table, extra, grid).unwrap_err().to_string();
        assert!(message(table(&[10, 3]), 0, 4).contains("10 rows without the first 0 are not a square"));
        assert!(message(table(&[1, 3]), 1, 4).contains("1 rows without the first 1"));
        assert!(message(table(&[10]), 1, 4).contains("not [10]"));
        assert!(message(table(&[10, 3]), -6, 4).contains("first -6"));
        assert!(message(table(&[10, 3]), 1, 0).contains("a grid of 0"));
        assert!(message(table(&[10, 3]), 1, i64::MAX).contains("libtorch"));
    }
}
