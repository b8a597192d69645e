//! Files of references and hypotheses.
//!
//! | file | holds |
//! |---|---|
//! | COCO captions | `{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "..."}]}` |
//! | COCO results | `[{"image_id": 1, "caption": "..."}]` |
//! | map | `{"1": ["...", "..."]}` or `{"1": "..."}` |
//! | `.jsonl` | a line `{"image_id": 1, "caption": "..."}` or `{"key": "1", "caption": "..."}` a caption |
//!
//! Any of them can be of references or of hypotheses. Image ids are numbers or texts, and `1` is `"1"`.

mod forms;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use forms::{Entry, File, Image};

use super::error::{MetricsError, read_error};

/// Hypothesis and references of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionedImage {
    /// The image's id.
    pub image_id: String,
    /// The caption to measure.
    pub hypothesis: String,
    /// The captions to measure it against, at least one.
    pub references: Vec<String>,
}

/// What to do with images that have references and no hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingHypotheses {
    /// Refuse the files: a model that skips hard images scores too high.
    Refuse,
    /// Measure the images of the hypotheses alone.
    Skip,
}

/// The captions of one file by image, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captions {
    images: Vec<(String, Vec<String>)>,
}

/// Pairs the hypotheses of a file with the references of another, in the references' order.
///
/// # Errors
/// A file cannot be read or has another form, an image has no references or two hypotheses, or the
/// hypotheses' images are not those of the references.
pub fn read_captions(
    references: &Path,
    hypotheses: &Path,
    missing: MissingHypotheses,
) -> Result<Vec<CaptionedImage>, MetricsError> {
    let reference_file = references;
    let references = Captions::read(references)?;
    references.refuse_empty(reference_file, "references")?;
    let mut of_image = HashMap::new();
    for (image_id, captions) in Captions::read(hypotheses)?.images {
        let count = captions.len();
        let Some(hypothesis) = captions.into_iter().next() else {
            let problem = format!("image {image_id} has an empty list of captions; give it one caption");
            return Err(MetricsError::invalid(hypotheses, problem));
        };
        if count > 1 {
            let problem = format!("image {image_id} has {count} hypotheses; give it one");
            return Err(MetricsError::invalid(hypotheses, problem));
        }
        of_image.insert(image_id, hypothesis);
    }
    let given = of_image.len();
    let total = references.images.len();
    let mut paired = Vec::with_capacity(given);
    let mut without = Vec::new();
    for (image_id, references) in references.images {
        match of_image.remove(&image_id) {
            Some(hypothesis) => paired.push(CaptionedImage { image_id, hypothesis, references }),
            None => without.push(image_id),
        }
    }
    // The smallest, so that the message does not depend on the order of a map.
    if let Some(unknown) = of_image.keys().min() {
        let problem = format!(
            "{} of {given} hypotheses are of images without references in {}, the first of image {unknown}",
            of_image.len(),
            reference_file.display()
        );
        return Err(MetricsError::invalid(hypotheses, problem));
    }
    if let (Some(first), MissingHypotheses::Refuse) = (without.first(), missing) {
        let problem = format!(
            "{} of the {total} images of {} have no hypothesis, the first is image {first}; add them, or \
             measure the other images alone with --subset",
            without.len(),
            reference_file.display()
        );
        return Err(MetricsError::invalid(hypotheses, problem));
    }
    if paired.is_empty() {
        return Err(MetricsError::invalid(hypotheses, "there is no caption in it"));
    }
    Ok(paired)
}

impl Captions {
    /// Reads a file of any of the forms.
    ///
    /// # Errors
    /// The file cannot be read or has another form.
    pub fn read(path: &Path) -> Result<Self, MetricsError> {
        let bytes = std::fs::read(path).map_err(|source| read_error(path, source))?;
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension, "jsonl" | "ndjson") {
            return Self::from_lines(path, &bytes);
        }
        let file: File = serde_json::from_slice(&bytes).map_err(|source| {
            let problem = format!(
                "{source}; expected COCO captions, COCO results or {{\"id\": [\"caption\", ...]}}, and for a \
                 caption a line the extension .jsonl"
            );
            MetricsError::invalid(path, problem)
        })?;
        let mut captions = Self::default();
        match file {
            File::Captions(entries) => captions.add_all(Vec::new(), entries),
            File::Coco { images, annotations } => captions.add_all(images, annotations),
            File::Map(images) => {
                let mut known = HashSet::new();
                if let Some((image_id, _)) = images.iter().find(|(image_id, _)| !known.insert(image_id)) {
                    return Err(MetricsError::invalid(path, format!("image {image_id} is in it twice")));
                }
                captions.images = images.into_iter().map(|(image_id, list)| (image_id, list.0)).collect();
            }
        }
        Ok(captions)
    }

    /// The ids of the images with their captions.
    pub fn images(&self) -> &[(String, Vec<String>)] {
        &self.images
    }

    /// Fails unless there are images and each has a caption.
    ///
    /// # Errors
    /// As said; the error calls the captions `what`.
    pub fn refuse_empty(&self, path: &Path, what: &str) -> Result<(), MetricsError> {
        if self.images.is_empty() {
            return Err(MetricsError::invalid(path, format!("there are no {what} in it")));
        }
        match self.images.iter().find(|(_, captions)| captions.is_empty()) {
            Some((image_id, _)) => Err(MetricsError::invalid(
                path,
                format!("image {image_id} has no {what}; remove it or add some"),
            )),
            None => Ok(()),
        }
    }

    fn from_lines(path: &Path, bytes: &[u8]) -> Result<Self, MetricsError> {
        let mut entries = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let entry: Entry = serde_json::from_slice(line).map_err(|source| {
                let expected = "expected {\"image_id\": ..., \"caption\": \"...\"}";
                MetricsError::invalid(path, format!("line {}: {source}; {expected}", index + 1))
            })?;
            entries.push(entry);
        }
        let mut captions = Self::default();
        captions.add_all(Vec::new(), entries);
        Ok(captions)
    }

    /// Adds images, which may be without captions, and then captions.
    fn add_all(&mut self, images: Vec<Image>, entries: Vec<Entry>) {
        let mut places: HashMap<String, usize> = HashMap::new();
        let ids = images.into_iter().map(|image| (image.id.0, None));
        for (image_id, caption) in
            ids.chain(entries.into_iter().map(|entry| (entry.image_id.0, Some(entry.caption))))
        {
            let place = *places.entry(image_id).or_insert_with_key(|image_id| {
                self.images.push((image_id.clone(), Vec::new()));
                self.images.len() - 1
            });
            self.images[place].1.extend(caption);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes both files and pairs them.
    fn read(references: (&str, &str), hypotheses: (&str, &str)) -> Result<Vec<CaptionedImage>, String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |(name, text): (&str, &str)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (references, hypotheses) = (write(references), write(hypotheses));
        read_captions(&references, &hypotheses, MissingHypotheses::Refuse).map_err(|error| error.to_string())
    }

    const COCO: (&str, &str) = (
        "r.json",
        r#"{"info": {}, "images": [{"id": 7, "file_name": "a"}, {"id": 3}], "licenses": [],
        "annotations": [{"id": 1, "image_id": 3, "caption": "x"}, {"image_id": 7, "caption": "y"},
        {"image_id": 3, "caption": "z"}]}"#,
    );
    const RESULTS: (&str, &str) =
        ("h.json", r#"[{"image_id": 3, "caption": "a"}, {"image_id": 7, "caption": "b"}]"#);

    #[test]
    fn every_form_gives_the_same_captions() {
        let image = |id: &str, hypothesis: &str, references: &[&str]| CaptionedImage {
            image_id: id.to_owned(),
            hypothesis: hypothesis.to_owned(),
            references: references.iter().map(|&text| text.to_owned()).collect(),
        };
        let expected = Ok(vec![image("7", "b", &["y"]), image("3", "a", &["x", "z"])]);
        assert_eq!(read(COCO, RESULTS), expected);
        assert_eq!(
            read(("r.json", r#"{"7": "y", "3": ["x", "z"]}"#), ("h.json", r#"{"3": ["a"], "7": "b"}"#)),
            expected
        );
        let lines = "{\"key\": \"7\", \"caption\": \"y\"}\n\n{\"image_id\": 3, \"caption\": \"x\"}\r\n\
                     {\"image_id\": 3, \"caption\": \"z\", \"score\": 1}";
        assert_eq!(read(("r.jsonl", lines), RESULTS), expected);
    }

    #[test]
    fn bad_files_are_errors_that_name_file_and_place() {
        for (references, hypotheses, expected) in [
            (COCO, ("h.json", r#"{"3": "a"}"#), "h.json: 1 of the 2 images of "),
            (
                COCO,
                ("h.json", r#"{"3": "a", "7": "b", "9": "c", "8": ""}"#),
                "2 of 4 hypotheses are of images",
            ),
            (COCO, ("h.json", r#"{"3": "a", "7": "b", "9": "c"}"#), "the first of image 9"),
            (COCO, ("h.json", r#"{"3": ["a", "b"], "7": "b"}"#), "h.json: image 3 has 2 hypotheses"),
            (COCO, ("h.json", r#"{"3": [], "7": "b"}"#), "h.json: image 3 has an empty list"),
            (COCO, ("h.json", r#"{"3": "a", "3": "b"}"#), "h.json: image 3 is in it twice"),
            (COCO, ("h.json", r#"[{"image_id": 3}]"#), "h.json: missing field `caption` at line 1 column"),
            (COCO, ("h.json", r#"[{"image_id": 3.5, "caption": "a"}]"#), "expected an id"),
            (COCO, ("h.json", r#"{"3": 1}"#), "expected a caption or a list of captions at line 1"),
            (COCO, ("h.json", "{"), "h.json: EOF while parsing an object at line 1"),
            (COCO, ("h.json", "3"), "expected captions at line 1"),
            (
                COCO,
                ("h.jsonl", "{\"key\": 3, \"caption\": \"a\"}\n{\"key\": 7}"),
                "h.jsonl: line 2: missing field",
            ),
            (("r.json", r#"{"7": []}"#), RESULTS, "r.json: image 7 has no references"),
            (("r.json", r#"{"images": [{"id": 1}]}"#), RESULTS, "missing field `annotations`"),
            (
                ("r.json", r#"{"images": [{"id": 1}], "annotations": []}"#),
                RESULTS,
                "image 1 has no references",
            ),
            (("r.json", "{}"), RESULTS, "r.json: there are no references in it"),
        ] {
            let error = read(references, hypotheses).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        let none = read_captions(Path::new("none.json"), Path::new("h.json"), MissingHypotheses::Refuse);
        assert!(none.unwrap_err().to_string().starts_with("cannot read none.json: "));
    }

    #[test]
    fn images_without_hypothesis_can_be_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("r.json"), COCO.1).unwrap();
        std::fs::write(path("h.json"), r#"{"3": "a"}"#).unwrap();
        let paired = read_captions(&path("r.json"), &path("h.json"), MissingHypotheses::Skip).unwrap();
        assert_eq!(paired.len(), 1);
        std::fs::write(path("h.json"), "{}").unwrap();
        let none = read_captions(&path("r.json"), &path("h.json"), MissingHypotheses::Skip);
        assert!(none.unwrap_err().to_string().contains("there is no caption in it"));
    }
}
