//! Embeddings for other engines: Parquet, and NumPy's `.npy` with the keys beside it.

use crate::export_files::{write_keys, write_npy, write_parquet};
use crate::{Index, Result};
use std::path::Path;

impl Index {
    /// Writes all items to the Parquet `file`, with the columns `id` (i64), `set`, `key`, `metadata` (JSON)
    /// and `embedding` (a list of f32), in the order of their ids. Imports of Qdrant, Milvus and DuckDB read
    /// it.
    ///
    /// # Errors
    /// The database cannot be read, or the file not be written.
    pub fn export_parquet(&self, file: &Path) -> Result<()> {
        let rows = self.ids().into_iter().filter_map(|id| self.row(id).map(|row| (id, row)));
        let mut items = rows.map(|(id, row)| Ok((self.item(id)?, row)));
        write_parquet(file, self.description().dim, &mut items)
    }

    /// Writes all rows to the NumPy `file`, `[N, D]` f32 in the order of their ids, and beside it, with the
    /// ending `.keys.txt`, the key of each as a line of JSON. FAISS and hnswlib take the array.
    ///
    /// # Errors
    /// As [`Index::export_parquet`].
    pub fn export_npy(&self, file: &Path) -> Result<()> {
        let ids = self.ids();
        let mut rows = ids.iter().filter_map(|&id| self.row(id)).map(Ok);
        write_npy(file, (ids.len(), self.description().dim), &mut rows)?;
        write_keys(file, &mut ids.iter().map(|&id| Ok(self.item(id)?.key)))
    }
}
