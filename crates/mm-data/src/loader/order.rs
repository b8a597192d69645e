//! In which order the samples of a source come.
//!
//! An epoch is the blocks of the source in a shuffled order, cut into windows of some thousand samples;
//! within a window the samples are shuffled again. So reads stay in the blocks of one window, and neighbours
//! of the source still end far apart. A source without blocks is one window, shuffled whole. Everything
//! follows from seed, epoch and place, and any place can be asked for.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;

use crate::Dataset;
use crate::rng::{Domain, rng, shuffle};

/// The fewest blocks of a window: fewer would hardly mix.
const LEAST_BLOCKS: usize = 16;

/// How an order is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderConfig {
    pub shuffle: bool,
    /// Whether blocks are drawn with replacement.
    pub resample: bool,
    /// Samples of a window, at least.
    pub window: usize,
    pub seed: u64,
    /// Which source of a mix it is of.
    pub part: usize,
}

/// The order of a source.
pub(super) struct Order {
    config: OrderConfig,
    len: usize,
    /// Where each block begins, and the end of the last; none where samples lie anywhere.
    blocks: Option<Vec<usize>>,
    /// How many blocks a window may have, whatever its samples.
    most_blocks: usize,
    cache: Mutex<Cache>,
}

/// What was worked out last: walking on needs the same again and again.
#[derive(Default)]
struct Cache {
    epochs: VecDeque<Arc<Epoch>>,
    windows: VecDeque<Window>,
}

/// The samples of a window of an epoch, in their order.
struct Window {
    of: (u64, usize),
    samples: Arc<Vec<usize>>,
}

/// The blocks of an epoch.
struct Epoch {
    number: u64,
    /// In their order.
    blocks: Vec<u32>,
    /// Where each window begins: its first place, and its first block in the order.
    windows: Vec<(usize, usize)>,
}

impl Order {
    pub fn new(source: &dyn Dataset, config: OrderConfig) -> Self {
        let blocks = source.blocks().filter(|_| config.shuffle).map(|lengths| {
            let mut end = 0;
            let ends = lengths.iter().map(|&length| {
                end += length as usize;
                end
            });
            std::iter::once(0).chain(ends).collect()
        });
        let most_blocks = source.blocks_at_once().unwrap_or(usize::MAX).max(1);
        Self { config, len: source.len(), blocks, most_blocks, cache: Mutex::default() }
    }

    /// The number of the sample at a place below the length of the source.
    pub fn at(&self, epoch: u64, place: usize) -> usize {
        if !self.config.shuffle {
            return place;
        }
        let (window, first) = self.window_of(epoch, place);
        self.window(epoch, window)[place - first]
    }

    /// The window of a place, and the window's first place.
    pub fn window_of(&self, epoch: u64, place: usize) -> (usize, usize) {
        if self.blocks.is_none() {
            return (0, 0);
        }
        let epoch = self.epoch(epoch);
        let window = epoch.windows.partition_point(|&(first, _)| first <= place) - 1;
        (window, epoch.windows[window].0)
    }

    /// The blocks of a window, as ranges of samples; none where samples lie anywhere, or beyond the last
    /// window.
    pub fn ranges(&self, epoch: u64, window: usize) -> Vec<Range<usize>> {
        let Some(starts) = &self.blocks else { return Vec::new() };
        let epoch = self.epoch(epoch);
        let Some(&(_, first)) = epoch.windows.get(window) else { return Vec::new() };
        let last = epoch.windows.get(window + 1).map_or(epoch.blocks.len(), |next| next.1);
        epoch.blocks[first..last]
            .iter()
            .map(|&block| starts[block as usize]..starts[block as usize + 1])
            .collect()
    }

    fn epoch(&self, number: u64) -> Arc<Epoch> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(epoch) = cache.epochs.iter().find(|epoch| epoch.number == number) {
            return epoch.clone();
        }
        let epoch = Arc::new(self.new_epoch(number));
        cache.epochs.push_back(epoch.clone());
        if cache.epochs.len() > 2 {
            cache.epochs.pop_front();
        }
        epoch
    }

    fn new_epoch(&self, number: u64) -> Epoch {
        let starts = self.blocks.as_deref().unwrap_or_default();
        let count = starts.len().saturating_sub(1);
        let mut rng = rng(self.config.seed, number, self.config.part as u64, Domain::Blocks);
        let length = |block: u32| starts[block as usize + 1] - starts[block as usize];
        let mut blocks: Vec<u32> = (0..count as u32).collect();
        if self.config.resample {
            let mut left = self.len;
            blocks = std::iter::from_fn(|| {
                let block = (left > 0).then(|| rng.random_range(0..count as u32))?;
                left = left.saturating_sub(length(block));
                Some(block)
            })
            .collect();
        } else {
            shuffle(&mut blocks, &mut rng);
        }
        let (mut windows, mut place, mut first, mut first_block) = (Vec::new(), 0, 0, 0);
        for (at, &block) in blocks.iter().enumerate() {
            let count = at - first_block;
            let full =
                (place - first >= self.config.window && count >= LEAST_BLOCKS) || count >= self.most_blocks;
            if windows.is_empty() || full {
                windows.push((place, at));
                (first, first_block) = (place, at);
            }
            place += length(block);
        }
        Epoch { number, blocks, windows }
    }

    /// The samples of a window in their order.
    fn window(&self, epoch: u64, window: usize) -> Arc<Vec<usize>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().windows.iter().find(|known| known.of == (epoch, window)) {
            return known.samples.clone();
        }
        let number = (self.config.part as u64) << 40 | window as u64;
        let mut rng = rng(self.config.seed, epoch, number, Domain::Window);
        let mut samples: Vec<usize> = match &self.blocks {
            Some(_) => self.ranges(epoch, window).into_iter().flatten().collect(),
            None if self.config.resample => (0..self.len).map(|_| rng.random_range(0..self.len)).collect(),
            None => (0..self.len).collect(),
        };
        shuffle(&mut samples, &mut rng);
        let samples = Arc::new(samples);
        let mut cache = lock();
        cache.windows.push_back(Window { of: (epoch, window), samples: samples.clone() });
        // The window that is read, the one read ahead into, and one of an epoch's other half for substitutes.
        if cache.windows.len() > 3 {
            cache.windows.pop_front();
        }
        samples
    }
}

/// Which source of a mix the draw `number` is taken from, and how many draws of that source come before it.
/// Each source gets its share of any stretch of draws, to one draw, so a mix needs no memory of what it drew.
pub(super) fn mix(weights: &[f64], number: u64) -> (usize, u64) {
    let mut rest = number;
    let mut total: f64 = weights.iter().sum();
    for (part, &weight) in weights.iter().enumerate().take(weights.len() - 1) {
        let share = weight / total;
        let before = (rest as f64 * share) as u64;
        if ((rest + 1) as f64 * share) as u64 > before {
            return (part, before);
        }
        rest -= before;
        total -= weight;
    }
    (weights.len() - 1, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Result, Sample};

    struct Blocks(Option<Vec<u32>>, usize);

    impl Dataset for Blocks {
        fn name(&self) -> &str {
            "blocks"
        }
        fn len(&self) -> usize {
            self.1
        }
        fn sample(&self, _: usize) -> Result<Sample> {
            unreachable!("an order reads nothing")
        }
        fn blocks(&self) -> Option<Vec<u32>> {
            self.0.clone()
        }
    }

    fn order(blocks: Option<Vec<u32>>, len: usize, resample: bool, window: usize) -> Order {
        let config = OrderConfig { shuffle: true, resample, window, seed: 5, part: 1 };
        Order::new(&Blocks(blocks, len), config)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_epoch_has_every_sample_once_whatever_place_is_asked_for_first(
            lengths in proptest::collection::vec(1u32..9, 1..40), window in 1usize..60, blocked: bool, ask in 0usize..400,
        ) {
            let len = lengths.iter().sum::<u32>() as usize;
            let (one, other) = [(); 2].map(|()| order(blocked.then(|| lengths.clone()), len, false, window)).into();
            let asked = other.at(3, ask % len);
            let epoch: Vec<usize> = (0..len).map(|place| one.at(3, place)).collect();
            prop_assert_eq!(asked, epoch[ask % len]);
            let mut sorted = epoch.clone();
            sorted.sort();
            prop_assert_eq!(sorted, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn a_mix_gives_each_source_its_share_and_each_draw_once(
            weights in proptest::collection::vec(0.05f64..5.0, 1..6), from in 0u64..1_000_000_000,
        ) {
            let total: f64 = weights.iter().sum();
            let mut next: Vec<Option<u64>> = vec![None; weights.len()];
            let mut drawn = vec![0; weights.len()];
            for number in from..from + 500 {
                let (part, before) = mix(&weights, number);
                prop_assert!(next[part].is_none_or(|next| next == before), "{part} {before}");
                next[part] = Some(before + 1);
                drawn[part] += 1;
            }
            for (drawn, weight) in drawn.iter().zip(&weights) {
                let expected = 500.0 * weight / total;
                prop_assert!((f64::from(*drawn) - expected).abs() < 1.0 + weights.len() as f64);
            }
        }
    }

    #[test]
    fn a_mix_begins_each_source_at_its_beginning() {
        let drawn: Vec<_> = (0..8).map(|number| mix(&[3.0, 1.0], number)).collect();
        assert_eq!(drawn, [(1, 0), (0, 0), (0, 1), (0, 2), (1, 1), (0, 3), (0, 4), (0, 5)]);
    }

    #[test]
    fn windows_hold_whole_blocks_of_many_places() {
        let order = order(Some(vec![10; 100]), 1000, false, 200);
        let ranges = order.ranges(0, 1);
        assert_eq!(ranges.len(), 20);
        let mut inside: Vec<usize> = ranges.into_iter().flatten().collect();
        let mut given: Vec<usize> = (200..400).map(|place| order.at(0, place)).collect();
        assert_ne!(inside, given);
        inside.sort();
        given.sort();
        assert_eq!(inside, given);
        assert!(given.last().unwrap() - given[0] > 500);
        assert!(order.ranges(0, 5).is_empty());
    }

    #[test]
    fn resampling_draws_with_replacement_and_anew_each_epoch() {
        for blocks in [Some(vec![4; 250]), None] {
            let order = order(blocks, 1000, true, 100);
            let draw = |epoch| (0..1000).map(|place| order.at(epoch, place)).collect::<Vec<_>>();
            let different: std::collections::BTreeSet<_> = draw(0).into_iter().collect();
            assert!((550..720).contains(&different.len()), "{}", different.len()); // 1 - 1/e of them
            assert_ne!(draw(0), draw(1));
        }
    }
}
