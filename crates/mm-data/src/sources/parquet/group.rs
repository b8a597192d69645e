//! Reads a row group of a Parquet file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Type as Physical;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;

use super::columns::Columns;
use super::corrupt;
use super::files::ParquetFile;
use crate::sources::broken::Broken;
use crate::{Fault, Sample, SampleImage};

type Result<T> = std::result::Result<T, Broken>;

/// The values of a leaf for each row: one, none for null, several for a list.
type Values<T> = Vec<Vec<T>>;

/// The columns of a row group that are read. Images share the memory of their decompressed pages.
pub(super) struct Group {
    images: Option<Values<ByteArray>>,
    paths: Option<Values<ByteArray>>,
    captions: Vec<Values<ByteArray>>,
    labels: Option<Labels>,
}

enum Labels {
    Texts(Values<ByteArray>),
    Numbers(Values<i64>),
}

impl Group {
    /// Reads the configured columns of a row group.
    pub(super) fn read(file: &ParquetFile, group: usize, rows: usize) -> Result<Self> {
        // A separate handle: row groups are read concurrently, and a handle has one read position.
        let opened = File::open(&file.path).map_err(|error| Broken::new(Fault::File, error.to_string()))?;
        let properties = Arc::new(ReaderProperties::builder().build());
        let about = file.footer.row_group(group);
        let pages = file.footer.page_index_for_row_group(group);
        let reader =
            SerializedRowGroupReader::new(Arc::new(opened), about, pages, properties).map_err(corrupt)?;
        let bytes = |leaf: usize| values::<ByteArrayType>(&reader, leaf, rows);
        let columns = &file.columns;
        Ok(Self {
            images: columns.image.map(bytes).transpose()?,
            paths: columns.image_path.map(bytes).transpose()?,
            captions: columns.captions.iter().map(|&leaf| bytes(leaf)).collect::<Result<_>>()?,
            labels: columns.label.map(|leaf| labels(&reader, leaf, rows)).transpose()?,
        })
    }

    /// The sample of a row.
    ///
    /// # Errors
    /// No image, no caption or label, text that is not UTF-8.
    pub(super) fn sample(&self, row: usize, key: &str, root: &Path, columns: &Columns) -> Result<Sample> {
        let image = one(&self.images, row).filter(|bytes| !bytes.is_empty());
        let path = one(&self.paths, row).map(text).transpose()?.filter(|path| !path.is_empty());
        let image = match (image, path) {
            (Some(bytes), _) => SampleImage::Memory(bytes.data().to_vec()),
            (None, Some(path)) => SampleImage::File(root.join(path)),
            (None, None) => return Err(Broken::new(Fault::NoImage, "the image column is empty")),
        };
        let captions = self.captions.iter().flat_map(|column| &column[row]);
        let mut captions = captions.map(text).collect::<Result<Vec<_>>>()?;
        captions.retain(|caption| !caption.trim().is_empty());
        let label = match &self.labels {
            None => None,
            Some(Labels::Texts(texts)) => texts[row].first().map(text).transpose()?,
            Some(Labels::Numbers(numbers)) => {
                numbers[row].first().map(|number| class(*number, &columns.label_names)).transpose()?.flatten()
            }
        };
        if captions.is_empty() && label.is_none() {
            let wanted = if self.captions.is_empty() { "label" } else { "caption" };
            return Err(Broken::new(Fault::NoCaption, format!("no {wanted}")));
        }
        Ok(Sample { captions, label, ..Sample::new(key, image) })
    }
}

fn one(column: &Option<Values<ByteArray>>, row: usize) -> Option<&ByteArray> {
    column.as_ref()?[row].first()
}

fn text(bytes: &ByteArray) -> Result<String> {
    let text = std::str::from_utf8(bytes.data()).map_err(|_| Broken::new(Fault::Text, "not UTF-8 text"))?;
    Ok(text.to_owned())
}

/// The name of a class; `datasets` writes -1 where the class is withheld.
fn class(number: i64, names: &[String]) -> Result<Option<String>> {
    if names.is_empty() {
        return Ok(Some(number.to_string()));
    }
    if number == -1 {
        return Ok(None);
    }
    let name = usize::try_from(number).ok().and_then(|number| names.get(number));
    let out_of = || Broken::new(Fault::Row, format!("label {number}, but there are {} classes", names.len()));
    name.cloned().map(Some).ok_or_else(out_of)
}

fn labels(reader: &dyn RowGroupReader, leaf: usize, rows: usize) -> Result<Labels> {
    let whole = |values: Values<i32>| {
        values.into_iter().map(|row| row.into_iter().map(i64::from).collect()).collect()
    };
    Ok(match reader.metadata().column(leaf).column_type() {
        Physical::INT32 => Labels::Numbers(whole(values::<Int32Type>(reader, leaf, rows)?)),
        Physical::INT64 => Labels::Numbers(values::<Int64Type>(reader, leaf, rows)?),
        _ => Labels::Texts(values::<ByteArrayType>(reader, leaf, rows)?),
    })
}

/// Reads a leaf of all rows. The definition level of a value is whether it is present or null; its
/// repetition level, whether it starts a row or continues a list ("Dremel", Melnik et al. 2010, section 4.1).
fn values<T: DataType>(reader: &dyn RowGroupReader, leaf: usize, rows: usize) -> Result<Values<T::T>> {
    let description = reader.metadata().column(leaf).column_descr_ptr();
    let mut column = get_typed_column_reader::<T>(reader.get_column_reader(leaf).map_err(corrupt)?);
    let (mut definitions, mut repetitions, mut present) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let levels = (Some(&mut definitions), Some(&mut repetitions));
        let (records, ..) =
            column.read_records(rows - read, levels.0, levels.1, &mut present).map_err(corrupt)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    // A leaf that is never null and not in a list has no levels.
    let deepest = description.max_def_level();
    let there = |level: usize| definitions.get(level).is_none_or(|&definition| definition == deepest);
    let begins = |level: usize| repetitions.get(level).is_none_or(|&repetition| repetition == 0);
    let count = if deepest == 0 { present.len() } else { definitions.len() };
    let mut present = present.into_iter();
    let mut found: Values<T::T> = Vec::new();
    for level in 0..count {
        if begins(level) || found.is_empty() {
            found.push(Vec::new());
        }
        if let (true, Some(row)) = (there(level), found.last_mut()) {
            row.extend(present.next());
        }
    }
    if found.len() != rows {
        let name = description.path().string();
        return Err(Broken::new(
            Fault::Shard,
            format!("corrupt: column `{name}` has {} of {rows} rows", found.len()),
        ));
    }
    Ok(found)
}
