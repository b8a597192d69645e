//! A bounded cache of the most recently used values.

use std::collections::VecDeque;

/// The values of the keys that were used last, up to a number small enough to be searched one by one.
#[derive(Debug)]
pub struct Recent<K, V> {
    capacity: usize,
    /// The least recently used first.
    entries: VecDeque<(K, V)>,
}

impl<K: PartialEq, V> Recent<K, V> {
    /// An empty cache of at most `capacity` values, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), entries: VecDeque::new() }
    }

    /// The value of `key`, made by `make` where there is none.
    ///
    /// # Errors
    /// Those of `make`; nothing is kept then.
    pub fn get_or_insert<E>(&mut self, key: K, make: impl FnOnce(&K) -> Result<V, E>) -> Result<&V, E> {
        let place = self.entries.iter().position(|(known, _)| *known == key);
        let entry = match place.and_then(|place| self.entries.remove(place)) {
            Some(entry) => entry,
            None => {
                let value = make(&key)?;
                (key, value)
            }
        };
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        Ok(&self.entries[self.entries.len() - 1].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_value_goes_first_and_failures_are_not_kept() {
        let mut cache = Recent::new(2);
        let mut made = Vec::new();
        for key in [1, 2, 1, 3, 1, 2] {
            let value = cache.get_or_insert(key, |&key| {
                made.push(key);
                Ok::<_, ()>(10 * key)
            });
            assert_eq!(value, Ok(&(10 * key)));
        }
        assert_eq!(made, [1, 2, 3, 2]);
        assert_eq!(cache.get_or_insert(4, |_| Err("no")), Err("no"));
        assert_eq!(cache.get_or_insert(2, |_| Err("made again")), Ok(&20));
    }
}
