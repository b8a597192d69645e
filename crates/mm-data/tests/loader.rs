//! The loader's promises: one order for any number of threads, exact resume, every sample accounted for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mm_data::{
    Batch, Error, Fault, Loader, LoaderConfig, Map, Position, Result, Sample, SampleImage, SampleRng, Source,
};
use proptest::prelude::*;
use rand::RngExt;

/// Numbers as samples; the ones in `bad` are broken.
struct Numbers {
    len: usize,
    bad: Vec<usize>,
}

impl Source for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        if self.bad.contains(&index) {
            return Err(Error::bad(Fault::Image, format!("number {index} is broken")));
        }
        Ok(Sample::new(index.to_string(), SampleImage::Memory(Vec::new())))
    }
}

/// The key and a random number; some samples take longer, so that threads overtake one another.
fn map() -> Map<(usize, u64)> {
    Arc::new(|sample: &Sample, rng: &mut SampleRng| {
        let number: usize = sample.key.parse().unwrap();
        std::thread::sleep(Duration::from_micros((number as u64 * 7919) % 200));
        Ok((number, rng.random()))
    })
}

fn loader(len: usize, bad: &[usize], config: &LoaderConfig, position: Position) -> Result<Loader<(usize, u64)>> {
    Loader::new(Arc::new(Numbers { len, bad: bad.to_vec() }), config.clone(), map(), position)
}

fn batches(loader: &mut Loader<(usize, u64)>, count: usize) -> Vec<Batch<(usize, u64)>> {
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

fn said(result: Result<impl Sized>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn the_order_follows_from_the_seed_and_not_from_the_threads() {
    let with = |workers, seed| {
        let config = LoaderConfig { batch_size: 8, workers, seed, prefetch: 3, ..LoaderConfig::default() };
        batches(&mut loader(50, &[], &config, Position::default()).unwrap(), 20)
    };
    let one = with(1, 7);
    assert_eq!(one, with(2, 7));
    assert_eq!(one, with(4, 7));
    assert_ne!(one, with(1, 8));
}

#[test]
fn an_epoch_for_evaluation_gives_every_sample_once_and_in_order() {
    let config = LoaderConfig { batch_size: 8, shuffle: false, drop_last: false, ..LoaderConfig::default() };
    let mut loader = loader(21, &[], &config, Position::default()).unwrap();
    for epoch in 0..2 {
        let all: Vec<_> = loader.epoch().map(|batch| batch.unwrap()).collect();
        assert_eq!(all.iter().map(|batch| batch.items.len()).collect::<Vec<_>>(), [8, 8, 5]);
        let numbers: Vec<usize> = all.iter().flat_map(|batch| batch.items.iter().map(|item| item.0)).collect();
        assert_eq!(numbers, (0..21).collect::<Vec<_>>());
        assert!(all.iter().all(|batch| batch.epoch == epoch));
    }
}

#[test]
fn an_epoch_left_early_goes_on_where_it_was_left() {
    let config = LoaderConfig { batch_size: 4, shuffle: false, drop_last: false, ..LoaderConfig::default() };
    let mut loader = loader(6, &[], &config, Position::default()).unwrap();
    assert_eq!(loader.epoch().next().unwrap().unwrap().items.len(), 4);
    assert_eq!(loader.next_batch().unwrap().keys, ["4", "5"]);
    assert_eq!(loader.next_batch().unwrap().keys, ["0", "1", "2", "3"]);
}

#[test]
fn a_training_epoch_has_no_sample_twice_and_leaves_out_the_rest() {
    let config = LoaderConfig { batch_size: 8, ..LoaderConfig::default() };
    let mut loader = loader(21, &[], &config, Position::default()).unwrap();
    let mut orders = Vec::new();
    for _ in 0..3 {
        let mut keys: Vec<_> = batches(&mut loader, 2).into_iter().flat_map(|batch| batch.keys).collect();
        orders.push(keys.clone());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 16);
    }
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn bad_samples_are_passed_over_counted_and_named() {
    let config = LoaderConfig { batch_size: 5, max_bad_samples: 3, drop_last: false, ..LoaderConfig::default() };
    let mut loader = loader(20, &[3, 11, 17], &config, Position::default()).unwrap();
    let sizes: Vec<_> = loader.epoch().map(|batch| batch.unwrap().items.len()).collect();
    assert_eq!(sizes, [5, 5, 5, 2]);
    assert_eq!((loader.position().read, loader.position().skipped), (17, 3));
    assert_eq!(loader.epoch().count(), 4); // the same three again are no new ones
    assert_eq!((loader.position().read, loader.position().skipped), (34, 6));
    assert_eq!(loader.position().bad.iter().copied().collect::<Vec<_>>(), [3, 11, 17]);
    let mut reasons: Vec<_> = loader.bad_samples().iter().map(|bad| format!("{}: {}", bad.key, bad.reason)).collect();
    reasons.sort();
    assert_eq!(reasons[0], "#11: number 11 is broken");
    assert_eq!(reasons.len(), 3);
}

#[test]
fn more_bad_samples_than_allowed_stop_with_the_list() {
    let config = LoaderConfig { batch_size: 5, max_bad_samples: 1, shuffle: false, ..LoaderConfig::default() };
    let mut loader = loader(20, &[3, 11], &config, Position::default()).unwrap();
    assert!(loader.next_batch().is_ok());
    let message = said((0..3).try_for_each(|_| loader.next_batch().map(drop)));
    assert!(message.contains("2 bad samples, more than max_bad_samples = 1"), "{message}");
    assert!(message.contains("#3: number 3 is broken; #11: number 11 is broken"), "{message}");
}

#[test]
fn a_panic_in_the_map_is_a_bad_sample() {
    let map: Map<()> = Arc::new(|sample, _| if sample.key == "2" { panic!("decoder bug") } else { Ok(()) });
    let config = LoaderConfig { batch_size: 3, max_bad_samples: 1, shuffle: false, ..LoaderConfig::default() };
    let source = Arc::new(Numbers { len: 4, bad: Vec::new() });
    let mut loader = Loader::new(source, config, map, Position::default()).unwrap();
    assert_eq!(loader.next_batch().unwrap().keys, ["0", "1", "3"]);
    assert_eq!(loader.bad_samples()[0].reason, "panicked: decoder bug");
}

#[test]
fn an_epoch_of_too_few_good_samples_is_an_error_and_no_hang() {
    let config = LoaderConfig { batch_size: 4, max_bad_samples: 9, ..LoaderConfig::default() };
    let message = said(loader(5, &[0, 1, 2], &config, Position::default()).unwrap().next_batch());
    assert!(message.contains("epoch 0 gave no batch of 4: only 2 of 5 samples can be read"), "{message}");
}

#[test]
fn impossible_settings_are_refused_in_words() {
    let config = LoaderConfig { batch_size: 8, ..LoaderConfig::default() };
    assert!(said(loader(0, &[], &config, Position::default())).contains("`numbers` has no samples"));
    assert!(said(loader(7, &[], &config, Position::default())).contains("batch_size = 8 is larger than `numbers`"));
    let none = LoaderConfig { batch_size: 0, ..config.clone() };
    assert!(said(loader(7, &[], &none, Position::default())).contains("at least 1"));
    let saved = loader(30, &[], &config, Position::default()).unwrap().next_batch().unwrap().position;
    assert!(said(loader(31, &[], &config, saved)).contains("30 samples, but `numbers` has 31"));
}

#[test]
fn a_dropped_loader_stops_its_threads_at_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let map: Map<()> = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    });
    let config = LoaderConfig { batch_size: 2, prefetch: 5000, workers: 2, ..LoaderConfig::default() };
    let source = Arc::new(Numbers { len: 20_000, bad: Vec::new() });
    let mut loader = Loader::new(source, config, map, Position::default()).unwrap();
    loader.next_batch().unwrap();
    assert!(loader.time_waiting() > Duration::ZERO);
    let begun = Instant::now();
    drop(loader);
    assert!(begun.elapsed() < Duration::from_secs(2));
    let after = calls.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(calls.load(Ordering::Relaxed), after);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_loader_from_any_position_goes_on_exactly(
        len in 5usize..40, batch_size in 1usize..5, workers in 1usize..4, stop in 0usize..20,
        shuffle: bool, drop_last: bool, seed: u64, bad in proptest::collection::vec(0usize..40, 0..2),
    ) {
        let config = LoaderConfig { batch_size, workers, shuffle, drop_last, seed, max_bad_samples: 2, ..LoaderConfig::default() };
        prop_assume!(len - bad.iter().filter(|&&index| index < len).count() >= batch_size);
        let straight = batches(&mut loader(len, &bad, &config, Position::default()).unwrap(), stop + 10);
        let mut first = loader(len, &bad, &config, Position::default()).unwrap();
        let position = batches(&mut first, stop).last().map_or_else(Position::default, |batch| batch.position.clone());
        // Saved as a run saves it, and read by a loader with other threads.
        let saved = serde_json::to_string(&position).unwrap();
        let other = LoaderConfig { workers: 4 - workers, prefetch: 7, ..config };
        let mut second = loader(len, &bad, &other, serde_json::from_str(&saved).unwrap()).unwrap();
        prop_assert_eq!(&straight[stop..], &batches(&mut second, 10)[..]);
    }
}
