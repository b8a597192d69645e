//! The files that other engines read: Parquet, and NumPy's `.npy`.

use crate::{Error, Item, Result};
use mm_core::checkpoint::write_atomically;
use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows of a row group.
const ROW_GROUP: usize = 65_536;

/// An item with its row.
pub(crate) type ItemRow = Result<(Item, Vec<f32>)>;

/// Writes items with their rows, of `dim` numbers, to the Parquet `file`.
///
/// # Errors
/// Those of `items`, or the file cannot be written.
pub(crate) fn write_parquet(file: &Path, dim: usize, items: &mut dyn Iterator<Item = ItemRow>) -> Result<()> {
    written(file, |out| {
        let failed = |error| unwritten(file, error);
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let schema = schema().map_err(failed)?;
        let mut writer = SerializedFileWriter::new(out, schema, properties).map_err(failed)?;
        loop {
            let (items, rows): (Vec<Item>, Vec<Vec<f32>>) =
                items.take(ROW_GROUP).collect::<Result<Vec<_>>>()?.into_iter().unzip();
            if items.is_empty() {
                return writer.close().map(drop).map_err(failed);
            }
            write_group(&mut writer, &items, &rows.concat(), dim).map_err(failed)?;
        }
    })
}

fn write_group(
    writer: &mut SerializedFileWriter<BufWriter<File>>,
    items: &[Item],
    numbers: &[f32],
    dim: usize,
) -> parquet::errors::Result<()> {
    let texts = |of: &dyn Fn(&Item) -> String| -> Vec<ByteArray> {
        items.iter().map(|item| ByteArray::from(of(item).into_bytes())).collect()
    };
    let columns = [
        texts(&|item| item.set.clone()),
        texts(&|item| item.key.clone()),
        texts(&|item| item.metadata.to_string()),
    ];
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        let ids: Vec<i64> = items.iter().map(|item| item.id as i64).collect();
        column.typed::<Int64Type>().write_batch(&ids, None, None)?;
        column.close()?;
    }
    for values in columns {
        if let Some(mut column) = group.next_column()? {
            column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            column.close()?;
        }
    }
    if let Some(mut column) = group.next_column()? {
        let defined = vec![1i16; numbers.len()];
        let repeated: Vec<i16> = (0..numbers.len()).map(|n| i16::from(n % dim != 0)).collect();
        column.typed::<FloatType>().write_batch(numbers, Some(&defined), Some(&repeated))?;
        column.close()?;
    }
    group.close().map(drop)
}

/// Writes `count` rows of `dim` numbers to the NumPy `file`, `[N, D]` f32.
///
/// # Errors
/// Those of `rows`, or the file cannot be written.
pub(crate) fn write_npy(
    file: &Path,
    (count, dim): (usize, usize),
    rows: &mut dyn Iterator<Item = Result<Vec<f32>>>,
) -> Result<()> {
    written(file, |mut out| {
        let io = |source| Error::from(mm_core::Error::io("write", file, source));
        out.write_all(&npy_header(count, dim)).map_err(io)?;
        for row in rows {
            let bytes: Vec<u8> = row?.iter().flat_map(|x| x.to_le_bytes()).collect();
            out.write_all(&bytes).map_err(io)?;
        }
        out.flush().map_err(io)
    })
}

/// Writes the keys of the rows of the NumPy `file` beside it, with the ending `.keys.txt`, each as a line of
/// JSON.
///
/// # Errors
/// Those of `keys`, or the file cannot be written.
pub(crate) fn write_keys(file: &Path, keys: &mut dyn Iterator<Item = Result<String>>) -> Result<()> {
    let file = file.with_extension("keys.txt");
    written(&file, |mut out| {
        let io = |source| Error::from(mm_core::Error::io("write", &file, source));
        for key in keys {
            writeln!(out, "{}", serde_json::Value::from(key?)).map_err(io)?;
        }
        out.flush().map_err(io)
    })
}

/// Calls `write` with a temporary file that then becomes `file`.
fn written(file: &Path, write: impl FnOnce(BufWriter<File>) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let written = write_atomically(file, |partial| {
        let out = File::create(partial).map_err(|source| mm_core::Error::io("create", file, source))?;
        write(BufWriter::new(out)).map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            failed = Some(error);
            mm_core::Error::io("write", file, source)
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

fn unwritten(file: &Path, error: ParquetError) -> Error {
    mm_core::Error::io("write", file, std::io::Error::other(error)).into()
}

fn schema() -> parquet::errors::Result<Arc<Type>> {
    let column = |name: &str, physical, logical| {
        let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        column.with_logical_type(logical).build().map(Arc::new)
    };
    let text = |name| column(name, PhysicalType::BYTE_ARRAY, Some(LogicalType::String));
    let list = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![column("element", PhysicalType::FLOAT, None)?])
        .build()?;
    let embedding = Type::group_type_builder("embedding")
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list)])
        .build()?;
    let id = column("id", PhysicalType::INT64, None)?;
    let fields = vec![id, text("set")?, text("key")?, text("metadata")?, Arc::new(embedding)];
    Ok(Arc::new(Type::group_type_builder("items").with_fields(fields).build()?))
}

/// The header of version 1.0 of the format, padded to 64 bytes.
fn npy_header(rows: usize, dim: usize) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    const PREFIX: usize = 10;
    while !(PREFIX + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.into_bytes());
    header
}
