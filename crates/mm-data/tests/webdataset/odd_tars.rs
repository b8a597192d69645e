//! Unusual and damaged tars: invalid samples and shards are reported, by index and as a stream alike.

use std::io::Write;
use std::sync::Arc;

use mm_data::{BadSample, Dataset, Fault, Position, Rank, Sample, StreamOrder};

use super::{TRAINING, config, gzipped, loader, message_of, tar};

/// A tar of members, each of its name's bytes but for captions.
fn members(members: &[(&str, &str)]) -> Vec<u8> {
    tar(&members
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.as_bytes().to_vec()))
        .collect::<Vec<_>>())
}

/// For each sample its key in the shard, and its captions and image, or its problem.
type Told = Vec<(String, Result<String, (Fault, String)>)>;

fn told(key: &str, sample: Result<Sample, (Fault, String)>) -> (String, Result<String, (Fault, String)>) {
    let whole = |sample: Sample| {
        assert!(sample.key.ends_with(key), "{} is called {key}", sample.key);
        let image = sample.image().unwrap().bytes().unwrap().into_owned();
        format!("{} {}", String::from_utf8(image).unwrap(), sample.captions.join("|"))
    };
    (key.rsplit('/').next().unwrap().to_owned(), sample.map(whole))
}

fn by_number(source: &dyn Dataset) -> Told {
    let one = |index| {
        let sample = source.sample(index).map_err(|error| (error.fault(), error.to_string()));
        told(&source.key(index), sample)
    };
    (0..source.len()).map(one).collect()
}

fn streamed(source: &dyn Dataset, count: usize) -> Told {
    let mut reading = source.stream().unwrap().read(StreamOrder::default()).unwrap();
    let one = |read: Result<Sample, BadSample>| match read {
        Ok(sample) => told(&sample.key.clone(), Ok(sample)),
        Err(BadSample { key, fault, reason, .. }) => told(&key, Err((fault, reason))),
    };
    (0..count).map(|_| one(reading.next().unwrap())).collect()
}

/// A tar read by index and as a stream.
fn both(bytes: &[u8]) -> (Told, Told) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.tar");
    std::fs::write(&path, bytes).unwrap();
    let path = path.display().to_string();
    let numbered = by_number(&*config(&path, "").open().unwrap());
    let stream = config(&path, "streamed = true\nsamples = 9").open().unwrap();
    let streamed = streamed(&*stream, numbered.len());
    (numbered, streamed)
}

fn whole(key: &str, content: &str) -> (String, Result<String, (Fault, String)>) {
    (key.to_owned(), Ok(content.to_owned()))
}

#[test]
fn two_samples_of_one_key_in_a_row_are_not_one() {
    let bytes = members(&[
        ("a.jpg", "A1"),
        ("a.txt", "first"),
        ("a.JPG", "A2"),
        ("a.txt", "second"),
        ("b.jpg", "B1"),
        ("b.jpg", "B2"),
        ("b.txt", "whose?"),
        ("c.jpg", "C"),
        ("c.png", "not taken"),
        ("c.seg.png", "another field"),
        ("c.txt", "third"),
    ]);
    let (numbered, streamed) = both(&bytes);
    assert_eq!(numbered, streamed);
    assert_eq!((&numbered[0], &numbered[1]), (&whole("a", "A1 first"), &whole("a#2", "A2 second")));
    let (fault, reason) = numbered[2].1.clone().unwrap_err();
    assert_eq!((&*numbered[2].0, fault), ("b", Fault::Repeated));
    assert!(reason.contains("`b.jpg` at byte 4096 and `b.jpg` at byte 5120"), "{reason}");
    assert_eq!(numbered[3..], [whole("c", "C third")]);
}

#[test]
fn scattered_members_of_a_sample_are_reported() {
    let (numbered, streamed) = both(&members(&[
        ("a.jpg", "A"),
        ("b.jpg", "B"),
        ("b.txt", "b"),
        ("a.txt", "a"),
        ("b.png", "B2"),
        ("b.txt", "again"),
        ("c.jpg", "C"),
    ]));
    let faults = |told: &Told| {
        told.iter()
            .map(|(key, read)| (key.clone(), read.clone().err().map(|(fault, _)| fault)))
            .collect::<Vec<_>>()
    };
    let expected = [
        ("a", Some(Fault::NoCaption)),
        ("b", None),
        ("a#2", Some(Fault::NoImage)),
        ("b#2", None),
        ("c", Some(Fault::NoCaption)),
    ];
    assert_eq!(faults(&numbered), expected.map(|(key, fault)| (key.to_owned(), fault)));
    assert_eq!(faults(&streamed), faults(&numbered));
    let reason = |told: &Told, index: usize| told[index].1.clone().unwrap_err().1;
    assert!(
        reason(&numbered, 0).contains("other members of its key are at byte 3072"),
        "{}",
        reason(&numbered, 0)
    );
    assert_eq!(reason(&numbered, 2), reason(&streamed, 2));
    assert!(
        reason(&numbered, 2).contains("other members of its key are at byte 0"),
        "{}",
        reason(&numbered, 2)
    );
    assert!(!reason(&numbered, 4).contains("apart"));
}

#[test]
fn invalid_json_that_is_not_needed_is_only_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.tar");
    let jsons = [
        "{\"caption\": null, \"score\": NaN}",
        "[]",
        "{\"captions\": null}",
        "{\"questions\": [\"why?\"]}",
        "{",
    ];
    let files = jsons.iter().enumerate().flat_map(|(number, json)| {
        let caption = format!("\u{feff}number {number}");
        [("jpg", "J".to_owned()), ("json", (*json).to_owned()), ("txt", caption)]
            .map(|(end, text)| (format!("{number}.{end}"), text.into_bytes()))
    });
    let mut files: Vec<_> = files.collect();
    // Here the JSON is needed.
    files.extend([("9.jpg", "J"), ("9.json", "{")].map(|(name, text)| (name.to_owned(), text.into())));
    std::fs::write(&path, tar(&files)).unwrap();
    for keys in ["", "streamed = true\nsamples = 6"] {
        let source: Arc<dyn Dataset> = Arc::from(config(&path.display().to_string(), keys).open().unwrap());
        let settings =
            mm_data::LoaderConfig { shuffle: false, batch_size: 1, max_bad_samples: 1, ..TRAINING };
        let mut loader = loader(source, &settings, Rank::default(), Position::default());
        let captions: Vec<String> = (0..5).map(|_| loader.next_batch().unwrap().items.remove(0).0).collect();
        assert_eq!(captions, [0, 1, 2, 3, 4].map(|number| format!("number {number}")));
        let tally = &loader.position().tally;
        assert_eq!((tally.read, tally.warned, tally.all_skipped()), (5, 3, 0));
        loader.next_batch().unwrap();
        assert_eq!(loader.position().tally.skipped, [(Fault::Json, 1)].into());
    }
}

#[test]
fn concatenated_tars_are_reported() {
    let one = |key: &str| members(&[(&format!("{key}.jpg"), key), (&format!("{key}.txt"), "text")]);
    let (numbered, streamed) = both(&[one("a"), one("b")].concat());
    assert_eq!(numbered[0], whole("a", "a text"));
    assert_eq!((numbered.len(), &numbered[1].1), (2, &streamed[1].1));
    let (fault, reason) = numbered[1].1.clone().unwrap_err();
    let expected = "more data follows its end mark, at byte 3072";
    assert!(fault == Fault::Shard && reason.contains(expected), "{reason}");
    // Padding to the block size of tapes is ignored.
    let (numbered, _) = both(&[one("a"), vec![0; 10_240]].concat());
    assert_eq!(numbered, [whole("a", "a text")]);
}

#[test]
fn a_compressed_tar_is_read_as_a_stream_or_reported_with_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let plain = members(&[("a.jpg", "A"), ("a.txt", "text")]);
    let path = folder.path().join("s.tar");
    let open = |bytes: &[u8], keys: &str| {
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        config(&path.display().to_string(), keys).open()
    };
    let zstd = zstd::encode_all(&plain[..], 0).unwrap();
    for (bytes, program) in [(&gzipped(&plain), "gzip"), (&zstd, "zstd")] {
        let message = message_of(open(bytes, ""));
        assert!(
            message.contains(&format!("{program}-compressed")) && message.contains("streamed = true"),
            "{message}"
        );
        let stream = open(bytes, "streamed = true\nsamples = 1").unwrap();
        assert_eq!(streamed(&*stream, 2), [whole("a", "A text"), whole("a", "A text")]);
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for (bytes, what) in [(&b"\xfd7zXZ\0\0\x04"[..], "pipe:xz -dc "), (pointer, "run `git lfs pull`")] {
        assert!(message_of(open(bytes, "")).contains(what), "{}", message_of(open(bytes, "")));
        let stream = open(bytes, "streamed = true\nsamples = 1").unwrap();
        let (fault, reason) = streamed(&*stream, 1)[0].1.clone().unwrap_err();
        assert!(fault == Fault::Shard && reason.contains(what), "{reason}");
        // The output of a command is checked first, and not reported as a failure of the command.
        let stream = config(&format!("pipe:cat {}", path.display()), "samples = 1").open().unwrap();
        assert_eq!(streamed(&*stream, 1)[0].1.clone().unwrap_err().0, Fault::Shard);
    }
}
