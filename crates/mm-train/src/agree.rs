//! Agreement of the processes on whether all of them can go on.

use crate::{Error, Result};
use mm_dist::{ProcessGroup, ReduceOp};

/// The result of this process, if every process has one. Otherwise all fail here, before a collective that
/// some would never join.
///
/// # Errors
/// The error of this process; [`Error::Stopped`] where only others have one; or another process is lost.
pub fn agree<T>(group: &ProcessGroup, own: Result<T>) -> Result<T> {
    let failed = group.reduce(&[f64::from(own.is_err())], ReduceOp::Max);
    let own = own?;
    if failed? == [0.0] { Ok(own) } else { Err(Error::Stopped) }
}
