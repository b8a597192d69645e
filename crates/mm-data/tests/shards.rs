//! Packing: shards read back as the original samples, with any options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use mm_data::shards::{Filter, Manifest, PackOptions, Packing, Progress, Summary};
use mm_data::{BadSample, Dataset, DatasetConfig, Error, Fault, Result, Sample, SampleImage, Stats};
use mm_image::{RgbImage, image::codecs::jpeg::JpegEncoder};

fn config(text: &str) -> DatasetConfig {
    toml::from_str(text).unwrap()
}

fn folder_config(path: &Path) -> DatasetConfig {
    config(&format!("kind = 'folder'\npath = '{}'", path.display()))
}

fn read_back(out: &Path) -> Box<dyn Dataset> {
    config(&format!("kind = 'webdataset'\nshards = '{}/*.tar'", out.display())).open().unwrap()
}

fn filters(words: &[&str]) -> Vec<Filter> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

/// Shards of seven samples on two threads.
fn small() -> PackOptions {
    PackOptions { samples_per_shard: 7, workers: 2, ..PackOptions::default() }
}

fn pack(data: &DatasetConfig, out: &Path, options: &PackOptions) -> Result<Summary> {
    let source = data.open().unwrap();
    Packing { source: &*source, data, options: options.clone(), score: None, progress: &|_| {} }.run(out)
}

/// All files of a folder with their bytes, except for the indices of readers.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let written = entries.filter(|path| path.is_file() && path.extension().is_none_or(|end| end != "index"));
    written
        .map(|path| (path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).into_keys().map(|path| path.display().to_string()).collect()
}

/// A picture that differs from all others.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let cell = (x * 9 / width + 9 * (y * 8 / height)).wrapping_add(seed * 977);
        [(cell.wrapping_mul(2_654_435_761) >> 24) as u8; 3].into()
    })
}

/// A folder of classes with a JPEG, a PNG, a WebP, caption files, and two images that cannot be read.
fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for class in ["cat", "polar_bear"] {
        std::fs::create_dir(at(class)).unwrap();
    }
    let mut jpeg = Vec::new();
    picture(1, 300, 200).write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, 90)).unwrap();
    std::fs::write(at("cat/a.png"), &jpeg).unwrap(); // a JPEG with the name of a PNG
    std::fs::write(at("cat/a.txt"), "a cat asleep\na cat\n").unwrap();
    picture(2, 90, 40).save(at("cat/b.png")).unwrap();
    picture(3, 64, 64).save(at("polar_bear/c.webp")).unwrap();
    std::fs::write(at("polar_bear/d.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    std::fs::write(at("polar_bear/e.jpg"), b"none").unwrap();
    picture(4, 80, 80).save(at("top.png")).unwrap(); // neither class nor caption
    folder
}

#[test]
fn packed_samples_read_back_unchanged() {
    let folder = images();
    for bad in ["polar_bear/e.jpg", "top.png"] {
        std::fs::remove_file(folder.path().join(bad)).unwrap();
    }
    let sets = [
        config("kind = 'emoji'\nsplit = 'held_out'"),
        config("kind = 'shapes'\nsamples = 20\nsize = 32"),
        config("kind = 'shapes'\ncontent = 'edits'\nsamples = 20\nsize = 32"),
        config("kind = 'shapes'\ncontent = 'negatives'\nsamples = 20\nsize = 32"),
        folder_config(folder.path()),
    ];
    for data in sets {
        let out = tempfile::tempdir().unwrap();
        pack(&data, out.path(), &PackOptions { samples_per_shard: 150, ..small() }).unwrap();
        let (packed, source) = (read_back(out.path()), data.open().unwrap());
        assert_eq!(packed.len(), source.len());
        for index in 0..source.len() {
            let (ours, theirs) = (packed.sample(index).unwrap(), source.sample(index).unwrap());
            assert!(ours.key.ends_with(&format!("/{index:09}")), "{}", ours.key);
            assert_eq!(ours.images.len(), theirs.images.len());
            for (ours, theirs) in ours.images.iter().zip(&theirs.images) {
                assert_eq!(ours.bytes().unwrap(), theirs.bytes().unwrap());
            }
            assert_eq!((ours.instruction, ours.negatives), (theirs.instruction, theirs.negatives));
            assert_eq!((ours.captions, ours.label), (theirs.captions, theirs.label));
            assert_eq!((ours.questions, ours.variant_of), (theirs.questions, theirs.variant_of));
        }
    }
}

#[test]
fn any_number_of_threads_makes_the_same_bytes() {
    for words in [&[][..], &["duplicates=3", "caption_words=2.."]] {
        let data = config("kind = 'emoji'\nsplit = 'held_out'");
        let packed = [1, 4].map(|workers| {
            let out = tempfile::tempdir().unwrap();
            let options = PackOptions { workers, samples_per_shard: 50, filters: filters(words), ..small() };
            let summary = pack(&data, out.path(), &options).unwrap();
            (summary, files(out.path()))
        });
        assert_eq!(packed[0], packed[1]);
        assert_eq!((packed[0].0.shards, packed[0].0.made), (8, 8));
    }
}

#[test]
fn an_interrupted_packing_resumes_to_the_same_bytes() {
    for words in [&[][..], &["duplicates=3"]] {
        let data = config("kind = 'emoji'\nsplit = 'held_out'");
        let options = PackOptions { samples_per_shard: 50, filters: filters(words), ..small() };
        let whole = tempfile::tempdir().unwrap();
        pack(&data, whole.path(), &options).unwrap();
        let source = data.open().unwrap();
        for end in [40, 120, 333] {
            // A panic in the middle of the work acts like a kill: the packing cleans nothing up.
            let out = tempfile::tempdir().unwrap();
            let stop = |progress: Progress| assert!(!progress.writing || progress.done < end, "killed");
            let packing = Packing {
                source: &*source,
                data: &data,
                options: options.clone(),
                score: None,
                progress: &stop,
            };
            assert!(
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| packing.run(out.path()))).is_err()
            );
            for name in names(out.path()).iter().filter(|name| name.ends_with(".tar")) {
                assert_eq!(
                    std::fs::read(out.path().join(name)).unwrap(),
                    files(whole.path())[Path::new(name)]
                );
            }
            let summary = pack(&data, out.path(), &options).unwrap();
            assert!(summary.made <= 8 && (end < 200 || summary.made < 8), "{}", summary.made);
            assert_eq!(files(out.path()), files(whole.path()));
            assert_eq!(pack(&data, out.path(), &options).unwrap().made, 0);
        }
    }
}

#[test]
fn a_spoilt_shard_is_found_by_its_size_and_with_verify_by_its_sum() {
    let out = tempfile::tempdir().unwrap();
    let data = config("kind = 'shapes'\nsamples = 21\nsize = 32");
    pack(&data, out.path(), &small()).unwrap();
    let before = files(out.path());
    let tar = out.path().join("00001.tar");
    let mut spoilt = std::fs::read(&tar).unwrap();
    spoilt[700] ^= 1;
    std::fs::write(&tar, &spoilt).unwrap();
    assert_eq!(pack(&data, out.path(), &small()).unwrap().made, 0);
    assert_eq!(pack(&data, out.path(), &PackOptions { verify: true, ..small() }).unwrap().made, 1);
    assert_eq!(files(out.path()), before);
    std::fs::write(&tar, &spoilt[..512]).unwrap();
    std::fs::remove_file(out.path().join("00002.tar")).unwrap();
    assert_eq!(pack(&data, out.path(), &small()).unwrap().made, 2);
    std::fs::write(out.path().join("00000.json"), "{").unwrap();
    assert_eq!(pack(&data, out.path(), &small()).unwrap().made, 1);
    assert_eq!(files(out.path()), before);
    let manifest: Manifest = serde_json::from_slice(&before[Path::new("manifest.json")]).unwrap();
    for shard in manifest.shards.unwrap() {
        let file = out.path().join(shard.file.unwrap());
        let sum = std::process::Command::new("sha256sum").arg(&file).output().unwrap().stdout;
        assert!(String::from_utf8(sum).unwrap().starts_with(&shard.sha256));
        assert_eq!(file.metadata().unwrap().len(), shard.bytes);
    }
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let out = tempfile::tempdir().unwrap();
    let data = config("kind = 'shapes'\nsamples = 21\nsize = 32");
    let message_of = |data: &DatasetConfig, options: &PackOptions| {
        pack(data, out.path(), options).unwrap_err().to_string()
    };
    std::fs::write(out.path().join("mine"), "x").unwrap();
    assert!(message_of(&data, &small()).contains("has other files than shards"));
    assert_eq!(names(out.path()), ["mine"]);
    std::fs::remove_file(out.path().join("mine")).unwrap();
    std::fs::write(out.path().join(".DS_Store"), "x").unwrap();
    pack(&data, out.path(), &small()).expect("a hidden file is nobody's work");
    std::fs::remove_file(out.path().join(".DS_Store")).unwrap();
    let before = files(out.path());
    let other = config("kind = 'shapes'\nsamples = 21\nsize = 48");
    assert!(message_of(&other, &small()).contains("\"size\":32"), "{}", message_of(&other, &small()));
    let options = PackOptions { samples_per_shard: 8, ..small() };
    assert!(message_of(&data, &options).contains("samples per shard: 7 before, 8 now"));
    let options = PackOptions { filters: filters(&["min_side=9"]), ..small() };
    assert!(message_of(&data, &options).contains("filters: none before, min_side=9 now"));
    assert_eq!(files(out.path()), before);
    assert!(
        message_of(&data, &PackOptions { samples_per_shard: 0, ..small() }).contains("it must be 1 or more")
    );
}

#[test]
fn unreadable_samples_are_dropped_counted_and_listed() {
    let folder = images();
    let data = folder_config(folder.path());
    let out = tempfile::tempdir().unwrap();
    let summary = pack(&data, out.path(), &small()).unwrap();
    // A truncated JPEG has a complete header.
    assert_eq!(
        (summary.all.samples, &summary.all.bad),
        (4, &[(Fault::Image, 1), (Fault::NoCaption, 1)].into())
    );
    assert_eq!(
        summary.stats.formats,
        [("jpg", 2), ("png", 1), ("webp", 1)].map(|(k, v)| (k.to_owned(), v)).into()
    );
    let lines = std::fs::read_to_string(out.path().join("bad_samples.jsonl")).unwrap();
    let bad: Vec<BadSample> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(bad[0].key.ends_with("e.jpg") && bad[0].reason.contains("it is not JPEG, PNG, WebP"));
    assert!(bad[1].key.ends_with("top.png") && bad.len() == 2);

    let checked = tempfile::tempdir().unwrap();
    let options = PackOptions { check_images: true, ..small() };
    assert_eq!(pack(&data, checked.path(), &options).unwrap().all.bad[&Fault::Image], 2);

    let strict = tempfile::tempdir().unwrap();
    let options = PackOptions { max_bad_samples: Some(1), ..small() };
    let error = pack(&data, strict.path(), &options).unwrap_err().to_string();
    assert!(error.contains("more than max_bad_samples = 1") && error.contains("e.jpg"), "{error}");
}

#[test]
fn filters_drop_samples_and_count_them() {
    let folder = images();
    let data = folder_config(folder.path());
    let kept = |words: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let summary = pack(&data, out.path(), &PackOptions { filters: filters(words), ..small() }).unwrap();
        let stats = Stats::of(&*read_back(out.path()), 1, &|_| {}).unwrap();
        assert_eq!((stats.samples as usize, &stats), (summary.all.samples, &summary.stats));
        (summary.all.samples, summary.all.filtered.into_iter().collect::<Vec<_>>())
    };
    let dropped = |name: &str, count: usize| vec![(name.to_owned(), count)];
    assert_eq!(kept(&["min_side=64"]), (3, dropped("min_side", 1)));
    assert_eq!(kept(&["max_side=100"]), (2, dropped("max_side", 2)));
    assert_eq!(kept(&["max_aspect=1.5"]), (3, dropped("max_aspect", 1)));
    assert_eq!(kept(&["caption_words=..5"]), (2, dropped("caption_words", 2)));
    assert_eq!(kept(&["caption_chars=13.."]), (3, dropped("caption_chars", 1)));
    // The first filter that drops a sample is the one that counts it.
    assert_eq!(kept(&["max_aspect=1.5", "min_side=64"]), (3, dropped("min_side", 1)));
}

/// Pictures, some of which are near duplicates of earlier ones, some too small.
struct Twins;

impl Dataset for Twins {
    fn name(&self) -> &str {
        "twins"
    }

    fn len(&self) -> usize {
        24
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let side = if index == 3 { 20 } else { 96 * (1 + index as u32 / 10) };
        let mut png = std::io::Cursor::new(Vec::new());
        picture((index % 10) as u32, side, side)
            .write_to(&mut png, mm_image::image::ImageFormat::Png)
            .unwrap();
        let captions = vec![format!("number {index}")];
        Ok(Sample { captions, ..Sample::new(index.to_string(), SampleImage::Memory(png.into_inner())) })
    }
}

#[test]
fn of_images_that_look_the_same_the_first_that_passes_the_other_filters_stays() {
    let data = config("kind = 'emoji'"); // stands for the source in the manifest
    let out = tempfile::tempdir().unwrap();
    let options = PackOptions { filters: filters(&["duplicates=6", "min_side=30"]), ..small() };
    let packing = Packing { source: &Twins, data: &data, options, score: None, progress: &|_| {} };
    let summary = packing.run(out.path()).unwrap();
    assert_eq!(
        summary.all.filtered,
        [("duplicates", 13), ("min_side", 1)].map(|(k, v)| (k.to_owned(), v)).into()
    );
    let back = read_back(out.path());
    let kept: Vec<String> =
        (0..back.len()).map(|index| back.sample(index).unwrap().captions.remove(0)).collect();
    let expected = [0, 1, 2, 4, 5, 6, 7, 8, 9, 13].map(|index| format!("number {index}"));
    assert_eq!(kept, expected);
    // Two shards have no sample, and so no file.
    assert_eq!(
        (summary.shards, names(out.path()).iter().filter(|name| name.ends_with(".tar")).count()),
        (2, 2)
    );
}

#[test]
fn samples_below_the_score_or_without_one_are_dropped() {
    let data = config("kind = 'shapes'\nsamples = 21\nsize = 32");
    let source = data.open().unwrap();
    let calls = AtomicUsize::new(0);
    let score = |images: &[RgbImage], captions: &[&str]| -> Result<Vec<f32>> {
        calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(images.len(), captions.len());
        Ok(captions
            .iter()
            .map(|caption| if caption.contains("red") { f32::NAN } else { caption.len() as f32 / 1e3 })
            .collect())
    };
    let options =
        PackOptions { filters: filters(&["clip_score=0.05"]), model: Some("lengths".into()), ..small() };
    let out = tempfile::tempdir().unwrap();
    let packing =
        |score| Packing { source: &*source, data: &data, options: options.clone(), score, progress: &|_| {} };
    assert!(packing(None).run(out.path()).unwrap_err().to_string().contains("needs a model"));
    let summary = packing(Some(&score)).run(out.path()).unwrap();
    let back = read_back(out.path());
    let fits = |caption: &str| caption.len() >= 50 && !caption.contains("red");
    assert!((0..back.len()).all(|index| fits(&back.sample(index).unwrap().captions[0])));
    let expected = (0..21).filter(|index| fits(&source.sample(*index).unwrap().captions[0])).count();
    assert_eq!((summary.all.samples, calls.load(Ordering::Relaxed)), (expected, 3));
    let failing = |_: &[RgbImage], _: &[&str]| Err(Error::Score("no memory".into()));
    let out = tempfile::tempdir().unwrap();
    let error = packing(Some(&failing)).run(out.path()).unwrap_err().to_string();
    assert_eq!(error, "the CLIP score cannot be computed: no memory");
}

#[test]
fn a_stream_is_packed_as_its_tars_would_be() {
    let tars = tempfile::tempdir().unwrap();
    let data = config("kind = 'shapes'\nsamples = 21\nsize = 32");
    pack(&data, tars.path(), &small()).unwrap();
    let stream = format!(
        "kind = 'webdataset'\nshards = 'pipe:cat {}/{{00000..00002}}.tar'\nsamples = 21",
        tars.path().display()
    );
    for words in [&[][..], &["duplicates=0"]] {
        let out = tempfile::tempdir().unwrap();
        let options = PackOptions { filters: filters(words), ..small() };
        let summary = pack(&config(&stream), out.path(), &options).unwrap();
        assert_eq!(summary.all.samples + summary.all.filtered.values().sum::<usize>(), 21);
        let (first, second) = (read_back(tars.path()).sample(9).unwrap(), read_back(out.path()));
        let same = |index| second.sample(index).unwrap().captions == first.captions;
        assert!((0..second.len()).any(same));
    }
}
