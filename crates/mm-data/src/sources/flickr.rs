//! Flickr30k's captions, in three common formats.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::one_or_many;
use crate::sources::broken::Broken;
use crate::sources::delimited::{self, Dialect};
use crate::sources::listed::{Listed, ListedDataset};
use crate::sources::splits::Splits;
use crate::{Error, Fault, Result, json, text};

/// The captions of [Flickr30k](https://shannon.cs.illinois.edu/DenotationGraph/). The format is detected from
/// the first line: `results_20130124.token` of the authors, `results.csv` of Kaggle, or
/// `flickr_annotations_30k.csv` of Hugging Face.
///
/// A sample is an image with all its captions, in the order of their numbers. The key is the file name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlickrConfig {
    /// The file of captions.
    pub path: PathBuf,
    /// The folder of the images; by default the folder of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The split or splits: `train`, `val`, `test`; by default `train`. Only Hugging Face's format has
    /// splits: from the others all images are read.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<String>,
}

type Entries = Vec<std::result::Result<Listed, Broken>>;

/// Opens the file. An invalid row is a bad sample with its line; the other captions of its image are kept.
pub(crate) fn open(config: &FlickrConfig) -> Result<ListedDataset> {
    let bytes = &text::read_bytes(&config.path)?;
    let head = String::from_utf8_lossy(bytes.split(|&byte| byte == b'\n').next().unwrap_or_default());
    let head = head.trim();
    let hf: Vec<_> = head.split(',').map(|name| name.trim().trim_matches('"')).collect();
    let entries = if head.starts_with("image_name|") || head.starts_with("image_name |") {
        no_splits(config)?;
        rows(bytes, 1, piped)
    } else if token(head).is_ok() {
        no_splits(config)?;
        rows(bytes, 0, token)
    } else if ["raw", "filename", "split"].iter().all(|name| hf.contains(name)) {
        annotations(config, bytes)?
    } else if bytes.is_empty() {
        Vec::new()
    } else {
        return Err(Error::Line {
            path: config.path.clone(),
            line: 1,
            reason: format!(
                "`{}` is not the first line of a Flickr30k file: expected \
                 `image_name| comment_number| comment` (results.csv), \
                 `1000092795.jpg#0<tab>A caption` (results_20130124.token) or \
                 `raw,sentids,split,filename,img_id`; for other columns use kind = \"csv\"",
                head.chars().take(60).collect::<String>()
            ),
        });
    };
    ListedDataset::new(&config.path, config.images_root.as_ref(), entries)
}

fn no_splits(config: &FlickrConfig) -> Result<()> {
    if config.split.is_empty() {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "split = {:?}: {} has no splits: remove `split`, or use dataset_flickr30k.json with \
         kind = \"karpathy\"",
        config.split,
        config.path.display()
    )))
}

/// One caption of an image.
struct Row<'a> {
    image: &'a str,
    number: u32,
    caption: &'a str,
}

/// Splits `1000092795.jpg| 0| A caption .`
fn piped(line: &str) -> std::result::Result<Row<'_>, String> {
    let parts: Vec<_> = line.splitn(3, '|').map(str::trim).collect();
    match parts[..] {
        [image, number, caption] => row(image, number, caption),
        _ => Err(format!("{} of the 3 columns `image_name| comment_number| comment`", parts.len())),
    }
}

/// Splits `1000092795.jpg#0<tab>A caption .`
fn token(line: &str) -> std::result::Result<Row<'_>, String> {
    let (name, caption) = line.split_once('\t').ok_or("no tab between the image name and the caption")?;
    let (image, number) = name.rsplit_once('#').ok_or("no `#` and number after the image name")?;
    row(image.trim(), number.trim(), caption.trim())
}

fn row<'a>(image: &'a str, number: &str, caption: &'a str) -> std::result::Result<Row<'a>, String> {
    let number = number.parse().map_err(|_| format!("`{number}` is not a caption number"))?;
    if image.is_empty() {
        return Err("the image name is empty".into());
    }
    if caption.is_empty() {
        return Err("the caption is empty".into());
    }
    Ok(Row { image, number, caption })
}

/// The images in the order of their first row, then the invalid rows.
fn rows(bytes: &[u8], header: usize, parse: fn(&str) -> std::result::Result<Row<'_>, String>) -> Entries {
    let mut order = Vec::new();
    let mut captions: HashMap<&str, BTreeMap<u32, &str>> = HashMap::new();
    let mut broken = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate().skip(header) {
        let mut bad =
            |fault, reason: String| broken.push(Broken::new(fault, format!("line {}: {reason}", index + 1)));
        let Ok(text) = std::str::from_utf8(line) else {
            bad(Fault::Text, "not UTF-8 text".into());
            continue;
        };
        match parse(text) {
            _ if text.trim().is_empty() => {}
            Err(reason) => bad(Fault::Row, reason),
            Ok(Row { image, number, caption }) => {
                let captions = captions.entry(image).or_insert_with(|| {
                    order.push(image);
                    BTreeMap::new()
                });
                match captions.entry(number) {
                    Entry::Vacant(place) => _ = place.insert(caption),
                    Entry::Occupied(_) => {
                        bad(Fault::Row, format!("caption {number} of {image} is listed twice"));
                    }
                }
            }
        }
    }
    let listed = |image: &str| Listed {
        key: image.to_owned(),
        image: image.to_owned(),
        captions: captions[image].values().map(|&caption| caption.to_owned()).collect(),
    };
    order.into_iter().map(|image| Ok(listed(image))).chain(broken.into_iter().map(Err)).collect()
}

/// The needed columns of Hugging Face's file.
#[derive(Deserialize)]
struct Annotation {
    raw: String,
    split: String,
    filename: String,
}

fn annotations(config: &FlickrConfig, bytes: &[u8]) -> Result<Entries> {
    let splits = Splits::of(&config.split);
    let mut present = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    let dialect = Dialect { delimiter: b',', quoting: true, way_out: "close it, or write it twice" };
    let mut rows = delimited::Rows::new(&config.path, bytes, dialect);
    let (line, header) = rows.next().transpose()?.unwrap_or((1, Ok(csv::ByteRecord::new())));
    let mut header = header.map_err(|reason| Error::Line { path: config.path.clone(), line, reason })?;
    header.trim();
    for row in rows {
        let (line, record) = row?;
        let bad = |fault, reason: String| Err(Broken::new(fault, format!("line {line}: {reason}")));
        let record = match record {
            Ok(record) => record,
            Err(reason) => {
                entries.push(bad(Fault::Row, reason));
                continue;
            }
        };
        if record.iter().any(|field| std::str::from_utf8(field).is_err()) {
            entries.push(bad(Fault::Text, "not UTF-8 text".into()));
            continue;
        }
        let annotation: Annotation = match record.deserialize(Some(&header)) {
            Ok(annotation) if record.len() == header.len() => annotation,
            Ok(_) => {
                entries.push(bad(
                    Fault::Row,
                    format!("{} columns where the header has {}", record.len(), header.len()),
                ));
                continue;
            }
            Err(error) => {
                entries.push(bad(Fault::Row, error.to_string()));
                continue;
            }
        };
        let taken = splits.has(&annotation.split);
        *present.entry(annotation.split).or_default() += 1;
        if taken {
            entries.push(match json::parse::<Vec<String>>(&annotation.raw) {
                Err(error) => bad(Fault::Json, format!("`raw` is not a JSON list of captions: {error}")),
                Ok(captions) if captions.iter().all(|caption| caption.trim().is_empty()) => {
                    bad(Fault::NoCaption, format!("{} has no caption", annotation.filename))
                }
                Ok(_) if !seen.insert(annotation.filename.clone()) => {
                    bad(Fault::Row, format!("{} is listed twice", annotation.filename))
                }
                Ok(captions) => {
                    Ok(Listed { key: annotation.filename.clone(), image: annotation.filename, captions })
                }
            });
        }
    }
    if !present.is_empty() {
        splits.check(&config.path, &present)?;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Dataset, SampleImage};

    fn open_bytes(bytes: &[u8], keys: &str) -> Result<ListedDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results");
        std::fs::write(&path, bytes).unwrap();
        let text = format!("path = {:?}\nimages_root = 'flickr30k-images'\n{keys}", path.to_str().unwrap());
        open(&toml::from_str(&text).unwrap())
    }

    fn captions(source: &ListedDataset, index: usize) -> Vec<String> {
        source.sample(index).unwrap().captions
    }

    fn message_of(source: &ListedDataset, index: usize) -> (Fault, String) {
        let error = source.sample(index).unwrap_err();
        (error.fault(), error.to_string().split_once("results: ").unwrap().1.to_owned())
    }

    #[test]
    fn the_broken_row_of_kaggles_file_is_counted() {
        let text = "image_name| comment_number| comment\r\n\
            1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .\r\n\
            1000092795.jpg| 1| Two young , White males are outside near many bushes | trees .\r\n\
            2199200615.jpg| 3| A dog on grass .\r\n\
            2199200615.jpg| 4   A dog runs across the grass .\r\n\
            2199200615.jpg| 0| The dog is running .\r\n\r\n";
        let source = open_bytes(text.as_bytes(), "").unwrap();
        assert_eq!(source.len(), 3);
        assert_eq!(captions(&source, 0)[1], "Two young , White males are outside near many bushes | trees .");
        assert_eq!(captions(&source, 1), ["The dog is running .", "A dog on grass ."]);
        let sample = source.sample(1).unwrap();
        let SampleImage::File(path) = sample.image().unwrap() else { panic!("a file") };
        assert_eq!(path, Path::new("flickr30k-images/2199200615.jpg"));
        let expected = "line 5: 2 of the 3 columns `image_name| comment_number| comment`";
        assert_eq!(message_of(&source, 2), (Fault::Row, expected.to_owned()));
    }

    #[test]
    fn the_authors_token_file_is_detected_from_its_first_line() {
        let text =
            b"1000092795.jpg#0\tTwo young guys .\n1000092795.jpg#1\tTwo men .\n10002456.jpg#0\tSeveral men\n\
            10002456.jpg#0\tagain\n10002456.jpg#x\ty\n10002456.jpg#1 y\n10002456.jpg#2\t\xff\n";
        let source = open_bytes(text, "").unwrap();
        assert_eq!((captions(&source, 0).len(), captions(&source, 1)), (2, vec!["Several men".to_owned()]));
        let bad: Vec<_> = (2..source.len()).map(|index| message_of(&source, index)).collect();
        let expected = [
            (Fault::Row, "line 4: caption 0 of 10002456.jpg is listed twice"),
            (Fault::Row, "line 5: `x` is not a caption number"),
            (Fault::Row, "line 6: no tab between the image name and the caption"),
            (Fault::Text, "line 7: not UTF-8 text"),
        ];
        assert_eq!(bad, expected.map(|(fault, reason)| (fault, reason.to_owned())));
    }

    #[test]
    fn hugging_faces_file_has_splits() {
        let text = "raw,sentids,split,filename,img_id\n\
            \"[\"\"Two young guys .\"\", \"\"Two \\\"\"men\\\"\" .\"\"]\",\"[0, 1]\",train,1000092795.jpg,0\n\
            \"[\"\"Several men\"\"]\",\"[2]\",test,10002456.jpg,1\n\
            not json,[3],train,3.jpg,2\nshort,[3]\n[],[],train,4.jpg,2\n";
        let source = open_bytes(text.as_bytes(), "").unwrap();
        assert_eq!(captions(&source, 0), ["Two young guys .", "Two \"men\" ."]);
        let faults: Vec<_> = (1..source.len()).map(|index| message_of(&source, index).0).collect();
        assert_eq!(faults, [Fault::Json, Fault::Row, Fault::NoCaption]);
        let source = open_bytes(text.as_bytes(), "split = ['test']").unwrap();
        assert_eq!(captions(&source, 0), ["Several men"]);
        let message = open_bytes(text.as_bytes(), "split = 'dev'").err().unwrap().to_string();
        assert!(message.contains("no split `dev`; the file has `test` (1), `train` (3)"), "{message}");
    }

    #[test]
    fn another_file_is_an_error_with_the_expected_formats() {
        let error = |text: &str, keys: &str| open_bytes(text.as_bytes(), keys).err().unwrap().to_string();
        let message = error("image,caption\na.jpg,x\n", "");
        let expected = "results:1: `image,caption` is not the first line of a Flickr30k file";
        assert!(message.contains(expected), "{message}");
        assert!(error("", "").contains("the file lists none"));
        assert!(error("image_name| comment_number| comment\n", "").contains("the file lists none"));
        assert!(error("a.jpg#0\tx\n", "split = 'test'").contains("with kind = \"karpathy\""));
        let missing = open(&FlickrConfig { path: "no/such".into(), images_root: None, split: vec![] });
        assert!(matches!(missing, Err(Error::Io { .. })));
    }
}
