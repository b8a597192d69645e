//! The guarantees of the loader: one order for any number of threads, exact resume, each sample counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mm_data::{
    Batch, BatchGroups, Dataset, Error, Fault, Item, Loader, LoaderConfig, Map, Position, Rank, Result,
    Sample, SampleImage, SampleRng,
};
use proptest::prelude::*;
use rand::RngExt;

/// Numbers as samples; the ones in `bad` are broken.
struct Numbers {
    len: usize,
    bad: Vec<usize>,
}

impl Dataset for Numbers {
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

#[derive(Debug, Clone, PartialEq)]
struct Drawn(usize, u64);

impl Item for Drawn {
    fn bytes(&self) -> usize {
        1000
    }
}

/// The key and a random number. Some samples take longer, so that threads finish out of order.
fn map() -> Map<Drawn> {
    Arc::new(|sample: &Sample, rng: &mut SampleRng| {
        let number: usize = sample.key.parse().unwrap();
        std::thread::sleep(Duration::from_micros((number as u64 * 7919) % 200));
        Ok(Drawn(number, rng.random()))
    })
}

fn loader(len: usize, bad: &[usize], config: &LoaderConfig, position: Position) -> Result<Loader<Drawn>> {
    Loader::new(
        Arc::new(Numbers { len, bad: bad.to_vec() }),
        config.clone(),
        Rank::default(),
        map(),
        position,
    )
}

fn batches(loader: &mut Loader<Drawn>, count: usize) -> Vec<Batch<Drawn>> {
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

/// What a thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Does `work` on this thread with the log on.
    fn during(&self, work: impl FnOnce()) {
        let writer = self.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, work);
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Waits until `is_done`, for at most a minute.
fn wait_until(is_done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_done() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn message_of(result: Result<impl Sized>) -> String {
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
        let numbers: Vec<usize> =
            all.iter().flat_map(|batch| batch.items.iter().map(|item| item.0)).collect();
        assert_eq!(numbers, (0..21).collect::<Vec<_>>());
        assert!(all.iter().all(|batch| batch.epoch == epoch));
    }
}

#[test]
fn an_interrupted_epoch_resumes_at_its_position() {
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
fn bad_samples_of_an_evaluation_are_left_out_counted_and_named() {
    let config = LoaderConfig {
        batch_size: 5,
        max_bad_samples: 3,
        shuffle: false,
        drop_last: false,
        ..LoaderConfig::default()
    };
    let mut loader = loader(20, &[3, 11, 17], &config, Position::default()).unwrap();
    for epoch in 1..3 {
        let sizes: Vec<_> = loader.epoch().map(|batch| batch.unwrap().items.len()).collect();
        assert_eq!(sizes, [4, 5, 4, 4]);
        let tally = &loader.position().tally;
        assert_eq!(
            (tally.read, tally.all_skipped(), tally.skipped[&Fault::Image]),
            (17 * epoch, 3 * epoch, 3 * epoch)
        );
    }
    assert_eq!(loader.position().bad.len(), 3); // the same three again do not count as new
    let named: Vec<_> = loader
        .bad_samples()
        .iter()
        .map(|bad| format!("{} {}: {}", bad.source, bad.key, bad.reason))
        .collect();
    assert_eq!(named[1], "numbers #11: number 11 is broken");
    assert_eq!(named.len(), 3);
}

#[test]
fn a_bad_sample_is_replaced_in_training() {
    let config = LoaderConfig { batch_size: 5, max_bad_samples: 3, ..LoaderConfig::default() };
    let mut loader = loader(20, &[3, 11, 17], &config, Position::default()).unwrap();
    let batches = batches(&mut loader, 4);
    for batch in &batches {
        let different: std::collections::BTreeSet<_> = batch.keys.iter().collect();
        assert_eq!((batch.items.len(), different.len()), (5, 5));
    }
    let tally = &batches[3].position.tally;
    assert_eq!((tally.read, tally.all_skipped(), batches[3].position.epoch), (17, 3, 1));
}

/// Every fourth number is of group 1, and 5 and 6 are the only ones of group 2.
fn groups(len: usize) -> BatchGroups {
    (0..len).map(|number| if number == 5 || number == 6 { 2 } else { u16::from(number % 4 == 0) }).collect()
}

fn grouped(config: &LoaderConfig, rank: Rank, bad: &[usize], position: Position) -> Loader<Drawn> {
    let source = Arc::new(Numbers { len: 60, bad: bad.to_vec() });
    Loader::with_groups(source, config.clone(), rank, map(), position, Some(groups(60))).unwrap()
}

#[test]
fn a_batch_is_of_one_group_and_the_order_depends_on_neither_threads_nor_processes_nor_a_pause() {
    let config = LoaderConfig { batch_size: 6, max_bad_samples: 9, seed: 3, ..LoaderConfig::default() };
    let bad = [4, 9, 11];
    let whole = batches(&mut grouped(&config, Rank::default(), &bad, Position::default()), 24);
    let group = groups(60);
    for batch in &whole {
        let first = group[batch.items[0].0];
        assert!(batch.items.iter().all(|item| group[item.0] == first), "{batch:?}");
    }
    // An epoch has 15 of group 1, and 43 of group 0: two and seven batches.
    for (number, epoch) in whole.chunks(9).enumerate().take(2) {
        assert!(epoch.iter().all(|batch| batch.epoch == number as u64), "{number}");
        let of_one = epoch.iter().filter(|batch| group[batch.items[0].0] == 1).count();
        assert_eq!(of_one, 2);
    }
    assert_ne!(whole[0].keys, whole[9].keys);
    for world in [2, 3] {
        let mut position = Position::default();
        let mut shares: Vec<Vec<Batch<Drawn>>> = Vec::new();
        for index in 0..world {
            let config = LoaderConfig { workers: 1 + index, prefetch: 1 + index, ..config.clone() };
            let mut loader = grouped(&config, Rank { index, world }, &bad, Position::default());
            shares.push(batches(&mut loader, 7));
            position = loader.position().clone();
        }
        for step in 0..7 {
            let joined: Vec<Drawn> = shares.iter().flat_map(|share| share[step].items.clone()).collect();
            assert_eq!(joined, whole[step].items, "step {step} of {world} processes");
        }
        // One process goes on from there, is interrupted in the next epoch, and goes on again.
        let mut rest = Vec::new();
        for count in [4, 13] {
            let mut loader = grouped(&config, Rank::default(), &bad, position);
            rest.extend(batches(&mut loader, count).into_iter().map(|batch| batch.items));
            position = loader.position().clone();
        }
        assert_eq!(rest, whole[7..].iter().map(|batch| batch.items.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn groups_that_fill_no_batch_or_are_of_other_samples_are_refused() {
    let config = LoaderConfig { batch_size: 50, ..LoaderConfig::default() };
    let message = message_of(grouped(&config, Rank::default(), &[], Position::default()).next_batch());
    assert!(message.contains("no batch is ever full"), "{message}");
    let source = Arc::new(Numbers { len: 7, bad: vec![] });
    let config = LoaderConfig { batch_size: 2, ..LoaderConfig::default() };
    let other =
        Loader::with_groups(source, config, Rank::default(), map(), Position::default(), Some(groups(8)));
    assert!(message_of(other).contains("8 groups for 7 samples"));
}

#[test]
fn many_processes_see_the_batches_of_one() {
    let all: Vec<usize> = (0..60).collect();
    for bad in [&[][..], &[3, 11, 17, 40]] {
        let config = LoaderConfig { batch_size: 12, max_bad_samples: 9, seed: 3, ..LoaderConfig::default() };
        let whole = batches(&mut loader(all.len(), bad, &config, Position::default()).unwrap(), 12);
        for world in [2, 3, 4] {
            let mut position = Position::default();
            let mut shares: Vec<Vec<Batch<Drawn>>> = Vec::new();
            for rank in 0..world {
                let source = Arc::new(Numbers { len: all.len(), bad: bad.to_vec() });
                let config = LoaderConfig { workers: 1 + rank, prefetch: 1 + rank, ..config.clone() };
                let mut loader =
                    Loader::new(source, config, Rank { index: rank, world }, map(), Position::default())
                        .unwrap();
                shares.push(batches(&mut loader, 7));
                position = loader.position().clone();
            }
            for step in 0..7 {
                let joined: Vec<Drawn> = shares.iter().flat_map(|share| share[step].items.clone()).collect();
                assert_eq!(joined, whole[step].items, "step {step} of {world} processes, {} bad", bad.len());
            }
            // One process resumes from their positions.
            let mut alone = loader(all.len(), bad, &config, position).unwrap();
            let rest: Vec<_> = batches(&mut alone, 5).into_iter().map(|batch| batch.items).collect();
            assert_eq!(rest, whole[7..].iter().map(|batch| batch.items.clone()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn more_bad_samples_than_allowed_stop_with_the_list() {
    let config =
        LoaderConfig { batch_size: 5, max_bad_samples: 1, shuffle: false, ..LoaderConfig::default() };
    let mut loader = loader(20, &[3, 11], &config, Position::default()).unwrap();
    assert!(loader.next_batch().is_ok());
    let message = message_of((0..3).try_for_each(|_| loader.next_batch().map(drop)));
    assert!(message.contains("2 bad samples, more than max_bad_samples = 1"), "{message}");
    assert!(message.contains("#3: number 3 is broken; #11: number 11 is broken"), "{message}");
}

#[test]
fn bad_samples_are_written_down_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad_samples.jsonl");
    let config =
        LoaderConfig { batch_size: 5, max_bad_samples: 3, drop_last: false, ..LoaderConfig::default() };
    for _ in 0..2 {
        let mut loader = loader(20, &[3, 11], &config, Position::default()).unwrap();
        loader.log_bad_samples(&path).unwrap();
        assert_eq!(loader.epoch().count() + loader.epoch().count(), 8);
    }
    let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[1],
        r##"{"source":"numbers","key":"#3","fault":"image","reason":"number 3 is broken"}"##
    );
}

#[test]
fn a_panic_in_the_map_is_a_bad_sample() {
    let map: Map<Drawn> =
        Arc::new(|sample, _| if sample.key == "2" { panic!("decoder bug") } else { Ok(Drawn(0, 0)) });
    let config = LoaderConfig {
        batch_size: 4,
        max_bad_samples: 1,
        shuffle: false,
        drop_last: false,
        ..LoaderConfig::default()
    };
    let source = Arc::new(Numbers { len: 4, bad: Vec::new() });
    let mut loader = Loader::new(source, config, Rank::default(), map, Position::default()).unwrap();
    let batch = loader.next_batch().unwrap();
    assert_eq!(
        (batch.keys, batch.indices),
        (vec!["0".to_owned(), "1".to_owned(), "3".to_owned()], vec![0, 1, 3])
    );
    assert_eq!(loader.bad_samples()[0].reason, "panicked: decoder bug");
}

#[test]
fn nothing_but_bad_samples_is_an_error_and_no_hang() {
    let bad: Vec<usize> = (0..500).collect();
    let training = LoaderConfig { batch_size: 4, max_bad_samples: 999, ..LoaderConfig::default() };
    let message = message_of(loader(500, &bad, &training, Position::default()).unwrap().next_batch());
    assert!(message.contains("100 samples in a row cannot be read"), "{message}");
    let evaluation = LoaderConfig { drop_last: false, ..training };
    let mut loader = loader(500, &bad, &evaluation, Position::default()).unwrap();
    assert!(loader.epoch().next().is_none());
    assert!(message_of(loader.next_batch()).contains("epoch 1 has no batch"));
}

#[test]
fn memory_for_reading_ahead_is_bounded() {
    let ahead = |prefetch_bytes, expected| {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let map: Map<Drawn> = Arc::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Drawn(0, 0))
        });
        let config = LoaderConfig { batch_size: 4, prefetch: 50, prefetch_bytes, ..LoaderConfig::default() };
        let source = Arc::new(Numbers { len: 1000, bad: Vec::new() });
        let mut loader = Loader::new(source, config, Rank::default(), map, Position::default()).unwrap();
        // The size of items is unknown before the first batch, so prefetching is not yet bounded.
        let read: usize = (0..60).map(|_| loader.next_batch().unwrap().items.len()).sum();
        wait_until(|| calls.load(Ordering::Relaxed) - read >= expected);
        std::thread::sleep(Duration::from_millis(50)); // for more than is expected
        calls.load(Ordering::Relaxed) - read
    };
    assert!(ahead(20_000, 1) <= 20);
    assert!(ahead(1_000_000, 100) >= 100);
    assert_eq!(ahead(0, 0), 0);
}

#[test]
fn a_stalled_loader_reports_the_cause() {
    let expected = "waiting for numbers #7; 0.0 MB/s meanwhile, 8 samples ready behind it, \
                    1 of 2 workers busy, 2 of them alive";
    let log = Log::default();
    let map: Map<Drawn> = Arc::new({
        let log = log.clone();
        move |sample, _| {
            if sample.key == "7" {
                wait_until(|| log.text().contains(expected));
            }
            Ok(Drawn(0, 0))
        }
    });
    let config = LoaderConfig {
        batch_size: 8,
        workers: 2,
        shuffle: false,
        stall_seconds: 0.1,
        ..LoaderConfig::default()
    };
    let source = Arc::new(Numbers { len: 20, bad: Vec::new() });
    let mut loader = Loader::new(source, config, Rank::default(), map, Position::default()).unwrap();
    log.during(|| drop(loader.next_batch().unwrap()));
    assert!(log.text().contains(expected), "{}", log.text());
}

#[test]
fn impossible_settings_are_refused_in_words() {
    let config = LoaderConfig { batch_size: 8, ..LoaderConfig::default() };
    assert!(message_of(loader(0, &[], &config, Position::default())).contains("`numbers` has no samples"));
    assert!(
        message_of(loader(7, &[], &config, Position::default()))
            .contains("batch_size = 8 is larger than `numbers`")
    );
    let none = LoaderConfig { batch_size: 0, ..config.clone() };
    assert!(message_of(loader(7, &[], &none, Position::default())).contains("at least 1"));
    let saved = loader(30, &[], &config, Position::default()).unwrap().next_batch().unwrap().position;
    assert!(message_of(loader(31, &[], &config, saved)).contains("30 samples, but `numbers` has 31"));
}

#[test]
fn a_dropped_loader_stops_its_threads_at_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let map: Map<Drawn> = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        Ok(Drawn(0, 0))
    });
    let config = LoaderConfig { batch_size: 2, prefetch: 5000, workers: 2, ..LoaderConfig::default() };
    let source = Arc::new(Numbers { len: 20_000, bad: Vec::new() });
    let mut loader = Loader::new(source, config, Rank::default(), map, Position::default()).unwrap();
    loader.next_batch().unwrap();
    assert!(loader.data_wait() > Duration::ZERO);
    drop(loader);
    let after = calls.load(Ordering::Relaxed);
    assert!(after < 5000, "{after} of 10000 samples that it might read ahead");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(calls.load(Ordering::Relaxed), after);
}

proptest! {
    #![proptest_config(
        ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() }
    )]

    #[test]
    fn a_loader_resumes_exactly_from_any_position(
        len in 5usize..40, batch_size in 1usize..5, workers in 1usize..4, stop in 0usize..20,
        shuffle: bool, drop_last: bool, seed: u64, bad in proptest::collection::vec(0usize..40, 0..2),
    ) {
        let max_bad_samples = 2;
        let config = LoaderConfig {
            batch_size, workers, shuffle, drop_last, seed, max_bad_samples, ..LoaderConfig::default()
        };
        prop_assume!(len > 2 * batch_size);
        let straight = batches(&mut loader(len, &bad, &config, Position::default()).unwrap(), stop + 10);
        let mut first = loader(len, &bad, &config, Position::default()).unwrap();
        let stopped = batches(&mut first, stop);
        let position = stopped.last().map_or_else(Position::default, |batch| batch.position.clone());
        // Saved as in a checkpoint, and resumed by a loader with another number of threads.
        let saved = serde_json::to_string(&position).unwrap();
        let other = LoaderConfig { workers: 4 - workers, prefetch: 7, ..config };
        let mut second = loader(len, &bad, &other, serde_json::from_str(&saved).unwrap()).unwrap();
        prop_assert_eq!(&straight[stop..], &batches(&mut second, 10)[..]);
    }
}
