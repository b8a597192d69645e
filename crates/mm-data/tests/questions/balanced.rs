//! Balanced data sets: frequencies of classes, questions as samples, exact resume.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mm_data::{
    Batch, Dataset, DatasetConfig, Item, Loader, LoaderConfig, Map, Position, Rank, Result, Sample, SampleRng,
};
use rand::RngExt;

#[derive(Debug, Clone, PartialEq)]
struct Drawn(String, u64);

impl Item for Drawn {
    fn bytes(&self) -> usize {
        100
    }
}

fn open(config: &str) -> Result<Box<dyn Dataset>> {
    toml::from_str::<DatasetConfig>(config).unwrap().open()
}

fn message_of(config: &str) -> String {
    open(config).err().expect("an error").to_string()
}

/// A file with 144 questions answered yes, 16 answered no, and others that cannot be read.
fn pope(folder: &Path, broken: usize) -> String {
    let line = |id: usize| match id {
        160.. => format!("{{\"question_id\": {id}}}\n"),
        _ => {
            let label = if id.is_multiple_of(10) { "no" } else { "yes" };
            format!(
                "{{\"question_id\": {id}, \"image\": \"a.jpg\", \"text\": \"?\", \"label\": \"{label}\"}}\n"
            )
        }
    };
    let path = folder.join("pope.json");
    std::fs::write(&path, (0..160 + broken).map(line).collect::<String>()).unwrap();
    format!("{{ kind = 'pope', path = {path:?} }}")
}

fn loader(source: Box<dyn Dataset>, rank: Rank, position: Position) -> Loader<Drawn> {
    let map: Map<Drawn> =
        Arc::new(|sample: &Sample, rng: &mut SampleRng| Ok(Drawn(sample.key.clone(), rng.random())));
    let config = LoaderConfig { max_bad_samples: 9, ..LoaderConfig::default() };
    Loader::new(Arc::from(source), config, rank, map, position).unwrap()
}

fn batches(loader: &mut Loader<Drawn>, count: usize) -> Vec<Batch<Drawn>> {
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

/// The number of draws of each key.
fn draws(batches: &[Batch<Drawn>]) -> BTreeMap<usize, usize> {
    let mut draws = BTreeMap::new();
    for key in batches.iter().flat_map(|batch| &batch.keys) {
        *draws.entry(key.parse().unwrap()).or_default() += 1;
    }
    draws
}

#[test]
fn the_power_sets_the_frequencies_of_the_classes() {
    let folder = tempfile::tempdir().unwrap();
    let of = pope(folder.path(), 0);
    // 144^(1 - power) to 16^(1 - power).
    for (power, share_of_no) in [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)] {
        let source = open(&format!("kind = 'balanced'\npower = {power:?}\nof = {of}")).unwrap();
        assert_eq!(source.len(), 160);
        assert!(source.name().ends_with("pope.json (balanced by answer, 2 classes)"), "{}", source.name());
        let draws = draws(&batches(&mut loader(source, Rank::default(), Position::default()), 128));
        assert_eq!(draws.len(), 160);
        let (no, yes): (Vec<_>, Vec<_>) = draws.iter().partition(|(key, _)| key.is_multiple_of(10));
        let sum = |some: &[(&usize, &usize)]| some.iter().map(|(_, count)| **count).sum::<usize>();
        let expected = 4096.0 * share_of_no;
        assert!((sum(&no) as f64 - expected).abs() <= 1.0, "{power}: {}", sum(&no));
        assert_eq!(sum(&no) + sum(&yes), 4096);
        // Within a class, each question comes as often as any other.
        for class in [&no, &yes] {
            let counts = class.iter().map(|(_, count)| **count);
            assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
        }
    }
}

#[test]
fn batches_are_random_and_resume_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("kind = 'balanced'\nof = {}", pope(folder.path(), 0));
    let of = |rank, position| loader(open(&config).unwrap(), rank, position);
    let mut unbroken = of(Rank::default(), Position::default());
    let all = batches(&mut unbroken, 40);
    let no_in = |batch: &Batch<Drawn>| batch.keys.iter().filter(|key| key.ends_with('0')).count();
    assert!(all.iter().any(|batch| no_in(batch) != 16), "classes would alternate");
    for stop in [1, 17] {
        let resumed = batches(&mut of(Rank::default(), all[stop - 1].position.clone()), 40 - stop);
        assert_eq!(resumed, all[stop..]);
    }
    let halves = [0, 1].map(|index| batches(&mut of(Rank { index, world: 2 }, Position::default()), 40));
    for (batch, (first, second)) in all.iter().zip(halves[0].iter().zip(&halves[1])) {
        let keys: Vec<_> = first.keys.iter().chain(&second.keys).collect();
        assert_eq!(keys, batch.keys.iter().collect::<Vec<_>>());
    }
}

#[test]
fn unreadable_questions_are_counted_with_the_most_frequent_class() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(&format!("kind = 'balanced'\nof = {}", pope(folder.path(), 2))).unwrap();
    assert_eq!(source.len(), 162);
    let bad = (0..source.len()).filter(|&index| source.sample(index).is_err()).count();
    assert_eq!(bad, 2);
    let mut loader = loader(source, Rank::default(), Position::default());
    let draws = draws(&batches(&mut loader, 60));
    assert_eq!((draws.len(), loader.bad_samples().len()), (160, 2));
}

#[test]
fn an_image_with_several_questions_becomes_a_sample_for_each() {
    let source = open("kind = 'shapes'\nsamples = 8\nsize = 32").unwrap();
    let samples: Vec<Sample> = (0..8).map(|index| source.sample(index).unwrap()).collect();
    let count: usize = samples.iter().map(|sample| sample.questions.len()).sum();
    let of = "of = { kind = 'shapes', samples = 8, size = 32 }";
    let balanced = open(&format!("kind = 'balanced'\nby = 'answer_type'\n{of}")).unwrap();
    assert_eq!(balanced.len(), count);
    let kinds = balanced.mixture().unwrap();
    assert!(kinds.iter().all(|kind| kind.weight == 1.0));
    for index in 0..count {
        let sample = balanced.sample(index).unwrap();
        let [question] = &sample.questions[..] else { panic!("one question") };
        let (key, id) = sample.key.rsplit_once('#').unwrap();
        let from = samples.iter().find(|sample| sample.key == key).unwrap();
        assert_eq!(id, question.id.to_string());
        assert!(from.questions.contains(question));
    }
    let labels = open(&format!("kind = 'balanced'\nby = 'label'\n{of}")).unwrap();
    assert_eq!((labels.len(), labels.sample(0).unwrap().questions.len() > 1), (8, true));
}

#[test]
fn what_cannot_be_balanced_is_an_error() {
    let emoji = "of = { kind = 'emoji' }";
    let error = message_of(&format!("kind = 'balanced'\n{emoji}"));
    assert!(error.contains("none of its 3550 samples has an answer to balance by"), "{error}");
    let error = message_of(&format!("kind = 'balanced'\npower = 1.5\n{emoji}"));
    assert_eq!(error, "power = 1.5: it must be from 0 to 1");
    let balanced = "{ kind = 'balanced', by = 'label', of = { kind = 'emoji' } }";
    let error = message_of(&format!("kind = 'mix'\nsources = [{{ weight = 1, source = {balanced} }}]"));
    assert!(error.contains("cannot be a part of a mix"), "{error}");
    for kind in ["balanced", "split"] {
        let error = message_of(&format!("kind = '{kind}'\nof = {balanced}"));
        assert!(error.contains(&format!("is weighted, which `{kind}` does not keep")), "{error}");
    }
    let stream = "of = { kind = 'webdataset', shards = 'pipe:true', samples = 5 }";
    assert!(message_of(&format!("kind = 'balanced'\n{stream}")).contains("is a stream"));
}
