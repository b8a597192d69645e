//! WebDataset shards, complete and broken, read by index and as streams.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mm_data::{
    BadSample, Dataset, DatasetConfig, Fault, Item, Loader, LoaderConfig, Map, Position, Rank, Result,
    Sample, SampleRng,
};
use rand::{RngExt, SeedableRng};

mod odd_tars;

/// A tar of these files.
fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// `count` samples from number `from`, as img2dataset writes them.
fn shard(from: usize, count: usize) -> Vec<u8> {
    let files = (from..from + count).flat_map(|number| {
        let json = format!(
            r#"{{"caption": "number {number}", "url": "u", "status": "success", "error_message": null}}"#
        );
        let member = |end: &str, bytes: Vec<u8>| (format!("{number:09}.{end}"), bytes);
        [
            member("jpg", vec![number as u8; 300 + number % 700]),
            member("txt", format!("number {number}").into_bytes()),
            member("json", json.into_bytes()),
        ]
    });
    tar(&files.collect::<Vec<_>>())
}

/// Shards of some lengths in a folder: `s-000.tar` and so on.
fn shards(lengths: &[usize]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut from = 0;
    for (number, &length) in lengths.iter().enumerate() {
        std::fs::write(folder.path().join(format!("s-{number:03}.tar")), shard(from, length)).unwrap();
        from += length;
    }
    folder
}

fn config(shards: &str, keys: &str) -> DatasetConfig {
    toml::from_str(&format!("kind = 'webdataset'\nshards = '''{shards}'''\n{keys}")).unwrap()
}

fn open(folder: &Path, keys: &str) -> Arc<dyn Dataset> {
    Arc::from(config(&format!("{}/s-*.tar*", folder.display()), keys).open().unwrap())
}

#[derive(Debug, Clone, PartialEq)]
struct Read(String, u64);

impl Item for Read {
    fn bytes(&self) -> usize {
        100
    }
}

fn map() -> Map<Read> {
    Arc::new(|sample: &Sample, rng: &mut SampleRng| {
        assert!(!sample.image()?.bytes()?.is_empty());
        Ok(Read(sample.captions[0].clone(), rng.random()))
    })
}

fn loader(source: Arc<dyn Dataset>, config: &LoaderConfig, split: Rank, position: Position) -> Loader<Read> {
    Loader::new(source, config.clone(), split, map(), position).unwrap()
}

fn captions(loader: &mut Loader<Read>, batches: usize) -> Vec<String> {
    (0..batches).flat_map(|_| loader.next_batch().unwrap().items).map(|read| read.0).collect()
}

fn message_of<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

const TRAINING: LoaderConfig = LoaderConfig {
    batch_size: 8,
    workers: 2,
    prefetch: 2,
    prefetch_bytes: 1 << 20,
    shuffle: true,
    shuffle_window: 64,
    resample: false,
    seed: 1,
    max_bad_samples: 0,
    drop_last: true,
    stall_seconds: 10.0,
};

#[test]
fn samples_are_found_by_number_over_all_shards() {
    let folder = shards(&[5, 0, 7, 1]);
    let source = open(folder.path(), "");
    assert_eq!(source.len(), 14); // the empty shard counts as one bad sample
    let sample = source.sample(6).unwrap();
    assert_eq!((sample.captions.join("|"), sample.label.as_deref()), ("number 5".into(), None));
    assert!(sample.key.ends_with("s-002.tar/000000005"), "{}", sample.key);
    assert_eq!(sample.image().unwrap().bytes().unwrap().len(), 305);
    let error = source.sample(5).unwrap_err();
    assert_eq!((error.fault(), error.to_string()), (Fault::Shard, "it has no sample".into()));
    assert!(source.key(5).ends_with("s-001.tar"));
    assert!(source.location(13).ends_with("s-003.tar, sample 0"));
    assert_eq!(source.blocks().unwrap().iter().sum::<u32>(), 14);
}

#[test]
fn an_epoch_mixes_shards_and_has_each_sample_once() {
    let folder = shards(&[100; 8]);
    let mut loader = loader(open(folder.path(), ""), &TRAINING, Rank::default(), Position::default());
    let first = captions(&mut loader, 100);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 800);
    let number = |caption: &String| caption.strip_prefix("number ").unwrap().parse::<usize>().unwrap();
    let of_first_batches: BTreeSet<usize> = first[..64].iter().map(|caption| number(caption) / 100).collect();
    assert!(of_first_batches.len() >= 3, "{of_first_batches:?}");
    assert_ne!(first, captions(&mut loader, 100));
}

#[test]
fn a_run_resumes_in_mid_epoch_with_another_number_of_processes() {
    let folder = shards(&[40, 33, 27, 60]);
    let unbroken =
        captions(&mut loader(open(folder.path(), ""), &TRAINING, Rank::default(), Position::default()), 60);
    let mut position = Position::default();
    let mut given = Vec::new();
    // 1, then 4, then 2 processes, each resumed from a position in JSON.
    for (world, batches) in [(1, 7), (4, 16), (2, 37)] {
        let saved = serde_json::to_string(&position).unwrap();
        let mut shares: Vec<Vec<Vec<String>>> = Vec::new();
        for rank in 0..world {
            let from: Position = serde_json::from_str(&saved).unwrap();
            let config = LoaderConfig { workers: 1 + rank % 3, ..TRAINING };
            let mut loader = loader(open(folder.path(), ""), &config, Rank { index: rank, world }, from);
            shares.push((0..batches).map(|_| captions(&mut loader, 1)).collect());
            position = loader.position().clone();
        }
        for batch in 0..batches {
            given.extend(shares.iter().flat_map(|share| share[batch].clone()));
        }
    }
    assert_eq!(given, unbroken);
}

#[test]
fn a_mix_draws_each_source_by_its_weight_and_resumes() {
    let (one, two) = (shards(&[30, 30]), shards(&[20]));
    let source = |folder: &tempfile::TempDir, weight: f64| {
        format!(
            "{{ weight = {weight}, source = {{ kind = 'webdataset', shards = '{}/*.tar' }} }}",
            folder.path().display()
        )
    };
    let mix: DatasetConfig =
        toml::from_str(&format!("kind = 'mix'\nsources = [{}, {}]", source(&one, 1.0), source(&two, 3.0)))
            .unwrap();
    let open = || Arc::from(mix.open().unwrap());
    let mut whole = loader(open(), &TRAINING, Rank::default(), Position::default());
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.extend(whole.next_batch().unwrap().keys);
    }
    let of_two = keys.iter().filter(|key| key.starts_with(&*two.path().to_string_lossy())).count();
    assert_eq!((of_two, keys.len()), (120, 160));
    let mut first = loader(open(), &TRAINING, Rank::default(), Position::default());
    captions(&mut first, 13);
    let mut rest = loader(open(), &TRAINING, Rank::default(), first.position().clone());
    let mut resumed = Vec::new();
    for _ in 13..20 {
        resumed.extend(rest.next_batch().unwrap().keys);
    }
    assert_eq!(keys[13 * 8..], resumed);
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn streams_equal_access_by_index_and_resume_exactly() {
    let folder = shards(&[20, 13, 17]);
    for number in 0..3 {
        let path = folder.path().join(format!("s-{number:03}.tar"));
        std::fs::write(
            folder.path().join(format!("z-{number}.tar.gz")),
            gzipped(&std::fs::read(path).unwrap()),
        )
        .unwrap();
    }
    let at = folder.path().display();
    for (shards, keys) in [
        (format!("{at}/s-*.tar"), "streamed = true\nsamples = 50"),
        (format!("{at}/z-{{0..2}}.tar.gz"), "samples = 50\nshuffle_buffer = 7"),
        (format!("pipe:cat {at}/s-{{000..002}}.tar"), "samples = 50"),
        (format!("pipe:gzip < {at}/s-{{000..002}}.tar"), "samples = 50\nshuffle_buffer = 1"),
    ] {
        let open = || Arc::from(config(&shards, keys).open().unwrap());
        let mut whole = loader(open(), &TRAINING, Rank::default(), Position::default());
        let given = captions(&mut whole, 20);
        // A shuffle buffer larger than an epoch holds several, so that some come late.
        assert!(given.iter().collect::<BTreeSet<_>>().len() > 40, "{shards}");
        let mut first = loader(open(), &TRAINING, Rank::default(), Position::default());
        captions(&mut first, 9);
        let config = LoaderConfig { workers: 3, prefetch: 5, ..TRAINING };
        let mut rest = loader(open(), &config, Rank::default(), first.position().clone());
        assert_eq!(captions(&mut rest, 11), given[9 * 8..], "{shards}");
    }
}

#[test]
fn processes_share_the_shards_of_a_stream() {
    let folder = shards(&[20; 6]);
    let mut seen = BTreeSet::new();
    for rank in 0..3 {
        let source = open(folder.path(), "streamed = true\nsamples = 120");
        let mut loader = loader(
            source,
            &LoaderConfig { batch_size: 12, ..TRAINING },
            Rank { index: rank, world: 3 },
            Position::default(),
        );
        let mine: BTreeSet<String> = captions(&mut loader, 10).into_iter().collect();
        seen.extend(mine);
    }
    // each reads on into its next epoch while its buffer still holds some
    assert!(seen.len() > 70, "{}", seen.len());
    let few = open(folder.path(), "streamed = true\nsamples = 120");
    let message = message_of(Loader::new(
        few,
        LoaderConfig { batch_size: 7, ..TRAINING },
        Rank { index: 0, world: 7 },
        map(),
        Position::default(),
    ));
    assert!(
        message.contains("6 shards for 7 processes: make more shards, or set data.resample = true"),
        "{message}"
    );
}

/// All samples of a set in order, and the bad ones.
fn all(source: Arc<dyn Dataset>) -> (Vec<String>, Vec<BadSample>) {
    let config = LoaderConfig { shuffle: false, drop_last: false, max_bad_samples: 999, ..TRAINING };
    let mut loader = loader(source, &config, Rank::default(), Position::default());
    let read = loader.epoch().flat_map(|batch| batch.unwrap().items).map(|read| read.0).collect();
    (read, loader.bad_samples().to_vec())
}

#[test]
fn a_shard_that_is_cut_off_gone_or_no_tar_is_counted_and_the_others_are_read() {
    let folder = shards(&[10, 10, 10]);
    let path = |number: usize| folder.path().join(format!("s-{number:03}.tar"));
    let whole = std::fs::read(path(1)).unwrap();
    std::fs::write(path(1), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path().join("s-004.tar"), b"<html>404 Not Found</html>").unwrap();
    let names = format!("{}/s-{{000..004}}.tar", folder.path().display());
    let (read, bad) = all(Arc::from(config(&names, "").open().unwrap()));
    assert_eq!((read.len(), bad.len()), (25, 3));
    let ends: Vec<(Fault, &str)> =
        bad.iter().map(|bad| (bad.fault, bad.key.rsplit('/').next().unwrap())).collect();
    assert_eq!(ends, [(Fault::Shard, "s-001.tar"), (Fault::Shard, "s-003.tar"), (Fault::Shard, "s-004.tar")]);
    assert!(bad[0].reason.contains("truncated"), "{}", bad[0].reason);
    assert!(bad[1].reason.contains("No such file"), "{}", bad[1].reason);
    let none = message_of(config("/no/such-{0..3}.tar", "").open());
    assert!(none.contains("none of its 4 shards can be read; the first: /no/such-0.tar"), "{none}");
}

#[test]
fn a_shard_that_vanishes_or_changes_under_a_run_is_bad_and_no_end() {
    let folder = shards(&[10, 10, 10]);
    let source = open(folder.path(), "");
    std::fs::remove_file(folder.path().join("s-001.tar")).unwrap();
    let (read, bad) = all(source);
    assert_eq!((read.len(), bad.len()), (20, 10));
    assert!(
        bad.iter().all(|bad| bad.fault == Fault::Shard && bad.reason.contains("s-001.tar")),
        "{:?}",
        bad[0]
    );
    let source = open(folder.path(), "");
    std::fs::write(folder.path().join("s-000.tar"), shard(0, 3)).unwrap();
    let (read, bad) = all(source);
    assert_eq!((read.len(), bad.len()), (10, 10));
    assert!(bad[0].reason.contains("has changed since the start of the run"), "{:?}", bad[0]);
}

#[test]
fn failed_commands_are_reported_with_their_last_line() {
    let folder = shards(&[10, 10]);
    let at = folder.path().display();
    let list = folder.path().join("list.txt");
    let lines = format!(
        "pipe:head -c 6000 {at}/s-000.tar\npipe:cat {at}/s-001.tar; echo no credit >&2; exit 3\n\
         pipe:no-such-command\n"
    );
    std::fs::write(&list, lines).unwrap();
    let source: Arc<dyn Dataset> =
        Arc::from(config(&list.display().to_string(), "samples = 20").open().unwrap());
    let config = LoaderConfig { max_bad_samples: 3, shuffle: false, ..TRAINING };
    let mut loader = loader(source, &config, Rank::default(), Position::default());
    captions(&mut loader, 2);
    let bad = loader.bad_samples();
    assert_eq!(bad.iter().map(|bad| bad.fault).collect::<Vec<_>>(), [Fault::Shard, Fault::Pipe, Fault::Pipe]);
    assert!(bad[0].reason.contains("the rest is lost"), "{}", bad[0].reason);
    assert!(bad[1].reason.ends_with("exit status: 3): no credit"), "{}", bad[1].reason);
    assert!(bad[2].reason.contains("not found"), "{}", bad[2].reason);
}

#[test]
fn a_command_that_hangs_ends_with_its_loader() {
    let folder = shards(&[10]);
    let mark = folder.path().join("mark");
    let command = format!(
        "pipe:cat {}/s-000.tar; sleep 600 & echo $! > {}; wait",
        folder.path().display(),
        mark.display()
    );
    let source: Arc<dyn Dataset> = Arc::from(config(&command, "samples = 10").open().unwrap());
    let mut loader =
        loader(source, &LoaderConfig { shuffle: false, ..TRAINING }, Rank::default(), Position::default());
    captions(&mut loader, 1);
    let running = || {
        let id = std::fs::read_to_string(&mark).unwrap_or_default();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
        !state.is_empty() && !state.contains(" Z ")
    };
    while !mark.exists() || std::fs::read(&mark).unwrap().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(running());
    let dropped = std::thread::spawn(move || drop(loader));
    dropped.join().unwrap();
    for _ in 0..6000 {
        if !running() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the command outlived its loader by a minute");
}

#[test]
fn settings_that_cannot_work_are_refused_in_words() {
    let folder = shards(&[3]);
    let plain = format!("{}/s-000.tar", folder.path().display());
    let message_of = |shards: &str, keys: &str| message_of(config(shards, keys).open());
    assert!(message_of(&plain, "samples = 3").contains("samples is for streams only"));
    assert!(message_of("pipe:cat x", "").contains("set samples = N"));
    assert!(message_of("-", "").contains("set samples = N"));
    assert!(
        toml::from_str::<DatasetConfig>("kind = 'webdataset'\nshards = ['-', 'a.tar']\nsamples = 1")
            .unwrap()
            .open()
            .is_err()
    );
    assert!(toml::from_str::<DatasetConfig>("kind = 'webdataset'\nshard = 'a'").is_err());
}

/// A damaged tar.
fn mutated(bytes: &[u8], rng: &mut SampleRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let blocks = bytes.len() / 512;
    match rng.random_range(0..5) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => {
            let from = rng.random_range(0..bytes.len());
            bytes.drain(from..(from + rng.random_range(1..2000)).min(bytes.len()));
        }
        // Headers have sizes, types and checksums, the most fragile parts.
        2 => (0..3).for_each(|_| {
            let at = rng.random_range(0..blocks) * 512 + rng.random_range(100..160);
            bytes[at] = rng.random();
        }),
        3 => {
            // A wrong size with a correct checksum.
            let at = rng.random_range(0..blocks) * 512;
            let mut header = tar::Header::from_byte_slice(&bytes[at..at + 512]).clone();
            let magnitude = rng.random_range(1..63);
            header.set_size(rng.random_range(0..1 << magnitude));
            header.set_cksum();
            bytes[at..at + 512].copy_from_slice(header.as_bytes());
        }
        _ => (0..rng.random_range(1..20)).for_each(|_| {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }),
    }
    bytes
}

#[test]
fn ten_thousand_mutated_tars_give_every_sample_or_its_fault() {
    let whole = shard(0, 6);
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("s-000.tar");
    let mut rng = SampleRng::seed_from_u64(0);
    let (mut read, mut skipped) = (0, 0);
    for number in 0..10_000 {
        std::fs::write(&path, mutated(&whole, &mut rng)).unwrap();
        let _ = std::fs::remove_file(folder.path().join("s-000.tar.index"));
        // By index, each sample is read or has a fault.
        if let Ok(source) = config(&path.display().to_string(), "").open() {
            for index in 0..source.len() {
                match source.sample(index) {
                    Ok(sample) => {
                        assert!(sample.key.starts_with(&*path.to_string_lossy()));
                        read += 1;
                    }
                    Err(error) => {
                        assert!(!source.key(index).is_empty() && error.fault() != Fault::Panic);
                        skipped += 1;
                    }
                }
            }
        }
        // As a stream, which ends or restarts, each read returns.
        if number % 20 == 0 {
            let source = config(&path.display().to_string(), "streamed = true\nsamples = 6").open().unwrap();
            let mut reading = source.stream().unwrap().read(mm_data::StreamOrder::default()).unwrap();
            assert!((0..10).all(|_| reading.next().is_some()));
        }
    }
    assert!(read > 20_000 && skipped > 5_000, "{read} read, {skipped} skipped");
}
