//! Embeddings for other engines: Parquet, and NumPy's `.npy` with the keys beside it.

use crate::{Error, Index, ItemId, Result};
use mm_core::checkpoint::write_atomically;
use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows of a row group.
const ROW_GROUP: usize = 65_536;

impl Index {
    /// Writes all items to the Parquet `file`, with the columns `id` (i64), `set`, `key`, `metadata` (JSON)
    /// and `embedding` (a list of f32), in the order of their ids. Imports of Qdrant, Milvus and DuckDB read
    /// it.
    ///
    /// # Errors
    /// The database cannot be read, or the file not be written.
    pub fn export_parquet(&self, file: &Path) -> Result<()> {
        let ids = self.ids();
        self.written(file, |out| {
            let schema = schema().map_err(|error| unwritten(file, error))?;
            let compression = Compression::ZSTD(ZstdLevel::default());
            let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
            let mut writer =
                SerializedFileWriter::new(out, schema, properties).map_err(|error| unwritten(file, error))?;
            for ids in ids.chunks(ROW_GROUP) {
                self.write_group(&mut writer, ids, file)?;
            }
            writer.close().map(drop).map_err(|error| unwritten(file, error))
        })
    }

    fn write_group(
        &self,
        writer: &mut SerializedFileWriter<BufWriter<File>>,
        ids: &[ItemId],
        file: &Path,
    ) -> Result<()> {
        let failed = |error| unwritten(file, error);
        let items = ids.iter().map(|&id| self.item(id)).collect::<Result<Vec<_>>>()?;
        let mut group = writer.next_row_group().map_err(failed)?;
        let mut at = 0;
        while let Some(mut column) = group.next_column().map_err(failed)? {
            let text = |of: &dyn Fn(usize) -> String| -> Vec<ByteArray> {
                (0..items.len()).map(|row| ByteArray::from(of(row).into_bytes())).collect()
            };
            match at {
                0 => {
                    let ids: Vec<i64> = ids.iter().map(|&id| id as i64).collect();
                    column.typed::<Int64Type>().write_batch(&ids, None, None).map_err(failed)?;
                }
                4 => {
                    let rows: Vec<f32> = ids.iter().filter_map(|&id| self.row(id)).flatten().collect();
                    let dim = self.description().dim;
                    let defined = vec![1i16; rows.len()];
                    let repeated: Vec<i16> = (0..rows.len()).map(|n| i16::from(n % dim != 0)).collect();
                    let typed = column.typed::<FloatType>();
                    typed.write_batch(&rows, Some(&defined), Some(&repeated)).map_err(failed)?;
                }
                _ => {
                    let values = match at {
                        1 => text(&|row| items[row].set.clone()),
                        2 => text(&|row| items[row].key.clone()),
                        _ => text(&|row| items[row].metadata.to_string()),
                    };
                    column.typed::<ByteArrayType>().write_batch(&values, None, None).map_err(failed)?;
                }
            }
            column.close().map_err(failed)?;
            at += 1;
        }
        group.close().map(drop).map_err(failed)
    }

    /// Writes all rows to the NumPy `file`, `[N, D]` f32 in the order of their ids, and beside it, with the
    /// ending `.keys.txt`, the key of each as a line of JSON. FAISS and hnswlib take the array.
    ///
    /// # Errors
    /// As [`Index::export_parquet`].
    pub fn export_npy(&self, file: &Path) -> Result<()> {
        let ids = self.ids();
        let header = npy_header(ids.len(), self.description().dim);
        self.written(file, |mut out| {
            let io = |source| Error::from(mm_core::Error::io("write", file, source));
            out.write_all(&header).map_err(io)?;
            for row in ids.iter().filter_map(|&id| self.row(id)) {
                let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
                out.write_all(&bytes).map_err(io)?;
            }
            out.flush().map_err(io)
        })?;
        let keys = file.with_extension("keys.txt");
        self.written(&keys, |mut out| {
            let io = |source| Error::from(mm_core::Error::io("write", &keys, source));
            for &id in &ids {
                writeln!(out, "{}", serde_json::Value::from(self.item(id)?.key)).map_err(io)?;
            }
            out.flush().map_err(io)
        })
    }

    /// Calls `write` with a temporary file that then becomes `file`.
    fn written(&self, file: &Path, write: impl FnOnce(BufWriter<File>) -> Result<()>) -> Result<()> {
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
}

fn unwritten(file: &Path, error: parquet::errors::ParquetError) -> Error {
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
