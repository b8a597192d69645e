//! Pages with the JSON that they say, as CORD and the data sets of Donut have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::document::{Document, DocumentValue};
use crate::sources::broken::{Broken, check_some};
use crate::sources::lines::rows;
use crate::{Dataset, Error, Fault, Result, Sample, SampleImage, json, text};

/// Pages with structured targets, in one of two forms:
///
/// - a folder with images and a `metadata.jsonl`, as `donut` reads data sets (Kim et al. 2022,
///   <https://arxiv.org/abs/2111.15664>). A line is
///   `{"file_name": "a.png", "ground_truth": "{\"gt_parse\": {...}}"}`, where `ground_truth` is JSON in a
///   text or an object;
/// - a folder with the folders `image` and `json`, as [CORD](https://github.com/clovaai/cord) has them, with
///   `gt_parse` in each JSON file.
///
/// A sample is a page with a [`Document`](crate::Document) without places, which has `gt_parse` as its value.
/// The key is the path of the image below the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CordConfig {
    /// The folder of a split, such as `cord-v2/train`.
    pub path: PathBuf,
    /// The name of the structure, [`Document::schema`](crate::Document::schema).
    #[serde(default = "cord")]
    pub schema: String,
}

fn cord() -> String {
    "cord".to_owned()
}

/// Pages with structured targets as a [`Dataset`].
pub(crate) struct CordDataset {
    name: String,
    folder: PathBuf,
    pages: Vec<std::result::Result<Page, Broken>>,
}

struct Page {
    /// The path of the image below the folder.
    image: String,
    document: Arc<Document>,
}

#[derive(Deserialize)]
struct Line {
    file_name: String,
    ground_truth: Box<RawValue>,
}

/// What is known of a page; other members are lines and boxes.
#[derive(Deserialize)]
struct Truth {
    gt_parse: Option<DocumentValue>,
    gt_parses: Option<IgnoredAny>,
}

impl CordDataset {
    /// Reads the targets of all pages, and no image. An invalid one is a bad sample in its place.
    ///
    /// # Errors
    /// The folder has neither form, a file of it cannot be read, or no target is valid; an empty schema.
    pub(crate) fn open(config: &CordConfig) -> Result<Self> {
        let folder = &config.path;
        let name = folder.display().to_string();
        if config.schema.trim().is_empty() {
            return Err(Error::Setting(format!("{name}: schema = \"\" must be the name of the structure")));
        }
        let metadata = folder.join("metadata.jsonl");
        let pages = if metadata.is_file() {
            from_lines(&metadata, &config.schema)?
        } else if folder.join("json").is_dir() {
            from_files(folder, &config.schema)?
        } else {
            fs::read_dir(folder).map_err(Error::io(folder))?;
            let hint = "it has neither a metadata.jsonl nor the folders `image` and `json`: give the folder \
                        of a split";
            return Err(Error::Empty { name, hint: hint.to_owned() });
        };
        check_some(&name, &pages)?;
        Ok(Self { name, folder: folder.clone(), pages })
    }
}

fn from_lines(metadata: &Path, schema: &str) -> Result<Vec<std::result::Result<Page, Broken>>> {
    let parsed = rows(metadata, text::open(metadata)?, |line| {
        Ok(json::parse::<Line>(line).map_err(|error| error.to_string()).and_then(|line| page(line, schema)))
    })?;
    let checked = |(line, page): (u64, std::result::Result<Page, String>)| {
        page.map_err(|reason| Broken::new(Fault::Json, format!("metadata.jsonl:{line}: {reason}")))
    };
    Ok(parsed.into_iter().map(checked).collect())
}

fn page(Line { file_name, ground_truth }: Line, schema: &str) -> std::result::Result<Page, String> {
    if file_name.trim().is_empty() {
        return Err("`file_name` is empty".to_owned());
    }
    let inner = serde_json::from_str::<String>(ground_truth.get());
    let value = target(inner.as_deref().unwrap_or(ground_truth.get()))
        .map_err(|reason| format!("ground_truth of {file_name}: {reason}"))?;
    Ok(Page { image: file_name, document: Arc::new(Document::new(schema, value)) })
}

fn from_files(folder: &Path, schema: &str) -> Result<Vec<std::result::Result<Page, Broken>>> {
    let json = folder.join("json");
    let mut names = Vec::new();
    for entry in fs::read_dir(&json).map_err(Error::io(&json))? {
        let path = entry.map_err(Error::io(&json))?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort_unstable();
    let page = |name: String| {
        let path = json.join(format!("{name}.json"));
        let wrong = |fault: Fault, reason: String| Broken::new(fault, format!("json/{name}.json: {reason}"));
        let content = text::read(&path).map_err(|error| wrong(error.fault(), error.to_string()))?;
        let value = target(&content).map_err(|reason| wrong(Fault::Json, reason))?;
        let image = ["png", "jpg", "jpeg", "tif", "webp"]
            .map(|extension| format!("image/{name}.{extension}"))
            .into_iter()
            .find(|image| folder.join(image).is_file())
            .ok_or_else(|| wrong(Fault::NoImage, format!("there is no image/{name}.png or other image")))?;
        Ok(Page { image, document: Arc::new(Document::new(schema, value)) })
    };
    Ok(names.into_iter().map(page).collect())
}

/// The value of `gt_parse`.
fn target(text: &str) -> std::result::Result<DocumentValue, String> {
    let truth: Truth = json::parse(text).map_err(|error| error.to_string())?;
    match truth {
        Truth { gt_parse: Some(value @ DocumentValue::Object(_)), .. } => Ok(value),
        Truth { gt_parse: Some(_), .. } => Err("`gt_parse` is not an object".to_owned()),
        Truth { gt_parses: Some(_), .. } => {
            Err("`gt_parses` has several targets, and this kind reads one: `gt_parse`".to_owned())
        }
        _ => Err("there is no `gt_parse`; lines alone (`valid_line`) are no target".to_owned()),
    }
}

impl Dataset for CordDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.pages.len()
    }

    fn key(&self, index: usize) -> String {
        self.pages[index].as_ref().map_or_else(|_| format!("#{index}"), |page| page.image.clone())
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let page = self.pages[index].as_ref().map_err(|broken| broken.error(&self.name))?;
        let image = SampleImage::File(self.folder.join(&page.image));
        Ok(Sample { document: Some(Arc::clone(&page.document)), ..Sample::new(&page.image, image) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(dataset: &CordDataset) -> Vec<String> {
        (0..dataset.len()).filter_map(|index| Some(dataset.sample(index).err()?.to_string())).collect()
    }

    fn config(folder: &tempfile::TempDir) -> CordConfig {
        toml::from_str(&format!("path = {:?}", folder.path())).unwrap()
    }

    #[test]
    fn lines_have_targets_in_texts_or_objects_and_invalid_ones_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"file_name": "a.png", "ground_truth": "{\"gt_parse\": {\"total\": {\"price\": \"9\"}}}"}"#,
            r#"{"file_name": "b.png", "ground_truth": {"gt_parse": {"z": 1, "a": [2]}, "meta": {"x": NaN}}}"#,
            r#"{"file_name": "c.png", "ground_truth": "{\"gt_parses\": [{\"question\": \"?\"}]}"}"#,
            r#"{"file_name": "d.png", "ground_truth": "{\"valid_line\": []}"}"#,
            r#"{"file_name": "e.png", "ground_truth": "{\"gt_parse\": "}"#,
            r#"{"file_name": " ", "ground_truth": {"gt_parse": {}}}"#,
            r#"{"file_name": "f.png"}"#,
            r#"{"file_name": "g.png", "ground_truth": {"gt_parse": "total"}}"#,
        ];
        fs::write(folder.path().join("metadata.jsonl"), lines.join("\n")).unwrap();
        let dataset = CordDataset::open(&config(&folder)).unwrap();
        assert_eq!((dataset.len(), dataset.key(1)), (8, "b.png".to_owned()));
        let sample = dataset.sample(1).unwrap();
        let document = sample.document.as_ref().unwrap();
        assert_eq!(document.schema, "cord");
        assert_eq!(serde_json::to_string(&document.value).unwrap(), r#"{"z":"1","a":["2"]}"#);
        assert!(document.fields.iter().all(|field| field.places.is_empty()) && document.words.is_empty());
        assert!(matches!(sample.image().unwrap(), SampleImage::File(path) if path.ends_with("b.png")));
        let expected = [
            "metadata.jsonl:3: ground_truth of c.png: `gt_parses` has several targets",
            "metadata.jsonl:4: ground_truth of d.png: there is no `gt_parse`",
            "metadata.jsonl:5: ground_truth of e.png: EOF while parsing",
            "metadata.jsonl:6: `file_name` is empty",
            "metadata.jsonl:7: missing field `ground_truth`",
            "metadata.jsonl:8: ground_truth of g.png: `gt_parse` is not an object",
        ];
        let messages = messages(&dataset);
        assert_eq!(messages.len(), expected.len(), "{messages:?}");
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn folders_of_images_and_json_are_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["image", "json"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("json/receipt_1.json", r#"{"gt_parse": {"total": "1"}, "valid_line": [], "meta": {}}"#);
        write("image/receipt_1.jpg", "x");
        write("json/receipt_0.json", r#"{"valid_line": []}"#);
        write("json/receipt_2.json", r#"{"gt_parse": {}}"#);
        let dataset = CordDataset::open(&CordConfig { schema: "receipt".into(), ..config(&folder) }).unwrap();
        let sample = dataset.sample(1).unwrap();
        assert_eq!((sample.key.as_str(), dataset.len()), ("image/receipt_1.jpg", 3));
        assert_eq!(sample.document.unwrap().schema, "receipt");
        let messages = messages(&dataset);
        assert!(messages[0].contains("json/receipt_0.json: there is no `gt_parse`"), "{messages:?}");
        assert!(messages[1].contains("json/receipt_2.json: there is no image/receipt_2.png"), "{messages:?}");
    }

    #[test]
    fn a_folder_of_another_form_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = CordDataset::open(&config(&folder)).err().unwrap().to_string();
        assert!(error.contains("neither a metadata.jsonl nor the folders"), "{error}");
        let missing = CordConfig { path: folder.path().join("train"), schema: cord() };
        assert!(matches!(CordDataset::open(&missing), Err(Error::Io { .. })));
        let unnamed = CordConfig { schema: " ".into(), ..config(&folder) };
        let error = CordDataset::open(&unnamed).err().unwrap().to_string();
        assert!(error.contains("the name of the structure"), "{error}");
    }
}
