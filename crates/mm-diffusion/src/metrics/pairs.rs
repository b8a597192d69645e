//! Sums of a kernel over all pairs of rows, a block of pairs at a time.

use super::{Features, Result};
use tch::{Kind, Tensor};

/// A kernel of all pairs of the rows of two blocks, `[A, D]` and `[B, D]` to `[A, B]`, in f64.
pub(super) type Kernel<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<Tensor>;

/// The sum of the kernel over all pairs of a row of `x` and a row of `y`.
pub(super) fn sum_between(x: &Features, y: &Features, kernel: Kernel) -> Result<f64> {
    mm_sys::inference_mode(|| {
        let mut sum = 0.0;
        for a in x.blocks() {
            let a = a?;
            for b in y.blocks() {
                sum += total(&kernel(&a.rows, &b?.rows)?)?;
            }
        }
        Ok(sum)
    })
}

/// The sum of the symmetric kernel over all ordered pairs of two different rows of `x`.
pub(super) fn sum_within(x: &Features, kernel: Kernel) -> Result<f64> {
    mm_sys::inference_mode(|| {
        let mut sum = 0.0;
        for (number, a) in x.blocks().enumerate() {
            let a = a?;
            sum += total(&kernel(&a.rows, &a.rows)?.f_fill_diagonal_(0.0, false)?)?;
            for b in x.blocks().skip(number + 1) {
                sum += 2.0 * total(&kernel(&a.rows, &b?.rows)?)?;
            }
        }
        Ok(sum)
    })
}

/// The sum of a block, by rows first: libtorch adds the numbers of a row in one order, and those of a whole
/// matrix in an order that depends on the number of threads.
fn total(block: &Tensor) -> Result<f64> {
    let rows = block.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Double)?;
    Ok(Vec::<f64>::try_from(rows)?.into_iter().sum())
}
