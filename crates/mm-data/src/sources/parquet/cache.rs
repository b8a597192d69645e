//! A cache of row groups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::group::Group;
use crate::sources::broken::Broken;

/// A row group, or its problem, which is as expensive to find.
pub(super) type Kept = Arc<Result<Group, Broken>>;

/// A least-recently-used cache of row groups with a limit in bytes.
pub(super) struct Cache {
    budget: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    groups: HashMap<usize, Slot>,
    bytes: u64,
    /// The number of requests so far.
    now: u64,
}

struct Slot {
    /// Filled by the first thread that needs it; others wait.
    cell: Arc<OnceLock<Kept>>,
    bytes: u64,
    used: u64,
}

impl Cache {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, held: Mutex::default() }
    }

    /// The row group with this number and size, read if it is not in the cache.
    pub(super) fn get(
        &self,
        number: usize,
        bytes: u64,
        read: impl FnOnce() -> Result<Group, Broken>,
    ) -> Kept {
        let cell = self.held.lock().unwrap_or_else(PoisonError::into_inner).cell(number, bytes, self.budget);
        cell.get_or_init(|| Arc::new(read())).clone()
    }
}

impl Held {
    fn cell(&mut self, number: usize, bytes: u64, budget: u64) -> Arc<OnceLock<Kept>> {
        self.now += 1;
        if let Some(slot) = self.groups.get_mut(&number) {
            slot.used = self.now;
            return slot.cell.clone();
        }
        while self.bytes.saturating_add(bytes) > budget {
            let Some(oldest) =
                self.groups.iter().min_by_key(|(_, slot)| slot.used).map(|(&number, _)| number)
            else {
                break;
            };
            self.bytes -= self.groups.remove(&oldest).map_or(0, |slot| slot.bytes);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        let cell = Arc::<OnceLock<Kept>>::default();
        self.groups.insert(number, Slot { cell: cell.clone(), bytes, used: self.now });
        cell
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::Fault;

    /// Requests groups of ten bytes, and returns those that were read.
    fn read_of(cache: &Cache, numbers: &[usize]) -> Vec<usize> {
        let mut read = Vec::new();
        for &number in numbers {
            cache.get(number, 10, || {
                read.push(number);
                Err(Broken::new(Fault::Other, ""))
            });
        }
        read
    }

    #[test]
    fn the_least_recently_used_group_is_dropped_first() {
        let cache = Cache::new(20);
        assert_eq!(read_of(&cache, &[1, 2, 1, 2, 1, 3, 1, 2, 3]), [1, 2, 3, 2, 3]);
        assert_eq!(cache.held.lock().unwrap().bytes, 20);
        assert_eq!(read_of(&Cache::new(0), &[1, 1, 2, 2, 1]), [1, 2, 1]);
    }

    #[test]
    fn concurrent_threads_read_a_group_once() {
        let (cache, count) = (Cache::new(100), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache.get(7, 10, || {
                        count.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                        Err(Broken::new(Fault::Other, ""))
                    })
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
    }
}
