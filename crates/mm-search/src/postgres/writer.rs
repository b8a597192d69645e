//! Adding items to an index in PostgreSQL.

use super::location::Place;
use super::schema::{self, column_type};
use super::{PostgresLocation, SqlResult};
use crate::store::{KeyDigest, key_digest};
use crate::{IndexDescription, ItemId, ItemWriter, NewItem, Result, Stamp};
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{Json, Type};
use postgres::{Client, Transaction};
use serde_json::Value;
use std::collections::HashMap;

/// Adds items of one data set to an index in PostgreSQL, as [`IndexWriter`](crate::IndexWriter) does to one
/// in a folder.
pub struct PostgresWriter {
    client: Client,
    place: Place,
    set: String,
    description: IndexDescription,
    /// The SQL type of the rows.
    column: &'static str,
    added: Vec<(NewItem, Vec<f32>)>,
    touched: Vec<(ItemId, Stamp)>,
}

/// The columns that are copied, in the order of [`copy`].
const COLUMNS: [(&str, Type); 8] = [
    ("ordinal", Type::INT8),
    ("key", Type::TEXT),
    ("size", Type::INT8),
    ("modified", Type::INT8),
    ("digest", Type::TEXT),
    ("metadata", Type::JSONB),
    ("thumbnail", Type::BYTEA),
    ("embedding", Type::FLOAT4_ARRAY),
];

impl PostgresWriter {
    /// Opens the index at `location` for items of the data set `set`; without an index, one of `description`
    /// is created, and the extension `vector` with it.
    ///
    /// # Errors
    /// The index is of another model or another type of rows, pgvector is missing or too old, or the database
    /// cannot be reached.
    pub fn open(location: &PostgresLocation, description: &IndexDescription, set: &str) -> Result<Self> {
        let place = location.place.clone();
        let column = column_type(description.rows, &place)?;
        let mut client = location.connect()?;
        schema::ensure(&mut client, &place, description)?;
        let columns = COLUMNS.map(|(name, sql)| format!("{name} {}", sql_name(&sql))).join(", ");
        client
            .batch_execute(&format!("CREATE TEMPORARY TABLE mm_incoming ({columns}) ON COMMIT DELETE ROWS"))
            .map_err(|error| place.error(error))?;
        let (set, description) = (set.to_owned(), description.clone());
        Ok(Self { client, place, set, description, column, added: Vec::new(), touched: Vec::new() })
    }
}

/// Runs `body` as one transaction.
fn write(
    client: &mut Client,
    place: &Place,
    body: impl FnOnce(&mut Transaction) -> SqlResult<()>,
) -> Result<()> {
    let run = || {
        let mut transaction = client.transaction()?;
        body(&mut transaction)?;
        transaction.commit()
    };
    run().map_err(|error| place.error(error))
}

/// The name of a type of [`COLUMNS`] in SQL.
fn sql_name(sql: &Type) -> String {
    match *sql {
        Type::FLOAT4_ARRAY => "real[]".to_owned(),
        _ => sql.name().to_owned(),
    }
}

/// Copies items into the temporary table.
fn copy(transaction: &mut Transaction, added: &[(NewItem, Vec<f32>)]) -> SqlResult<()> {
    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let into = format!("COPY pg_temp.mm_incoming ({names}) FROM STDIN BINARY");
    let types = COLUMNS.map(|(_, sql)| sql);
    let mut writer = BinaryCopyInWriter::new(transaction.copy_in(&into)?, &types);
    for (ordinal, (item, row)) in added.iter().enumerate() {
        let (size, modified) = item.stamp.file.unzip();
        let (ordinal, metadata) = (ordinal as i64, Json(without_nul(&item.metadata)));
        let NewItem { key, stamp, thumbnail, .. } = item;
        writer.write(&[&ordinal, key, &size, &modified, &stamp.digest, &metadata, thumbnail, row])?;
    }
    writer.finish().map(drop)
}

/// `value` with a replacement character for each NUL, which PostgreSQL stores in no text.
fn without_nul(value: &Value) -> Value {
    let plain = |text: &str| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => plain(text).into(),
        Value::Array(values) => values.iter().map(without_nul).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (plain(name), without_nul(value))).collect()
        }
        other => other.clone(),
    }
}

impl ItemWriter for PostgresWriter {
    fn known(&mut self) -> Result<HashMap<KeyDigest, (ItemId, Stamp)>> {
        let items = &self.place.tables.items;
        let query = format!("SELECT id, key, size, modified, digest FROM {items} WHERE set_name = $1");
        let rows = self.client.query_raw(&query, [&self.set]);
        let known = rows.and_then(|rows| {
            rows.map(|row| {
                let (size, modified): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
                let stamp = Stamp { file: size.zip(modified), digest: row.try_get(4)? };
                let id: i64 = row.try_get(0)?;
                Ok((key_digest(row.try_get(1)?), (id as ItemId, stamp)))
            })
            .collect()
        });
        known.map_err(|error| self.place.error(error))
    }

    fn add(&mut self, item: NewItem, row: &[f32]) -> Result<()> {
        if row.len() != self.description.dim {
            let problem = format!("{}: {} numbers, not {}", item.key, row.len(), self.description.dim);
            return Err(self.place.problem(problem));
        }
        if item.key.contains('\0') {
            return Err(self.place.problem(format!("{:?}: PostgreSQL stores no key with a NUL", item.key)));
        }
        self.added.push((item, row.to_vec()));
        Ok(())
    }

    fn touch(&mut self, id: ItemId, stamp: Stamp) {
        self.touched.push((id, stamp));
    }

    fn pending(&self) -> usize {
        self.added.len()
    }

    fn commit(&mut self) -> Result<()> {
        let Self { client, place, set, column, added, touched, .. } = self;
        if added.is_empty() && touched.is_empty() {
            return Ok(());
        }
        let items = &place.tables.items;
        // The last of several items of one key counts. In the order of their keys two processes that write
        // the same ones wait for each other, and do not deadlock.
        let insert = format!(
            "INSERT INTO {items} (set_name, key, size, modified, digest, metadata, thumbnail, embedding)
             SELECT DISTINCT ON (key) $1::text, key, size, modified, digest, metadata, thumbnail,
             embedding::{column} FROM pg_temp.mm_incoming ORDER BY key, ordinal DESC
             ON CONFLICT (set_name, key) DO UPDATE SET size = excluded.size, modified = excluded.modified,
             digest = excluded.digest, metadata = excluded.metadata, thumbnail = excluded.thumbnail,
             embedding = excluded.embedding"
        );
        let touch = format!(
            "UPDATE {items} SET size = new.size, modified = new.modified
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS new (id, size, modified)
             WHERE {items}.id = new.id"
        );
        let ids: Vec<i64> = touched.iter().map(|(id, _)| *id as i64).collect();
        let (sizes, times): (Vec<Option<i64>>, Vec<Option<i64>>) =
            touched.iter().map(|(_, stamp)| stamp.file.unzip()).unzip();
        write(client, place, |transaction| {
            if !added.is_empty() {
                copy(transaction, added)?;
                transaction.execute(&insert, &[set])?;
            }
            if !ids.is_empty() {
                transaction.execute(&touch, &[&ids, &sizes, &times])?;
            }
            Ok(())
        })?;
        added.clear();
        touched.clear();
        Ok(())
    }

    fn delete(&mut self, ids: &[ItemId]) -> Result<()> {
        let Self { client, place, .. } = self;
        let delete = format!("DELETE FROM {} WHERE id = ANY($1)", place.tables.items);
        let ids: Vec<i64> = ids.iter().map(|&id| id as i64).collect();
        write(client, place, |transaction| transaction.execute(&delete, &[&ids]).map(drop))
    }
}
