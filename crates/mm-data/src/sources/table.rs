//! Tables of image paths and captions: CSV, TSV and JSON lines.

use std::io::BufRead;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::one_or_many;
use crate::sources::delimited::{self, Dialect};
use crate::sources::lines::{self, Rows};
use crate::sources::listed::root_beside;
use crate::{Dataset, Error, Result, Sample, SampleImage, json, text};

/// A table and the names of its columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// The file.
    pub path: PathBuf,
    /// The column with the path of the image.
    #[serde(default = "image")]
    pub image_column: String,
    /// The column with the caption, or several: `["title", "description"]`. The first that is not empty in a
    /// row is its canonical caption. In JSON lines a column may also hold a list of captions.
    #[serde(default = "caption", deserialize_with = "one_or_many")]
    pub caption_column: Vec<String>,
    /// The column with the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// The column with the path of the mask, relative to the same folder; empty where a row has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_column: Option<String>,
    /// The folder that image paths are relative to; by default the folder of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The delimiter between columns, one ASCII character; by default a comma in CSV and a tab in TSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether quotation marks enclose values; by default true in CSV and false in TSV, where captions often
    /// contain plain quotation marks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoting: Option<bool>,
}

impl TableConfig {
    /// The columns that are read.
    fn columns(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.image_column).chain(&self.caption_column).chain(&self.label_column)
    }
}

fn image() -> String {
    "image".into()
}

fn caption() -> Vec<String> {
    vec!["caption".into()]
}

/// The format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFormat {
    Csv,
    Tsv,
    Jsonl,
}

/// The values of a row.
struct Row {
    image: String,
    captions: Vec<String>,
    label: Option<String>,
    mask: Option<String>,
}

/// A table as a [`Dataset`]. An invalid row is a bad sample with its line.
pub(crate) struct TableDataset {
    name: String,
    path: PathBuf,
    root: PathBuf,
    /// The line of each row, with its values or its problem.
    rows: Rows<Row>,
}

impl TableDataset {
    pub(crate) fn open(config: &TableConfig, format: TableFormat) -> Result<Self> {
        if config.caption_column.is_empty() {
            return Err(Error::Setting("caption_column = []: name at least one column".into()));
        }
        let file = text::open(&config.path)?;
        let rows = match format {
            TableFormat::Csv => csv_rows(config, file, ',', true)?,
            TableFormat::Tsv => csv_rows(config, file, '\t', false)?,
            TableFormat::Jsonl if config.delimiter.is_some() || config.quoting.is_some() => {
                return Err(Error::Setting(
                    "delimiter, quoting: JSON lines have none, remove these keys".into(),
                ));
            }
            TableFormat::Jsonl => json_rows(config, file)?,
        };
        let name = config.path.display().to_string();
        if rows.is_empty() {
            return Err(Error::Empty { name, hint: "the file has no rows".into() });
        }
        let root = root_beside(&config.path, config.images_root.as_ref());
        Ok(Self { name, path: config.path.clone(), root, rows })
    }
}

impl Dataset for TableDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (line, row) = lines::row(&self.path, &self.rows, index)?;
        let image = SampleImage::File(self.root.join(&row.image));
        Ok(Sample {
            captions: row.captions.clone(),
            label: row.label.clone(),
            mask: row.mask.as_ref().map(|mask| SampleImage::File(self.root.join(mask))),
            ..Sample::new(format!("{}:{line} {}", self.name, row.image), image)
        })
    }
}

fn csv_rows(config: &TableConfig, file: impl BufRead, delimiter: char, quoting: bool) -> Result<Rows<Row>> {
    let delimiter = config.delimiter.unwrap_or(delimiter);
    let delimiter = u8::try_from(delimiter).ok().filter(u8::is_ascii).ok_or_else(|| {
        Error::Setting(format!(
            "delimiter = `{delimiter}`: it must be one ASCII character, such as `,`, `;` or `\\t`"
        ))
    })?;
    let way_out = "close it, write it twice, or set quoting = false if quotation marks enclose no values";
    let dialect = Dialect { delimiter, quoting: config.quoting.unwrap_or(quoting), way_out };
    let mut records = delimited::Rows::new(&config.path, file, dialect);
    let header = match records.next().transpose()? {
        None => Vec::new(),
        Some((line, header)) => {
            let names = |record: csv::ByteRecord| -> std::result::Result<Vec<String>, String> {
                let name = |name: &[u8]| std::str::from_utf8(name).map(|name| name.trim().to_owned());
                record
                    .iter()
                    .map(name)
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|_| "not UTF-8 text".into())
            };
            let wrong = |reason| Error::Line { path: config.path.clone(), line, reason };
            header.and_then(names).map_err(wrong)?
        }
    };
    let column = |name: &String| {
        header.iter().position(|there| there == name).ok_or_else(|| {
            match other_delimiter(config, &header, dialect) {
                Some(reason) => Error::Line {
                    path: config.path.clone(),
                    line: 1,
                    reason: format!("no column `{name}`: {reason}"),
                },
                None => Error::MissingColumn {
                    path: config.path.clone(),
                    column: name.clone(),
                    present: header.clone(),
                },
            }
        })
    };
    let image = column(&config.image_column)?;
    let captions = config.caption_column.iter().map(column).collect::<Result<Vec<_>>>()?;
    let label = config.label_column.as_ref().map(column).transpose()?;
    let mask = config.mask_column.as_ref().map(column).transpose()?;

    let mut rows = Vec::new();
    for record in records {
        let (line, record) = record?;
        let columns = Columns { count: header.len(), image, captions: &captions, label, mask };
        rows.push((line, record.and_then(|record| csv_row(&record, columns))));
    }
    Ok(rows)
}

/// The setting to change where the header has the configured columns with another delimiter, or is a single
/// column that contains one.
fn other_delimiter(config: &TableConfig, header: &[String], dialect: Dialect) -> Option<String> {
    let own = char::from(dialect.delimiter);
    let line = header.join(&own.to_string());
    let others = ['\t', ';', ',', '|'].into_iter().filter(|&other| other != own && line.contains(other));
    let count = |delimiter: &char| line.matches(*delimiter).count();
    let has_all = |delimiter: &char| {
        let names: Vec<&str> = line.split(*delimiter).map(|name| name.trim().trim_matches('"')).collect();
        config.columns().all(|name| names.contains(&name.as_str()))
    };
    let delimiter =
        others.clone().find(has_all).or_else(|| others.max_by_key(count).filter(|_| header.len() == 1))?;
    let way_out = match delimiter {
        '\t' => "kind = \"tsv\", or delimiter = \"\\t\"".to_owned(),
        other => format!("delimiter = \"{other}\""),
    };
    Some(format!("the names of the header `{line}` seem to be separated by {delimiter:?}: set {way_out}"))
}

/// The places of the columns of a CSV file.
#[derive(Clone, Copy)]
struct Columns<'a> {
    count: usize,
    image: usize,
    captions: &'a [usize],
    label: Option<usize>,
    mask: Option<usize>,
}

fn csv_row(record: &csv::ByteRecord, columns: Columns) -> std::result::Result<Row, String> {
    let Columns { count, image, captions, label, mask } = columns;
    if record.len() != count {
        return Err(format!("{} columns where the header has {count}", record.len()));
    }
    let text = |column: usize| std::str::from_utf8(&record[column]).map_err(|_| "not UTF-8 text".to_owned());
    let captions = captions
        .iter()
        .map(|&column| text(column).map(str::to_owned))
        .collect::<std::result::Result<_, _>>()?;
    let label = label.map(text).transpose()?.map(str::to_owned);
    let mask = mask.map(text).transpose()?.map(str::to_owned);
    row(text(image)?.to_owned(), captions, label, mask)
}

fn json_rows(config: &TableConfig, file: impl BufRead) -> Result<Rows<Row>> {
    let mut checked = false;
    lines::rows(&config.path, file, |line| {
        let object: Object = match json::parse(line) {
            Ok(object) => object,
            Err(error) => return Ok(Err(format!("not a JSON object: {error}"))),
        };
        // There is no header that lists the fields: the first valid row stands in for it.
        if !checked {
            check_fields(config, &object)?;
            checked = true;
        }
        Ok(json_row(config, &object))
    })
}

type Object = serde_json::Map<String, Value>;

fn check_fields(config: &TableConfig, object: &Object) -> Result<()> {
    match config.columns().find(|name| !object.contains_key(*name)) {
        None => Ok(()),
        Some(column) => Err(Error::MissingColumn {
            path: config.path.clone(),
            column: column.clone(),
            present: object.keys().cloned().collect(),
        }),
    }
}

fn json_row(config: &TableConfig, object: &Object) -> std::result::Result<Row, String> {
    let text = |name: &str, value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Ok(String::new()),
        other => Err(format!("`{name}` is {other}, not a text")),
    };
    let field = |name: &str| object.get(name).ok_or_else(|| format!("no field `{name}`"));
    let mut captions = Vec::new();
    for name in &config.caption_column {
        match field(name)? {
            Value::Array(list) => {
                for caption in list {
                    captions.push(text(name, caption)?);
                }
            }
            one => captions.push(text(name, one)?),
        }
    }
    let label = config
        .label_column
        .as_ref()
        .map(|name| field(name).and_then(|value| text(name, value)))
        .transpose()?;
    let mask_column = config.mask_column.iter().find_map(|name| Some((name, object.get(name)?)));
    let mask = mask_column.map(|(name, value)| text(name, value)).transpose()?;
    row(text(&config.image_column, field(&config.image_column)?)?, captions, label, mask)
}

/// A row from the values of its columns. Empty captions are dropped, and an empty mask is none.
fn row(
    image: String,
    mut captions: Vec<String>,
    label: Option<String>,
    mask: Option<String>,
) -> std::result::Result<Row, String> {
    captions.retain(|caption| !caption.trim().is_empty());
    if image.is_empty() {
        return Err("the image column is empty".into());
    }
    if captions.is_empty() && label.is_none() {
        return Err("no caption".into());
    }
    Ok(Row { image, captions, label, mask: mask.filter(|mask| !mask.is_empty()) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Opens a file with this text and these keys of the config.
    fn open(format: TableFormat, text: impl AsRef<[u8]>, keys: &str) -> Result<TableDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        fs::write(&path, text).unwrap();
        let config: TableConfig =
            toml::from_str(&format!("path = {:?}\n{keys}", path.to_str().unwrap())).unwrap();
        TableDataset::open(&config, format)
    }

    fn message_of(result: Result<impl Sized>) -> String {
        result.err().expect("an error").to_string()
    }

    #[test]
    fn csv_columns_are_found_by_name() {
        let text = "\u{feff}id,file,title,text,kind\n1,a.png,\"one, two\",,cat\n2,b/c.jpg,,three,dog\n";
        let keys = "image_column = 'file'\ncaption_column = ['title', 'text']\n\
                    label_column = 'kind'\nimages_root = '/r'";
        let source = open(TableFormat::Csv, text, keys).unwrap();
        assert_eq!(source.len(), 2);
        let (first, second) = (source.sample(0).unwrap(), source.sample(1).unwrap());
        assert_eq!(first.captions, ["one, two"]);
        assert_eq!((&second.captions[..], second.label.as_deref()), (&["three".to_owned()][..], Some("dog")));
        assert!(matches!(&second.images[..], [SampleImage::File(path)] if path == Path::new("/r/b/c.jpg")));
    }

    #[test]
    fn tsv_keeps_quotation_marks_unless_quoting_is_set() {
        let text = "image\tcaption\na.png\t\"hi\" she message\nb.png\t\"open\n";
        assert_eq!(open(TableFormat::Tsv, text, "").unwrap().sample(1).unwrap().captions, ["\"open"]);
        let quoted = "image\tcaption\na.png\t\"a\tb\"\n";
        assert_eq!(
            open(TableFormat::Tsv, quoted, "quoting = true").unwrap().sample(0).unwrap().captions,
            ["a\tb"]
        );
    }

    #[test]
    fn json_lines_take_one_caption_or_a_list() {
        let text = "{\"image\": \"a.png\", \"caption\": [\"x\", \"y\"]}\n\n\
                    {\"image\": \"b.png\", \"caption\": \"z\"}\n";
        let source = open(TableFormat::Jsonl, text, "").unwrap();
        assert_eq!(source.sample(0).unwrap().captions, ["x", "y"]);
        assert_eq!(source.sample(1).unwrap().captions, ["z"]);
    }

    #[test]
    fn a_row_may_have_a_mask() {
        let mask = |source: &TableDataset, index| match source.sample(index).unwrap().mask {
            Some(SampleImage::File(path)) => path.file_name().unwrap().to_str().unwrap().to_owned(),
            _ => String::new(),
        };
        let lines = "{\"image\": \"a.png\", \"caption\": \"x\", \"mask\": \"m.png\"}\n\
                     {\"image\": \"b.png\", \"caption\": \"y\"}\n";
        let source = open(TableFormat::Jsonl, lines, "mask_column = 'mask'").unwrap();
        assert_eq!((mask(&source, 0), mask(&source, 1)), ("m.png".to_owned(), String::new()));
        let text = "image,caption,mask\na.png,x,m.png\nb.png,y,\n";
        let source = open(TableFormat::Csv, text, "mask_column = 'mask'").unwrap();
        assert_eq!((mask(&source, 0), mask(&source, 1)), ("m.png".to_owned(), String::new()));
        assert!(message_of(open(TableFormat::Csv, text, "mask_column = 'msk'")).contains("no column `msk`"));
    }

    #[test]
    fn a_missing_column_is_an_error_that_lists_the_columns() {
        let message = message_of(open(TableFormat::Csv, "url,text\na,b\n", ""));
        assert!(message.contains("no column `image`; the file has `url`, `text`"), "{message}");
        let message = message_of(open(TableFormat::Jsonl, "{\"url\": 1, \"caption\": \"\"}\n", ""));
        assert!(message.contains("no column `image`; the file has `caption`, `url`"), "{message}");
    }

    #[test]
    fn a_bad_row_is_a_bad_sample_with_its_line() {
        let source = open(TableFormat::Csv, "image,caption\na.png,x\nb.png\nc.png,\nd.png,y\n", "").unwrap();
        assert_eq!(source.len(), 4);
        assert!(message_of(source.sample(1)).ends_with("table:3: 1 columns where the header has 2"));
        assert!(message_of(source.sample(2)).ends_with("table:4: no caption"));
        assert!(source.sample(3).is_ok());
        let text = "{\"image\": \"a.png\", \"caption\": \"x\"}\n{oops\n{\"image\": \"b.png\"}\n";
        let source = open(TableFormat::Jsonl, text, "").unwrap();
        assert!(message_of(source.sample(1)).contains("table:2: not a JSON object"));
        assert!(message_of(source.sample(2)).contains("table:3: no field `caption`"));
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_name_or_a_row() {
        let utf_16 = |text: &str| {
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
        };
        let csv = "\"image\",caption\r\n\r\na.png,é\r\n";
        for bytes in [format!("\u{feff}{csv}").into_bytes(), utf_16(csv)] {
            let sample = open(TableFormat::Csv, bytes, "").unwrap().sample(0).unwrap();
            assert!(sample.key.ends_with("table:3 a.png") && sample.captions == ["é"], "{sample:?}");
        }
        let line = "{\"image\": \"a.png\", \"caption\": \"é\", \"width\": NaN}\r\n";
        for bytes in [format!("\u{feff}{line}\u{feff}{line}").into_bytes(), utf_16(&line.repeat(2))] {
            let source = open(TableFormat::Jsonl, bytes, "").unwrap();
            assert!((0..2).all(|row| source.sample(row).unwrap().captions == ["é"]));
        }
        let latin =
            open(TableFormat::Jsonl, b"{\"image\": \"a.png\", \"caption\": \"\"}\n{\"caf\xe9\": 1}\n", "")
                .unwrap();
        assert!(
            message_of(latin.sample(1)).contains("table:2: column 6: not UTF-8 text"),
            "{}",
            message_of(latin.sample(1))
        );
    }

    #[test]
    fn a_wrong_delimiter_is_an_error_with_the_likely_one() {
        let message = message_of(open(TableFormat::Csv, "image;caption\na.png;one, two\n", ""));
        assert!(
            message.contains("table:1: no column `image`: the names of the header `image;caption` seem"),
            "{message}"
        );
        assert!(message.ends_with("separated by ';': set delimiter = \";\""), "{message}");
        let message = message_of(open(
            TableFormat::Csv,
            "image\tcaption,long\na.png\tx\n",
            "caption_column = 'caption,long'",
        ));
        assert!(message.contains("set kind = \"tsv\""), "{message}");
        let message = message_of(open(TableFormat::Tsv, "image,caption\na.png,x\n", ""));
        assert!(message.contains("set delimiter = \",\""), "{message}");
        assert!(message_of(open(TableFormat::Csv, "a b\n1\n", "")).contains("the file has `a b`"));
    }

    #[test]
    fn a_quotation_mark_that_is_never_closed_is_an_error_with_its_line() {
        let message = message_of(open(
            TableFormat::Csv,
            "image,caption\r\n\r\na.png,\"x\r\nb.png,y\r\nc.png,z\r\n",
            "",
        ));
        assert!(message.contains("table:3: the quotation mark that opens here is never closed"), "{message}");
        assert!(message.contains("the 2 lines below"), "{message}");
        let source = open(TableFormat::Csv, "image,caption\na.png,\"x\nb.png,\"y\"\nc.png,z\n", "").unwrap();
        assert!(
            message_of(source.sample(0))
                .contains("table:2: the quotation mark that opens here is closed on line 3")
        );
        assert_eq!((source.len(), source.sample(1).unwrap().captions), (2, vec!["z".to_owned()]));
    }

    #[test]
    fn files_that_cannot_be_opened_give_the_reason() {
        let config: TableConfig = toml::from_str("path = '/no/such.csv'").unwrap();
        assert!(
            message_of(TableDataset::open(&config, TableFormat::Csv))
                .starts_with("/no/such.csv: No such file")
        );
        assert!(message_of(open(TableFormat::Csv, "image,caption\n", "")).contains("the file has no rows"));
        assert!(message_of(open(TableFormat::Csv, "", "")).contains("no column `image`"));
        assert!(
            message_of(open(TableFormat::Csv, b"image,caf\xe9\n", "")).contains("table:1: not UTF-8 text")
        );
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        assert!(message_of(open(TableFormat::Csv, pointer, "")).contains("run `git lfs pull`"));
        assert!(
            message_of(open(TableFormat::Csv, "image,caption\n", "delimiter = 'é'"))
                .contains("one ASCII character")
        );
        assert!(message_of(open(TableFormat::Jsonl, "", "delimiter = ','")).contains("JSON lines have none"));
        assert!(toml::from_str::<TableConfig>("path = 'a'\nimages = 'b'").is_err());
    }
}
