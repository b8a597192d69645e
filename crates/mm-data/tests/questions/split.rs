//! Held-out parts of any data set.

use std::collections::BTreeSet;
use std::path::Path;

use mm_data::{Dataset, DatasetConfig, Result, SampleImage};

fn open(config: &str) -> Result<Box<dyn Dataset>> {
    toml::from_str::<DatasetConfig>(config).unwrap().open()
}

/// 100 images of 3 questions each.
fn pope(folder: &Path) -> String {
    let path = folder.join("pope.json");
    let line = |id: usize| {
        let image = id / 3;
        format!(
            "{{\"question_id\": {id}, \"image\": \"{image}/a.jpg\", \"text\": \"?\", \"label\": \"no\"}}\n"
        )
    };
    std::fs::write(&path, (0..300).map(line).chain(["{}\n".to_owned()]).collect::<String>()).unwrap();
    format!("of = {{ kind = 'pope', path = {path:?} }}")
}

/// The keys and the images of the samples that can be read.
fn contents(source: &dyn Dataset) -> (BTreeSet<String>, BTreeSet<String>) {
    let samples = (0..source.len()).filter_map(|index| source.sample(index).ok());
    let mut both = (BTreeSet::new(), BTreeSet::new());
    for sample in samples {
        let SampleImage::File(path) = sample.image().unwrap() else { panic!("a file") };
        both.1.insert(path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned());
        both.0.insert(sample.key);
    }
    both
}

#[test]
fn parts_share_no_image_and_have_all_samples() {
    let folder = tempfile::tempdir().unwrap();
    let of = pope(folder.path());
    let part =
        |split: &str| open(&format!("kind = 'split'\nheld_out = 0.3\nsplit = '{split}'\n{of}")).unwrap();
    let (train, held) = (part("train"), part("held_out"));
    assert!(held.name().ends_with("pope.json (held out)"), "{}", held.name());
    let ((train_keys, train_images), (held_keys, held_images)) = (contents(&*train), contents(&*held));
    assert_eq!(train_keys.len() + held_keys.len(), 300);
    assert!((15..45).contains(&held_images.len()), "{}", held_images.len());
    assert!(train_images.is_disjoint(&held_images));
    // The question that cannot be read is in both.
    assert_eq!(train.len() + held.len(), 302);
}

#[test]
fn a_split_does_not_depend_on_the_place_of_the_files() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = folders.each_ref().map(|folder| {
        contents(&*open(&format!("kind = 'split'\nsplit = 'held_out'\n{}", pope(folder.path()))).unwrap())
    });
    assert_eq!(first, second);
}

#[test]
fn what_cannot_be_split_is_an_error() {
    let error = |keys: &str| {
        open(&format!("kind = 'split'\nof = {{ kind = 'emoji' }}\n{keys}")).err().unwrap().to_string()
    };
    let message = error("by = 'group'");
    assert!(message.contains("has no group: split by \"image\" or \"key\""), "{message}");
    assert_eq!(error("held_out = 0.0"), "held_out = 0: it must be above 0 and below 1");
    let message = error("split = 'held_out'\nheld_out = 1e-12");
    assert!(message.contains("held_out = 0.000000000001 leaves none in this part"), "{message}");
}
