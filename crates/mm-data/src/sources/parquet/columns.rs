//! Finds the configured columns in a Parquet file. A column of Parquet is a leaf of its tree of fields.

use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use super::ParquetConfig;
use crate::{Error, Result};

/// The numbers of the leaves to read.
pub(super) struct Columns {
    pub(super) image: Option<usize>,
    pub(super) image_path: Option<usize>,
    pub(super) captions: Vec<usize>,
    pub(super) label: Option<usize>,
    /// The names of the classes, for numeric labels.
    pub(super) label_names: Vec<String>,
}

impl Columns {
    /// # Errors
    /// A column that is missing or of another type. The message lists the columns of the file.
    pub(super) fn find(path: &Path, footer: &ParquetMetaData, config: &ParquetConfig) -> Result<Self> {
        let schema = Schema { path, leaves: footer.file_metadata().schema_descr().columns() };
        let (image, image_path) = schema.image(&config.image_column)?;
        let captions =
            config.caption_column.iter().map(|name| schema.text(name)).collect::<Result<Vec<_>>>()?;
        let label = config.label_column.as_ref().map(|name| schema.label(name)).transpose()?;
        let label_names =
            config.label_column.as_ref().map(|name| class_names(footer, name)).unwrap_or_default();
        Ok(Self { image, image_path, captions, label, label_names })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = usize> + '_ {
        [self.image, self.image_path, self.label].into_iter().flatten().chain(self.captions.iter().copied())
    }
}

struct Schema<'a> {
    path: &'a Path,
    leaves: &'a [std::sync::Arc<ColumnDescriptor>],
}

impl Schema<'_> {
    /// The leaves of a column or of a field of it, with the rest of their names.
    fn below(&self, name: &str) -> Result<Vec<(usize, String)>> {
        let rest = |leaf: &ColumnDescriptor| {
            let leaf = plain_name(leaf);
            let rest = leaf.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| rest.trim_start_matches('.').to_owned())
        };
        let found: Vec<_> =
            self.leaves.iter().enumerate().filter_map(|(number, leaf)| Some((number, rest(leaf)?))).collect();
        if found.is_empty() {
            let mut present: Vec<_> = self.leaves.iter().map(|leaf| leaf.path().parts()[0].clone()).collect();
            present.dedup();
            return Err(Error::MissingColumn {
                path: self.path.to_owned(),
                column: name.to_owned(),
                present,
            });
        }
        Ok(found)
    }

    fn image(&self, name: &str) -> Result<(Option<usize>, Option<usize>)> {
        let found = self.below(name)?;
        let field = |wanted: &str| found.iter().find(|(_, rest)| rest == wanted).map(|(number, _)| *number);
        let (bytes, path) = match field("") {
            Some(leaf) if is_text(&self.leaves[leaf]) => (None, Some(leaf)),
            Some(leaf) => (Some(leaf), None),
            None => (field("bytes"), field("path")),
        };
        let fits = |leaf: usize| {
            self.leaves[leaf].physical_type() == Physical::BYTE_ARRAY
                && self.leaves[leaf].max_rep_level() == 0
        };
        if bytes.is_none() && path.is_none() || !bytes.into_iter().chain(path).all(fits) {
            return Err(self.other_type(name, &found, "an image: a struct of `bytes` and `path`, or binary"));
        }
        Ok((bytes, path))
    }

    fn text(&self, name: &str) -> Result<usize> {
        let found = self.below(name)?;
        match found[..] {
            [(leaf, _)]
                if self.leaves[leaf].physical_type() == Physical::BYTE_ARRAY
                    && self.leaves[leaf].max_rep_level() <= 1 =>
            {
                Ok(leaf)
            }
            _ => Err(self.other_type(name, &found, "a caption: text or a list of texts")),
        }
    }

    fn label(&self, name: &str) -> Result<usize> {
        let found = self.below(name)?;
        let fits = |leaf: &ColumnDescriptor| {
            let kinds = [Physical::BYTE_ARRAY, Physical::INT32, Physical::INT64];
            kinds.contains(&leaf.physical_type()) && leaf.max_rep_level() == 0
        };
        match found[..] {
            [(leaf, _)] if fits(&self.leaves[leaf]) => Ok(leaf),
            _ => Err(self.other_type(name, &found, "a label: text or a whole number")),
        }
    }

    fn other_type(&self, name: &str, found: &[(usize, String)], wanted: &str) -> Error {
        let types = found.iter().map(|(leaf, _)| {
            let leaf = &self.leaves[*leaf];
            let list = if leaf.max_rep_level() > 0 { "list of " } else { "" };
            format!("`{}` ({list}{})", plain_name(leaf), leaf.physical_type())
        });
        let types = types.collect::<Vec<_>>().join(", ");
        Error::Setting(format!(
            "{}: the column `{name}` is not {wanted}; it is {types}: set another column in the data config",
            self.path.display()
        ))
    }
}

fn is_text(leaf: &ColumnDescriptor) -> bool {
    leaf.converted_type() == ConvertedType::UTF8 || leaf.logical_type_ref() == Some(&LogicalType::String)
}

/// The name with dots, without the two levels of each list in Parquet, which pyarrow, Spark and Hive name
/// differently.
fn plain_name(leaf: &ColumnDescriptor) -> String {
    const OF_LISTS: [&str; 6] = ["list", "element", "item", "array", "bag", "array_element"];
    let parts = leaf.path().parts();
    let below = parts[1..].iter().map(String::as_str).filter(|part| !OF_LISTS.contains(part));
    std::iter::once(parts[0].as_str()).chain(below).collect::<Vec<_>>().join(".")
}

/// The names of a `ClassLabel`, which `datasets` stores in the footer.
fn class_names(footer: &ParquetMetaData, column: &str) -> Vec<String> {
    let pairs = footer.file_metadata().key_value_metadata().into_iter().flatten();
    let text = pairs.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
    let about: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let names = about["info"]["features"][column]["names"].as_array();
    names.into_iter().flatten().map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
}
