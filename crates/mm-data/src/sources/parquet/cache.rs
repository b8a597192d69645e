//! The row groups that were read last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::group::Group;
use crate::sources::broken::Broken;

/// A row group, or what is wrong with it, which is as dear to find out.
pub(super) type Kept = Arc<Result<Group, Broken>>;

/// Keeps row groups until they are more than so many bytes; then the one goes that was asked for the longest
/// ago.
pub(super) struct Cache {
    budget: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    groups: HashMap<usize, Slot>,
    bytes: u64,
    /// Counts what was asked for.
    now: u64,
}

struct Slot {
    /// Filled by the first that asks; who asks meanwhile waits for it.
    cell: Arc<OnceLock<Kept>>,
    bytes: u64,
    asked: u64,
}

impl Cache {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, held: Mutex::default() }
    }

    /// The row group of a number, which takes so many bytes: read where it is not held.
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
            slot.asked = self.now;
            return slot.cell.clone();
        }
        while self.bytes.saturating_add(bytes) > budget {
            let Some(oldest) =
                self.groups.iter().min_by_key(|(_, slot)| slot.asked).map(|(&number, _)| number)
            else {
                break;
            };
            self.bytes -= self.groups.remove(&oldest).map_or(0, |slot| slot.bytes);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        let cell = Arc::<OnceLock<Kept>>::default();
        self.groups.insert(number, Slot { cell: cell.clone(), bytes, asked: self.now });
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

    /// Asks for groups of ten bytes, and tells which of them were read.
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
    fn the_one_asked_for_longest_ago_goes_first() {
        let cache = Cache::new(20);
        assert_eq!(read_of(&cache, &[1, 2, 1, 2, 1, 3, 1, 2, 3]), [1, 2, 3, 2, 3]);
        assert_eq!(cache.held.lock().unwrap().bytes, 20);
        assert_eq!(read_of(&Cache::new(0), &[1, 1, 2, 2, 1]), [1, 2, 1]);
    }

    #[test]
    fn threads_that_ask_at_once_read_once() {
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
