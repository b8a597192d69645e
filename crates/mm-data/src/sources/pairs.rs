//! Images that are compared: edits with an instruction, preferences between two images of one prompt, and
//! ranked lists of several.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sources::broken::shortened;
use crate::sources::lines::{Rows, check_some, row, rows};
use crate::sources::listed::root_beside;
use crate::{Dataset, Result, Sample, SampleImage, json, text};

/// A file of JSON lines in which each row is an edit, a preference or a ranked list.
///
/// An edit, as InstructPix2Pix trains on (Brooks et al. 2023, <https://arxiv.org/abs/2211.09800>):
/// `before` and `after` (paths of images) and `instruction`; optional are `before_caption` with
/// `after_caption`, and `label`.
///
/// A preference, as Pick-a-Pic collects them (Kirstain et al. 2023, <https://arxiv.org/abs/2305.01569>):
/// `prompt`, `first` and `second` (paths of images) and `preferred`: `"first"`, `"second"`, `"tie"`, or the
/// probability, from 0 to 1, that the first image is preferred; optional is `label`.
///
/// A ranked list, as ImageReward is trained on (Xu et al. 2023, <https://arxiv.org/abs/2304.05977>): `prompt`
/// and `ranked`, the paths of two images or more, the best first; optional is `label`.
///
/// ```text
/// {"before": "0a.jpg", "after": "0b.jpg", "instruction": "make it snow"}
/// {"prompt": "a red fox", "first": "1a.jpg", "second": "1b.jpg", "preferred": "first"}
/// {"prompt": "a red fox", "ranked": ["1a.jpg", "1c.jpg", "1b.jpg"]}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairsConfig {
    /// The file of JSON lines.
    pub path: PathBuf,
    /// The folder that relative paths of images are relative to; by default the folder of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    before: String,
    after: String,
    instruction: String,
    before_caption: Option<String>,
    after_caption: Option<String>,
    label: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preference {
    prompt: String,
    first: String,
    second: String,
    #[serde(deserialize_with = "probability")]
    preferred: f32,
    label: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranking {
    prompt: String,
    ranked: Vec<String>,
    label: Option<String>,
}

/// A row of any kind.
struct Pair {
    images: Vec<String>,
    captions: Vec<String>,
    instruction: Option<String>,
    preferred: Option<f32>,
    label: Option<String>,
}

/// The pairs as a [`Dataset`]. A row that cannot be read is a bad sample with its line.
pub(crate) struct PairsDataset {
    name: String,
    path: PathBuf,
    root: PathBuf,
    pairs: Rows<Pair>,
}

impl PairsDataset {
    /// # Errors
    /// The file cannot be read or has no row that is a pair.
    pub(crate) fn open(config: &PairsConfig) -> Result<Self> {
        let path = config.path.clone();
        let pairs = rows(&path, text::open(&path)?, |line| Ok(pair(line).map_err(shortened)))?;
        check_some(&path, &pairs)?;
        let root = root_beside(&path, config.images_root.as_ref());
        Ok(Self { name: path.display().to_string(), path, root, pairs })
    }
}

impl Dataset for PairsDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (line, pair) = row(&self.path, &self.pairs, index)?;
        let images = pair.images.iter().map(|image| SampleImage::File(self.root.join(image)));
        Ok(Sample {
            key: format!("{}:{line}", self.name),
            images: images.collect(),
            captions: pair.captions.clone(),
            label: pair.label.clone(),
            instruction: pair.instruction.clone(),
            preferred: pair.preferred,
            ..Sample::default()
        })
    }
}

fn pair(line: &str) -> std::result::Result<Pair, String> {
    let object: Map<String, Value> =
        json::parse(line).map_err(|error| format!("not a JSON object: {error}"))?;
    let has = |names: &[&str]| names.iter().any(|name| object.contains_key(*name));
    let kinds = [
        has(&["before", "after", "instruction"]),
        has(&["first", "second", "preferred"]),
        has(&["ranked"]),
        has(&["prompt"]),
    ];
    match kinds {
        [true, false, false, false] => edit(Value::Object(object)),
        [false, true, false, _] | [false, false, false, true] => preference(Value::Object(object)),
        [false, false, true, _] => ranking(Value::Object(object)),
        [false, false, false, false] => Err("neither an edit (`before`, `after`, `instruction`) nor a \
             preference (`prompt`, `first`, `second`, `preferred`) nor a ranked list (`prompt`, `ranked`)"
            .into()),
        [true, ..] => Err("the row mixes the fields of an edit and of a preference or ranked list".into()),
        _ => Err("the row mixes the fields of a preference and of a ranked list".into()),
    }
}

fn edit(row: Value) -> std::result::Result<Pair, String> {
    let Edit { before, after, instruction, before_caption, after_caption, label } =
        serde_json::from_value(row).map_err(|error| format!("an edit: {error}"))?;
    check_texts([("before", &before), ("after", &after), ("instruction", &instruction)])?;
    let captions = match (before_caption, after_caption) {
        (Some(before), Some(after)) => vec![before, after],
        (None, None) => Vec::new(),
        _ => return Err("`before_caption` and `after_caption` belong together: give both or neither".into()),
    };
    let images = vec![before, after];
    Ok(Pair { images, captions, instruction: Some(instruction), preferred: None, label })
}

fn preference(row: Value) -> std::result::Result<Pair, String> {
    let Preference { prompt, first, second, preferred, label } =
        serde_json::from_value(row).map_err(|error| format!("a preference: {error}"))?;
    check_texts([("prompt", &prompt), ("first", &first), ("second", &second)])?;
    let (images, captions) = (vec![first, second], vec![prompt]);
    Ok(Pair { images, captions, instruction: None, preferred: Some(preferred), label })
}

fn ranking(row: Value) -> std::result::Result<Pair, String> {
    let Ranking { prompt, ranked, label } =
        serde_json::from_value(row).map_err(|error| format!("a ranked list: {error}"))?;
    if ranked.len() < 2 {
        return Err(format!("`ranked` has {} images: it must have two or more", ranked.len()));
    }
    let images = ranked.iter().map(|image| ("ranked", image));
    check_texts(std::iter::once(("prompt", &prompt)).chain(images))?;
    Ok(Pair { images: ranked, captions: vec![prompt], instruction: None, preferred: None, label })
}

fn check_texts<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a String)>,
) -> std::result::Result<(), String> {
    match fields.into_iter().find(|(_, text)| text.trim().is_empty()) {
        Some((name, _)) => Err(format!("`{name}` is empty")),
        None => Ok(()),
    }
}

fn probability<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f32, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let probability = match &value {
        Value::String(word) => match word.as_str() {
            "first" => Some(1.0),
            "second" => Some(0.0),
            "tie" => Some(0.5),
            _ => None,
        },
        Value::Number(number) => number.as_f64().filter(|number| (0.0..=1.0).contains(number)),
        _ => None,
    };
    probability.map(|probability| probability as f32).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`preferred` is {value}: it must be \"first\", \"second\", \"tie\", or the probability from 0 to \
             1 that the first image is preferred"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(rows: &[&str], keys: &str) -> Result<PairsDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        fs::write(&path, rows.join("\n")).unwrap();
        PairsDataset::open(&toml::from_str(&format!("path = {path:?}\n{keys}")).unwrap())
    }

    fn paths(sample: &Sample) -> Vec<String> {
        let path = |image: &SampleImage| match image {
            SampleImage::File(path) => path.display().to_string(),
            other => panic!("not a file: {other:?}"),
        };
        sample.images.iter().map(path).collect()
    }

    const EDIT: &str = r#"{"before": "a.png", "after": "/abs/b.png", "instruction": "make it snow"}"#;
    const PREFERENCE: &str =
        r#"{"prompt": "a fox", "first": "a.png", "second": "b.png", "preferred": "second"}"#;

    #[test]
    fn edits_and_preferences_are_read() {
        let captioned = concat!(
            r#"{"before": "a", "after": "b", "instruction": "x", "#,
            r#""before_caption": "1", "after_caption": "2", "label": "add"}"#
        );
        let soft = r#"{"prompt": "p", "first": "a", "second": "b", "preferred": 0.75}"#;
        let dataset = open(&[EDIT, "", PREFERENCE, captioned, soft], "images_root = '/r'").unwrap();
        let [edit, preference, captioned, soft] = [0, 1, 2, 3].map(|index| dataset.sample(index).unwrap());
        assert_eq!(paths(&edit), ["/r/a.png", "/abs/b.png"]);
        assert_eq!((edit.instruction.as_deref(), edit.preferred), (Some("make it snow"), None));
        assert!(edit.captions.is_empty() && edit.key.ends_with("pairs.jsonl:1"));
        assert_eq!((&preference.captions[..], preference.preferred), (&["a fox".to_owned()][..], Some(0.0)));
        assert!(preference.instruction.is_none() && preference.key.ends_with("pairs.jsonl:3"));
        assert_eq!((captioned.captions.join("|"), captioned.label.as_deref()), ("1|2".into(), Some("add")));
        assert_eq!(soft.preferred, Some(0.75));
    }

    #[test]
    fn a_ranked_list_has_its_images_in_order_and_neither_a_preference_nor_an_instruction() {
        let row = r#"{"prompt": "a fox", "ranked": ["c", "a", "/abs/b"], "label": "x"}"#;
        let sample = open(&[row], "images_root = '/r'").unwrap().sample(0).unwrap();
        assert_eq!(paths(&sample), ["/r/c", "/r/a", "/abs/b"]);
        assert_eq!((sample.captions.join("|"), sample.label.as_deref()), ("a fox".into(), Some("x")));
        assert!(sample.preferred.is_none() && sample.instruction.is_none());
    }

    #[test]
    fn a_bad_row_is_a_bad_sample_with_its_line() {
        let bad = [
            ("{oops", "not a JSON object"),
            (r#"{"image": "a.png"}"#, "neither an edit (`before`, `after`, `instruction`) nor a preference"),
            (r#"{"before": "a", "instruction": "x"}"#, "an edit: missing field `after`"),
            (r#"{"before": "a", "after": "b", "instruction": "x", "mask": 1}"#, "unknown field `mask`"),
            (r#"{"before": "a", "after": "b", "instruction": " "}"#, "`instruction` is empty"),
            (
                r#"{"before": "a", "after": "b", "instruction": "x", "after_caption": "c"}"#,
                "give both or neither",
            ),
            (r#"{"before": "a", "first": "b"}"#, "mixes the fields of an edit and of a preference"),
            (
                r#"{"prompt": "p", "first": "a", "ranked": ["b", "c"]}"#,
                "of a preference and of a ranked list",
            ),
            (r#"{"prompt": "p", "ranked": ["a"]}"#, "`ranked` has 1 images: it must have two or more"),
            (r#"{"prompt": "p", "ranked": ["a", ""]}"#, "`ranked` is empty"),
            (r#"{"ranked": ["a", "b"]}"#, "a ranked list: missing field `prompt`"),
            (r#"{"prompt": "p"}"#, "a preference: missing field `first`"),
            (
                r#"{"prompt": "p", "first": "a", "second": "b", "preferred": 2}"#,
                "`preferred` is 2: it must be",
            ),
            (
                r#"{"prompt": "p", "first": "a", "second": "b", "preferred": "both"}"#,
                "must be \"first\", \"second\"",
            ),
            (r#"{"prompt": "p", "first": "a", "second": "b"}"#, "a preference: missing field `preferred`"),
        ];
        let rows: Vec<&str> = std::iter::once(EDIT).chain(bad.map(|(row, _)| row)).collect();
        let dataset = open(&rows, "").unwrap();
        assert_eq!(dataset.len(), rows.len());
        for (index, (_, reason)) in (1..).zip(bad) {
            let message = dataset.sample(index).unwrap_err().to_string();
            assert!(message.contains(&format!("pairs.jsonl:{}: ", index + 1)), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_file_without_a_pair_does_not_open() {
        let message = open(&[r#"{"image": "a.png"}"#], "").err().unwrap().to_string();
        assert!(
            message.contains("none of its 1 rows can be read; the first is line 1: neither"),
            "{message}"
        );
        assert!(open(&[], "").err().unwrap().to_string().ends_with("the file has no rows"));
    }
}
