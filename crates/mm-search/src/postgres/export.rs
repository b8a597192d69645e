//! The embeddings of a table in the files of other engines.

use super::search::item_of;
use super::{PostgresIndex, SqlResult};
use crate::backend::SearchIndex;
use crate::export_files::{write_keys, write_npy, write_parquet};
use crate::{Error, Result};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Row, Transaction};
use std::path::Path;

/// Writes the items as [`Index::export_parquet`](crate::Index::export_parquet) does.
///
/// # Errors
/// The database fails, or the file cannot be written.
pub(super) fn parquet(index: &PostgresIndex, file: &Path) -> Result<()> {
    let dim = index.description().dim;
    index.snapshot("", |transaction| {
        let columns = "id, set_name, key, metadata, embedding::real[]";
        let mut items = stream(index, transaction, columns, |row| Ok((item_of(row)?, row.try_get(4)?)))?;
        write_parquet(file, dim, &mut items)
    })
}

/// Writes the rows as [`Index::export_npy`](crate::Index::export_npy) does.
///
/// # Errors
/// As [`parquet`].
pub(super) fn npy(index: &PostgresIndex, file: &Path) -> Result<()> {
    let dim = index.description().dim;
    index.snapshot("", |transaction| {
        let failed = |error| index.place.error(error);
        let count = format!("SELECT count(*) FROM {}", index.place.tables.items);
        let count = transaction.query_one(&count, &[]).map_err(failed)?.get::<_, i64>(0) as usize;
        let mut rows = stream(index, transaction, "embedding::real[]", |row| row.try_get(0))?;
        write_npy(file, (count, dim), &mut rows)?;
        drop(rows);
        write_keys(file, &mut stream(index, transaction, "key", |row| row.try_get(0))?)
    })
}

/// The `columns` of all items in the order of their ids, read by `read` as they come from the server.
fn stream<'a, T>(
    index: &'a PostgresIndex,
    transaction: &'a mut Transaction,
    columns: &str,
    read: impl Fn(&Row) -> SqlResult<T> + 'a,
) -> Result<impl Iterator<Item = Result<T>> + 'a> {
    let failed = |error: postgres::Error| -> Error { index.place.error(error) };
    let query = format!("SELECT {columns} FROM {} ORDER BY id", index.place.tables.items);
    let rows = transaction.query_raw(&query, std::iter::empty::<i64>()).map_err(failed)?;
    // Rows that are read beyond the last one look like a lost connection.
    Ok(rows.iterator().fuse().map(move |row| row.and_then(|row| read(&row)).map_err(failed)))
}
