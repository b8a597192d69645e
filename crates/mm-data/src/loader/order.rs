//! The order of the samples of a data set.
//!
//! An epoch is the blocks of the data set in a shuffled order, divided into windows of some thousand samples;
//! within a window the samples are shuffled again. So reads stay within the blocks of one window, while
//! adjacent samples end up far apart. A data set without blocks is one window. The order depends on seed,
//! epoch and place alone, and places can be queried in any order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;

use crate::Dataset;
use crate::rng::{Domain, rng, shuffle};

/// The minimum number of blocks in a window, so that samples mix well.
const LEAST_BLOCKS: usize = 16;

/// The config of an order.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderConfig {
    pub shuffle: bool,
    /// Whether blocks are drawn with replacement.
    pub resample: bool,
    /// The minimum number of samples in a window.
    pub window: usize,
    pub seed: u64,
    /// The index of the data set in the mix.
    pub part: usize,
}

/// The order of a data set.
pub(super) struct Order {
    config: OrderConfig,
    len: usize,
    /// The start of each block, and the end of the last; `None` where access is random.
    blocks: Option<Vec<usize>>,
    /// The maximum number of blocks in a window, which takes precedence.
    most_blocks: usize,
    cache: Mutex<Cache>,
}

/// The last computed epochs and windows: successive places need the same ones.
#[derive(Default)]
struct Cache {
    epochs: VecDeque<Arc<Epoch>>,
    windows: VecDeque<Window>,
}

/// The shuffled samples of a window of an epoch.
struct Window {
    of: (u64, usize),
    samples: Arc<Vec<usize>>,
}

/// The order of the blocks of an epoch.
struct Epoch {
    number: u64,
    /// In shuffled order.
    blocks: Vec<u32>,
    /// The start of each window: its first place, and the index of its first block.
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

    /// The index of the sample at a place below the length of the data set.
    pub fn at(&self, epoch: u64, place: usize) -> usize {
        if !self.config.shuffle {
            return place;
        }
        let (window, first) = self.window_of(epoch, place);
        self.window(epoch, window)[place - first]
    }

    /// The window of a place, and the first place of that window.
    pub fn window_of(&self, epoch: u64, place: usize) -> (usize, usize) {
        if self.blocks.is_none() {
            return (0, 0);
        }
        let epoch = self.epoch(epoch);
        let window = epoch.windows.partition_point(|&(first, _)| first <= place) - 1;
        (window, epoch.windows[window].0)
    }

    /// The blocks of a window as ranges of samples; empty where access is random, or beyond the last window.
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
        let mut windows = Vec::new();
        let mut place = 0;
        let mut first = 0;
        let mut first_block = 0;
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

    /// The shuffled samples of a window.
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
        // The current window, the prefetched one, and one of the other half of the epoch for replacements.
        if cache.windows.len() > 3 {
            cache.windows.pop_front();
        }
        samples
    }
}

/// The data set of a mix that the draw `number` is taken from, and the number of earlier draws from it. Any
/// run of consecutive draws holds each data set in proportion to its weight, to one draw, so a mix has no
/// state.
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

/// A shuffled order of the draws of a mix. It depends on the seed and the number of the draw alone.
pub(super) struct ShuffledDraws {
    seed: u64,
    /// The last computed window, with its number: successive draws need the same one.
    window: Option<(u64, Vec<u64>)>,
}

impl ShuffledDraws {
    /// The number of draws in a window.
    const WINDOW: u64 = 4096;

    pub fn new(seed: u64) -> Self {
        Self { seed, window: None }
    }

    /// The draw of [`mix`] that takes the place of the draw `number`.
    pub fn at(&mut self, number: u64) -> u64 {
        let window = number / Self::WINDOW;
        let draws = match &mut self.window {
            Some((known, draws)) if *known == window => draws,
            other => {
                let mut draws: Vec<u64> = (0..Self::WINDOW).map(|at| window * Self::WINDOW + at).collect();
                shuffle(&mut draws, &mut rng(self.seed, window, 0, Domain::Mix));
                &mut other.insert((window, draws)).1
            }
        };
        draws[(number % Self::WINDOW) as usize]
    }
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
            unreachable!("an order reads no sample")
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
        #![proptest_config(
            ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() }
        )]

        #[test]
        fn each_epoch_has_every_sample_once_whichever_place_is_queried_first(
            lengths in proptest::collection::vec(1u32..9, 1..40),
            window in 1usize..60,
            blocked: bool,
            query in 0usize..400,
        ) {
            let len = lengths.iter().sum::<u32>() as usize;
            let new = || order(blocked.then(|| lengths.clone()), len, false, window);
            let (one, other) = (new(), new());
            let queried = other.at(3, query % len);
            let epoch: Vec<usize> = (0..len).map(|place| one.at(3, place)).collect();
            prop_assert_eq!(queried, epoch[query % len]);
            let mut sorted = epoch.clone();
            sorted.sort();
            prop_assert_eq!(sorted, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn a_mix_draws_each_data_set_by_its_weight_and_each_sample_in_turn(
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
    fn a_mix_starts_each_data_set_at_its_first_sample() {
        let drawn: Vec<_> = (0..8).map(|number| mix(&[3.0, 1.0], number)).collect();
        assert_eq!(drawn, [(1, 0), (0, 0), (0, 1), (0, 2), (1, 1), (0, 3), (0, 4), (0, 5)]);
    }

    #[test]
    fn shuffled_draws_are_each_draw_of_a_window_once_and_do_not_depend_on_the_first_query() {
        let mut draws = ShuffledDraws::new(3);
        let mut all: Vec<u64> = (0..3 * ShuffledDraws::WINDOW).map(|number| draws.at(number)).collect();
        let late = ShuffledDraws::WINDOW + 77;
        assert_eq!(ShuffledDraws::new(3).at(late), all[late as usize]);
        assert_ne!(ShuffledDraws::new(4).at(late), all[late as usize]);
        assert!(all[..100].windows(2).any(|pair| pair[0] + 1 != pair[1]));
        for window in all.chunks_mut(ShuffledDraws::WINDOW as usize) {
            window.sort();
        }
        assert_eq!(all, (0..3 * ShuffledDraws::WINDOW).collect::<Vec<_>>());
    }

    #[test]
    fn windows_have_complete_blocks_from_many_places() {
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
    fn resampling_draws_with_replacement_and_differs_each_epoch() {
        for blocks in [Some(vec![4; 250]), None] {
            let order = order(blocks, 1000, true, 100);
            let draw = |epoch| (0..1000).map(|place| order.at(epoch, place)).collect::<Vec<_>>();
            let different: std::collections::BTreeSet<_> = draw(0).into_iter().collect();
            assert!((550..720).contains(&different.len()), "{}", different.len()); // 1 - 1/e of them
            assert_ne!(draw(0), draw(1));
        }
    }
}
