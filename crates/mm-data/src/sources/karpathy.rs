//! Karpathy's splits: one JSON file of images, each with its captions and the split it belongs to.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::one_or_many;
use crate::sources::broken::Broken;
use crate::sources::json_file::{JsonFile, entry};
use crate::sources::listed::{Listed, ListedDataset};
use crate::sources::splits::Splits;
use crate::{Fault, Result};

/// `dataset_coco.json`, `dataset_flickr30k.json` and `dataset_flickr8k.json`: the splits of Karpathy and
/// Fei-Fei (2015, <https://arxiv.org/abs/1412.2306>), the standard ones for captioning.
///
/// A sample is an image with all its captions. The key is the file name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KarpathyConfig {
    /// The JSON file.
    pub path: PathBuf,
    /// The folder with `train2014` and `val2014` of COCO, or with the images of Flickr; by default the folder
    /// of the JSON file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The split or splits: `train`, `restval`, `val`, `test`. By default `train`, with `restval` where the
    /// file has it: the 113,287 images of COCO that BLIP and most others train on.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<String>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Image {
    /// Only in COCO's file.
    #[serde(default)]
    filepath: String,
    filename: String,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// Opens the file. The split of an invalid entry is unknown: it is a bad sample of every split.
pub(crate) fn open(config: &KarpathyConfig) -> Result<ListedDataset> {
    let json = JsonFile::read(&config.path)?;
    let file: File =
        json.parse("a Karpathy split: an object with `images`, each with its `sentences` and `split`")?;
    let splits = Splits::of(&config.split);
    let mut present = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for (number, &raw) in file.images.iter().enumerate() {
        let image: Image = match entry(raw) {
            Ok(image) => image,
            Err(reason) => {
                entries.push(Err(Broken::new(Fault::Json, format!("images[{number}]: {reason}"))));
                continue;
            }
        };
        let taken = splits.has(&image.split);
        *present.entry(image.split).or_default() += 1;
        if !taken {
            continue;
        }
        let path = match image.filepath.as_str() {
            "" => image.filename.clone(),
            folder => format!("{folder}/{}", image.filename),
        };
        let captions: Vec<_> = image
            .sentences
            .into_iter()
            .map(|sentence| sentence.raw)
            .filter(|raw| !raw.trim().is_empty())
            .collect();
        entries.push(if !seen.insert(path.clone()) {
            Err(Broken::new(Fault::Json, format!("images[{number}]: {path} is listed twice")))
        } else if captions.is_empty() {
            Err(Broken::new(Fault::NoCaption, format!("images[{number}]: {path} has no caption")))
        } else {
            Ok(Listed { key: image.filename, image: path, captions })
        });
    }
    // If all entries are invalid, their problem is a better message than a missing split.
    if !present.is_empty() {
        splits.check(&config.path, &present)?;
    }
    ListedDataset::new(&config.path, config.images_root.as_ref(), entries)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Dataset, SampleImage};

    fn coco(id: u64, split: &str) -> String {
        let folder = if split == "train" { "train2014" } else { "val2014" };
        format!(
            r#"{{"filepath": "{folder}", "sentids": [{id}1, {id}2],
"filename": "COCO_{folder}_{id:012}.jpg", "imgid": {id}, "split": "{split}",
"sentences": [{{"tokens": ["a", "man", "with", "a", "red", "helmet"], "raw": "A man with a red helmet. ",
"imgid": {id}, "sentid": {id}1}}, {{"tokens": ["number", "{id}"], "raw": "Number {id}", "imgid": {id},
"sentid": {id}2}}], "cocoid": {id}}}"#
        )
    }

    fn flickr(id: u64, split: &str) -> String {
        format!(
            r#"{{"sentids": [{id}], "imgid": {id}, "sentences": [{{"tokens": ["two", "men"],
"raw": "Two men.", "imgid": {id}, "sentid": {id}}}], "split": "{split}", "filename": "100009{id}.jpg"}}"#
        )
    }

    fn open_images(images: &[String], keys: &str) -> Result<ListedDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset_coco.json");
        fs::write(&path, format!(r#"{{"images": [{}], "dataset": "coco"}}"#, images.join(", "))).unwrap();
        open(
            &toml::from_str(&format!("path = {:?}\nimages_root = 'coco'\n{keys}", path.to_str().unwrap()))
                .unwrap(),
        )
    }

    fn keys(source: ListedDataset) -> Vec<String> {
        (0..source.len()).map(|index| source.sample(index).unwrap().key).collect()
    }

    #[test]
    fn the_default_splits_are_train_and_restval() {
        let images = [coco(1, "test"), coco(2, "restval"), coco(3, "train"), coco(4, "val")];
        let source = open_images(&images, "").unwrap();
        let first = source.sample(0).unwrap();
        assert_eq!(first.captions, ["A man with a red helmet. ", "Number 2"]);
        let SampleImage::File(path) = first.image().unwrap() else { panic!("a file") };
        assert!(path.ends_with("val2014/COCO_val2014_000000000002.jpg"));
        assert_eq!(keys(source), ["COCO_val2014_000000000002.jpg", "COCO_train2014_000000000003.jpg"]);
        assert_eq!(keys(open_images(&images, "split = 'test'").unwrap()), ["COCO_val2014_000000000001.jpg"]);
        assert_eq!(open_images(&images, "split = ['val', 'test']").unwrap().len(), 2);
    }

    #[test]
    fn flickr_has_no_folder_and_no_restval() {
        let source = open_images(&[flickr(1, "train"), flickr(2, "test")], "").unwrap();
        let sample = source.sample(0).unwrap();
        assert!(
            matches!(sample.image().unwrap(), SampleImage::File(path) if path.ends_with("coco/1000091.jpg"))
        );
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn a_missing_split_is_an_error_that_lists_the_splits() {
        let images = [flickr(1, "train"), flickr(2, "train"), flickr(3, "test")];
        let message = open_images(&images, "split = 'validation'").err().unwrap().to_string();
        assert!(
            message.contains("no split `validation`; the file has `test` (1), `train` (2): set"),
            "{message}"
        );
    }

    #[test]
    fn an_invalid_entry_is_a_bad_sample() {
        let mut images =
            vec![coco(3, "train"), coco(3, "train"), r#"{"filename": "a.jpg", "split": "train"}"#.into()];
        images.push(r#"{"filename": "b.jpg", "split": "train", "sentences": [{"raw": ""}]}"#.into());
        let source = open_images(&images, "").unwrap();
        let faults: Vec<_> = (1..4).map(|index| source.sample(index).unwrap_err()).collect();
        assert_eq!(
            faults.iter().map(|e| e.fault()).collect::<Vec<_>>(),
            [Fault::Json, Fault::Json, Fault::NoCaption]
        );
        assert!(faults[1].to_string().ends_with("json: images[2]: missing field `sentences`"));
        let message = open_images(&images[2..3], "").err().unwrap().to_string();
        assert!(message.contains("none of its 1 entries is valid; the first: images[0]"), "{message}");
        assert!(open_images(&[], "").err().unwrap().to_string().contains("the file lists none"));
    }
}
