//! A bound on the memory of all requests together.

use crate::api_error::{ApiError, ApiResult};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a permit: a semaphore counts up to 2^29 permits on a 32-bit machine.
const UNIT: usize = 1024;

/// The memory that bodies and decoded images may take. Requests that need more than is free are refused
/// rather than made to wait: waiting ones would hold what others wait for.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Semaphore>);

/// A share of the budget, returned when it is dropped.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

impl MemoryBudget {
    /// A budget of `mib` MiB.
    pub fn new(mib: usize) -> Self {
        Self(Arc::new(Semaphore::new(mib.saturating_mul(1024 * 1024 / UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Takes `bytes` of the budget.
    ///
    /// # Errors
    /// 429: so much is not free.
    pub fn reserve(&self, bytes: usize) -> ApiResult<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let full = "the requests in progress hold all memory that is set aside for them: try again";
        let permit = Arc::clone(&self.0).try_acquire_many_owned(units);
        permit.map(Reserved).map_err(|_| ApiError::overloaded(full))
    }
}

impl Reserved {
    /// Adds `other`, of the same budget.
    pub fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }

    /// Returns all but `bytes` to the budget.
    pub fn shrink(&mut self, bytes: usize) {
        let excess = self.0.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(self.0.split(excess));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_refused_to_others_until_it_is_returned() {
        const MIB: usize = 1 << 20;
        let budget = MemoryBudget::new(3);
        let mut first = budget.reserve(MIB).unwrap();
        first.merge(budget.reserve(MIB).unwrap());
        assert_eq!(budget.reserve(MIB + 1).unwrap_err().status, 429);
        first.shrink(MIB);
        let second = budget.reserve(2 * MIB).unwrap();
        assert!(budget.reserve(1).is_err() && budget.reserve(0).is_ok());
        drop((first, second));
        assert!(budget.reserve(3 * MIB).is_ok());
    }
}
