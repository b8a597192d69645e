//! COCO captions: one JSON file of images and captions.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::broken::Broken;
use crate::sources::json_file::{JsonFile, entry};
use crate::sources::listed::{Listed, ListedDataset};
use crate::{Fault, Result};

/// Captions in the format of [COCO](https://cocodataset.org/#format-data): `captions_train2017.json` and
/// others.
///
/// A sample is an image with all its captions, in the order of their ids. The key is the `id` of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CocoConfig {
    /// The JSON file.
    pub path: PathBuf,
    /// The folder that `file_name` is relative to, such as `train2017`; by default the folder of the JSON
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow)]
    annotations: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    caption: String,
}

/// Opens the file. An image without a caption is a bad sample in its place. An annotation that is invalid, or
/// of an image that the file does not list, is a bad sample after the last image.
pub(crate) fn open(config: &CocoConfig) -> Result<ListedDataset> {
    let json = JsonFile::read(&config.path)?;
    let file: File = json.parse("COCO captions: an object with `images` and `annotations`")?;
    let (mut captions, mut lost) = captions(&file.annotations);
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(file.images.len());
    for (number, &raw) in file.images.iter().enumerate() {
        let image: Image = match entry(raw) {
            Ok(image) => image,
            Err(reason) => {
                entries.push(Err(Broken::new(Fault::Json, format!("images[{number}]: {reason}"))));
                continue;
            }
        };
        let Image { id, file_name } = image;
        entries.push(if !seen.insert(id) {
            Err(Broken::new(Fault::Json, format!("images[{number}]: an earlier image has the same id {id}")))
        } else {
            match captions.remove(&id) {
                Some(mut captions) => {
                    captions.sort_by_key(|(id, _)| *id);
                    let captions = captions.into_iter().map(|(_, caption)| caption).collect();
                    Ok(Listed { key: id.to_string(), image: file_name, captions })
                }
                None => {
                    Err(Broken::new(Fault::NoCaption, format!("image {id} ({file_name}) has no caption")))
                }
            }
        });
    }
    let mut of_no_image: Vec<_> = captions
        .iter()
        .flat_map(|(image, captions)| captions.iter().map(move |(id, _)| (id, image)))
        .collect();
    of_no_image.sort();
    lost.extend(of_no_image.into_iter().map(|(id, image)| {
        Broken::new(Fault::Json, format!("annotation {id}: the file has no image with its image_id {image}"))
    }));
    entries.extend(lost.into_iter().map(Err));
    ListedDataset::new(&config.path, config.images_root.as_ref(), entries)
}

/// The captions of each image with their ids.
type Captions = HashMap<u64, Vec<(u64, String)>>;

/// The captions, and the invalid annotations.
fn captions(annotations: &[&RawValue]) -> (Captions, Vec<Broken>) {
    let mut captions = Captions::new();
    let mut lost = Vec::new();
    let mut seen = HashSet::new();
    for (number, &raw) in annotations.iter().enumerate() {
        let broken = |fault, reason| Broken::new(fault, format!("annotations[{number}]: {reason}"));
        match entry::<Annotation>(raw) {
            Err(reason) => lost.push(broken(Fault::Json, reason)),
            Ok(Annotation { id, .. }) if !seen.insert(id) => {
                lost.push(broken(Fault::Json, format!("an earlier annotation has the same id {id}")));
            }
            Ok(Annotation { caption, .. }) if caption.trim().is_empty() => {
                lost.push(broken(Fault::NoCaption, "the caption is empty".into()));
            }
            Ok(Annotation { id, image_id, caption }) => {
                captions.entry(image_id).or_default().push((id, caption));
            }
        }
    }
    (captions, lost)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Dataset, Error, Sample, SampleImage};

    /// The start of the published files.
    const HEAD: &str = r#""info": {"description": "COCO 2017 Dataset","url": "http://cocodataset.org",
"version": "1.0","year": 2017,"contributor": "COCO Consortium","date_created": "2017/09/01"},
"licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/","id": 1,
"name": "Attribution-NonCommercial-ShareAlike License"}]"#;

    fn image(id: u64) -> String {
        format!(
            r#"{{"license": 4,"file_name": "{id:012}.jpg",
"coco_url": "http://images.cocodataset.org/val2017/{id:012}.jpg","height": 427,"width": 640,
"date_captured": "2013-11-14 17:02:52","flickr_url": "http://farm7.staticflickr.com/6116/{id}_z.jpg",
"id": {id}}}"#
        )
    }

    fn annotation(id: u64, image: u64, caption: &str) -> String {
        format!(r#"{{"image_id": {image},"id": {id},"caption": "{caption}"}}"#)
    }

    fn open_text(text: &str) -> Result<ListedDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions_val2017.json");
        fs::write(&path, text).unwrap();
        open(&CocoConfig { path, images_root: Some("coco/val2017".into()) })
    }

    fn open_lists(images: &[String], annotations: &[String]) -> Result<ListedDataset> {
        open_text(&format!(
            r#"{{{HEAD},"images": [{}],"annotations": [{}]}}"#,
            images.join(","),
            annotations.join(",")
        ))
    }

    fn samples(source: &ListedDataset) -> Vec<Result<Sample>> {
        (0..source.len()).map(|index| source.sample(index)).collect()
    }

    fn message_of(sample: &Result<Sample>) -> (Fault, String) {
        let error = sample.as_ref().unwrap_err();
        (error.fault(), error.to_string().split_once("captions_val2017.json: ").unwrap().1.to_owned())
    }

    #[test]
    fn an_image_has_its_captions_in_the_order_of_their_ids() {
        let annotations =
            [annotation(41, 139, "two"), annotation(9, 285, "bear"), annotation(38, 139, "one")];
        let source = open_lists(&[image(139), image(285)], &annotations).unwrap();
        let first = source.sample(0).unwrap();
        assert_eq!(
            (first.key.as_str(), &first.captions[..]),
            ("139", &["one".to_owned(), "two".to_owned()][..])
        );
        let SampleImage::File(path) = first.image().unwrap() else { panic!("a file") };
        assert_eq!(*path, PathBuf::from("coco/val2017/000000000139.jpg"));
        assert_eq!(source.sample(1).unwrap().captions, ["bear"]);
    }

    #[test]
    fn inconsistent_entries_are_counted_by_kind() {
        let images = [image(1), image(2), image(1), r#"{"id": 4}"#.into()];
        let annotations = [
            annotation(10, 1, "a cat"),
            annotation(11, 77, "of no image"),
            annotation(10, 1, "again"),
            annotation(12, 1, " "),
            r#"{"id": 13, "image_id": "1", "caption": "x"}"#.into(),
        ];
        let samples = samples(&open_lists(&images, &annotations).unwrap());
        assert_eq!(samples[0].as_ref().unwrap().captions, ["a cat"]);
        let expected = [
            (Fault::NoCaption, "image 2 (000000000002.jpg) has no caption"),
            (Fault::Json, "images[2]: an earlier image has the same id 1"),
            (Fault::Json, "images[3]: missing field `file_name`"),
            (Fault::Json, "annotations[2]: an earlier annotation has the same id 10"),
            (Fault::NoCaption, "annotations[3]: the caption is empty"),
            (Fault::Json, "annotations[4]: invalid type: string \"1\", expected u64"),
            (Fault::Json, "annotation 11: the file has no image with its image_id 77"),
        ];
        let found: Vec<_> = samples[1..].iter().map(message_of).collect();
        assert_eq!(found, expected.map(|(fault, reason)| (fault, reason.to_owned())));
    }

    #[test]
    fn a_file_of_another_layout_says_so() {
        let error = |result: Result<ListedDataset>| result.err().unwrap().to_string();
        let instances =
            r#"{"id": 1,"image_id": 139,"category_id": 18,"bbox": [1.0,2.0,3.0,4.0],"iscrowd": 0}"#;
        let message = error(open_lists(&[image(139)], &[instances.into()]));
        assert!(
            message.contains(
                "none of its 2 entries is valid; the first: annotations[0]: missing field `caption`"
            ),
            "{message}"
        );
        assert!(error(open_lists(&[], &[])).contains("the file lists none"));
        let message = error(open_text("{\"images\": []}"));
        assert!(
            message.contains("json:1: column 14: missing field `annotations`; expected COCO"),
            "{message}"
        );
        let missing = open(&CocoConfig { path: "no/such.json".into(), images_root: None });
        assert!(matches!(missing, Err(Error::Io { .. })));
    }
}
