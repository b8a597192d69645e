//! Each reader through the loader, opened from a config: read plus skipped samples equal all samples.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mm_data::{Dataset, DatasetConfig, Loader, LoaderConfig, Position, Rank, Sample, SampleRng};

/// The keys of an epoch in random order, and the reasons of skipped samples.
fn epoch(config: &str) -> (BTreeSet<String>, Vec<String>) {
    let config: DatasetConfig = toml::from_str(config).unwrap();
    let written = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<DatasetConfig>(&written).unwrap(), config);
    let source: Arc<dyn Dataset> = Arc::from(config.open().unwrap());
    let len = source.len();
    let settings = LoaderConfig {
        batch_size: 2,
        workers: 2,
        drop_last: false,
        max_bad_samples: 100,
        ..LoaderConfig::default()
    };
    let decode = Arc::new(|sample: &Sample, _: &mut SampleRng| sample.image()?.decode([0; 3]));
    let mut loader = Loader::new(source, settings, Rank::default(), decode, Position::default()).unwrap();
    let batches: Vec<_> = loader.epoch().map(|batch| batch.unwrap()).collect();
    let keys: BTreeSet<_> = batches.into_iter().flat_map(|batch| batch.keys).collect();
    let skipped: Vec<_> = loader.bad_samples().iter().map(|bad| bad.reason.clone()).collect();
    assert_eq!(keys.len() + skipped.len(), len, "{skipped:?}");
    (keys, skipped)
}

#[test]
fn an_epoch_of_each_reader_is_read_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens");
    let picture = goldens.join("images/photos/brick.png");
    // A PNG with the name of a JPEG: the format is detected from the bytes.
    for name in ["000000000001.jpg", "COCO_val2014_000000000001.jpg"] {
        fs::copy(&picture, folder.path().join(name)).unwrap();
    }

    write(
        "captions.json",
        r#"{"info": {}, "licenses": [], "images": [{"id": 1, "file_name": "000000000001.jpg"}, {"id": 2,
"file_name": "gone.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "caption": "a"}, {"id": 2, "image_id": 2,
"caption": "b"}, {"id": 3, "image_id": 3, "caption": "c"}]}"#,
    );
    let (keys, skipped) = epoch(&format!("kind = 'coco'\npath = '{}'", path("captions.json")));
    assert_eq!((keys.len(), skipped.len()), (1, 2));

    write(
        "dataset.json",
        r#"{"images": [{"filename": "000000000001.jpg", "split": "test", "sentences": [{"raw": "a"}]}]}"#,
    );
    let (keys, _) = epoch(&format!("kind = 'karpathy'\nsplit = 'test'\npath = '{}'", path("dataset.json")));
    assert_eq!(keys.len(), 1);

    write(
        "results.csv",
        "image_name| comment_number| comment\n000000000001.jpg| 0| a\n000000000001.jpg| 1 b\n",
    );
    let (keys, skipped) = epoch(&format!("kind = 'flickr30k'\npath = '{}'", path("results.csv")));
    assert_eq!((keys.len(), skipped.len()), (1, 1));

    write(
        "questions.json",
        r#"{"data_subtype": "val2014", "questions": [{"image_id": 1, "question": "a?", "question_id": 7}]}"#,
    );
    let (keys, _) = epoch(&format!("kind = 'vqa_v2'\npath = '{}'", path("questions.json")));
    assert_eq!(keys, BTreeSet::from(["7".to_owned()]));

    let readers = goldens.join("readers").display().to_string();
    let (keys, skipped) = epoch(&format!("kind = 'parquet'\npath = '{readers}/captioned'\nsplit = 'train'"));
    assert_eq!((keys.len(), skipped.len()), (8, 0));
    let (keys, skipped) =
        epoch(&format!("kind = 'parquet'\npath = '{readers}/odd/gzip.parquet'\ncache_bytes = 0"));
    assert_eq!((keys.len(), skipped.len()), (2, 5));
}
