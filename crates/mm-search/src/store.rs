//! The items of an index, in SQLite: keys, stamps, metadata and thumbnails.
//!
//! SQLite is one file that any language reads, filters JSON by itself, and keeps each transaction whole
//! through a kill. Several processes write in turn.

use crate::filter::{Filter, Value};
use crate::{Error, IdSet, ItemId, Result};
use mm_core::checkpoint::hex;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, OptionalExtension, ToSql, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The mark of an index in the header of its database.
const APPLICATION: i32 = 0x6d6d_7378;

/// How long a process waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE segments (id INTEGER PRIMARY KEY, rows INTEGER NOT NULL);
    CREATE TABLE items (
        id INTEGER PRIMARY KEY, set_name TEXT NOT NULL, key TEXT NOT NULL, size INTEGER, modified INTEGER,
        digest TEXT NOT NULL, metadata TEXT NOT NULL, UNIQUE (set_name, key)
    );
    CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
    CREATE TABLE deleted (id INTEGER PRIMARY KEY);
";

/// How a change of an image is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The size of the file in bytes, and the time of its last change in nanoseconds since 1970; none of an
    /// image that is not a file.
    pub file: Option<(i64, i64)>,
    /// The SHA-256 of the encoded image in hexadecimal.
    pub digest: String,
}

impl Stamp {
    /// Of an image in memory.
    pub fn new(file: Option<(i64, i64)>, encoded: &[u8]) -> Self {
        Self { file, digest: hex(&Sha256::digest(encoded)) }
    }
}

/// An item of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its id in the index.
    pub id: ItemId,
    /// The data set.
    pub set: String,
    /// The key in the data set; for a folder the path of the file.
    pub key: String,
    /// Caption, label and size of the image.
    pub metadata: serde_json::Value,
}

/// An item that an index is to hold.
#[derive(Clone, Debug)]
pub struct NewItem {
    /// The key in the data set.
    pub key: String,
    /// The stamp of the image.
    pub stamp: Stamp,
    /// Caption, label and size of the image: a JSON object.
    pub metadata: serde_json::Value,
    /// A small JPEG.
    pub thumbnail: Option<Vec<u8>>,
}

/// The database of an index.
pub(crate) struct Store {
    folder: PathBuf,
    connection: Connection,
}

impl Store {
    fn file(folder: &Path) -> PathBuf {
        folder.join("items.sqlite")
    }

    /// Opens the database in `folder`, which is created where there is none.
    pub fn open_or_create(folder: &Path) -> Result<Self> {
        let store = Self::connect(folder, OpenFlags::default())?;
        let created = || -> rusqlite::Result<()> {
            store.connection.pragma_update(None, "journal_mode", "wal")?;
            store.connection.pragma_update(None, "synchronous", "full")?; // what is reported done stays
            let transaction = store.connection.unchecked_transaction()?;
            if transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?
                == 0
            {
                transaction.pragma_update(None, "application_id", APPLICATION)?;
                transaction.execute_batch(SCHEMA)?;
            }
            transaction.commit()
        };
        created().map_err(|error| store.error(error))?;
        store.check()?;
        Ok(store)
    }

    /// Opens the database in `folder` for reading.
    pub fn open(folder: &Path) -> Result<Self> {
        if !Self::file(folder).exists() {
            return Err(Error::index(folder, "items.sqlite is missing: index again"));
        }
        let store =
            Self::connect(folder, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        store.check()?;
        Ok(store)
    }

    fn connect(folder: &Path, flags: OpenFlags) -> Result<Self> {
        let error = |error: rusqlite::Error| Error::index(folder, format!("items.sqlite: {error}"));
        let connection = Connection::open_with_flags(Self::file(folder), flags).map_err(error)?;
        connection.busy_timeout(BUSY).map_err(error)?;
        Ok(Self { folder: folder.to_owned(), connection })
    }

    fn check(&self) -> Result<()> {
        let read = self.connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0));
        if read.map_err(|error| self.error(error))? != APPLICATION {
            return Err(Error::index(&self.folder, "items.sqlite is a database of another program"));
        }
        Ok(())
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        Error::index(&self.folder, format!("items.sqlite: {error}"))
    }

    /// Runs `body` in a transaction that takes the database for writing at its start.
    pub fn write<T>(&mut self, body: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T> {
        let Self { folder, connection } = self;
        let run = || -> rusqlite::Result<T> {
            let transaction =
                Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|error| Error::index(folder, format!("items.sqlite: {error}")))
    }

    fn read<T>(&self, body: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        body(&self.connection).map_err(|error| self.error(error))
    }

    /// A number that changes whenever another process, or another connection of this one, commits.
    pub fn version(&self) -> Result<i64> {
        self.read(|connection| connection.pragma_query_value(None, "data_version", |row| row.get(0)))
    }

    /// The segments with the numbers of their rows.
    pub fn segments(&self) -> Result<Vec<(u32, usize)>> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT id, rows FROM segments ORDER BY id")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)))?.collect()
        })
    }

    /// Adds a segment without rows.
    pub fn add_segment(&mut self) -> Result<u32> {
        self.write(|transaction| {
            transaction.execute("INSERT INTO segments (rows) VALUES (0)", [])?;
            Ok(transaction.last_insert_rowid() as u32)
        })
    }

    /// The rows whose items are deleted.
    pub fn deleted(&self) -> Result<IdSet> {
        self.ids("SELECT id FROM deleted", &[])
    }

    /// The items that fulfil `filter`.
    pub fn matching(&self, filter: &Filter) -> Result<IdSet> {
        let mut values = Vec::new();
        // SQLite compares a text with a number too: any text is greater.
        let field = |name: &str, value: &Value| match (name, value) {
            ("key", _) => "key".to_owned(),
            ("set", _) => "set_name".to_owned(),
            (name, value) => {
                let types = if matches!(value, Value::Number(_)) { "'integer', 'real'" } else { "'text'" };
                let found = format!("json_extract(metadata, '$.{name}')");
                format!("CASE WHEN typeof({found}) IN ({types}) THEN {found} END")
            }
        };
        let condition = filter.to_sql(&mut |name, comparison, value| {
            values.push(value.clone());
            comparison.to_sql(&field(name, value), &format!("?{}", values.len()), "instr")
        });
        let values: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
        self.ids(&format!("SELECT id FROM items WHERE {condition}"), &values)
    }

    fn ids(&self, query: &str, values: &[&dyn ToSql]) -> Result<IdSet> {
        self.read(|connection| {
            let mut statement = connection.prepare(query)?;
            let ids = statement.query_map(values, |row| row.get::<_, i64>(0))?;
            ids.map(|id| id.map(|id| id as ItemId)).collect()
        })
    }

    /// The item `id`, if it is there.
    pub fn item(&self, id: ItemId) -> Result<Option<Item>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT set_name, key, metadata FROM items WHERE id = ?1")?;
            let item = |row: &rusqlite::Row| {
                let metadata: String = row.get(2)?;
                let metadata = serde_json::from_str(&metadata).unwrap_or(serde_json::Value::Null);
                Ok(Item { id, set: row.get(0)?, key: row.get(1)?, metadata })
            };
            statement.query_row([id as i64], item).optional()
        })
    }

    /// The thumbnail of the item `id`, a JPEG, if it has one.
    pub fn thumbnail(&self, id: ItemId) -> Result<Option<Vec<u8>>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT jpeg FROM thumbnails WHERE id = ?1")?;
            statement.query_row([id as i64], |row| row.get(0)).optional()
        })
    }

    /// The items of the data set `set`, by the digests of their keys.
    pub fn known(&self, set: &str) -> Result<HashMap<KeyDigest, (ItemId, Stamp)>> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT id, key, size, modified, digest FROM items WHERE set_name = ?1")?;
            let item = |row: &rusqlite::Row| {
                let (size, modified): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
                let stamp = Stamp { file: size.zip(modified), digest: row.get(4)? };
                let key: String = row.get(1)?;
                Ok((key_digest(&key), (row.get::<_, i64>(0)? as ItemId, stamp)))
            };
            statement.query_map([set], item)?.collect()
        })
    }

    /// The numbers of items of each data set.
    pub fn sets(&self) -> Result<Vec<(String, usize)>> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT set_name, count(*) FROM items GROUP BY set_name ORDER BY set_name")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)))?.collect()
        })
    }
}

/// 128 bits of the SHA-256 of a key: a table of digests is smaller than one of keys.
pub(crate) type KeyDigest = [u8; 16];

pub(crate) fn key_digest(key: &str) -> KeyDigest {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}

/// Adds an item, in place of the one of the same key.
pub(crate) fn insert(
    transaction: &Transaction,
    set: &str,
    id: ItemId,
    item: &NewItem,
) -> rusqlite::Result<()> {
    let old: Option<i64> = transaction
        .prepare_cached("SELECT id FROM items WHERE set_name = ?1 AND key = ?2")?
        .query_row([set, &item.key], |row| row.get(0))
        .optional()?;
    if let Some(old) = old {
        delete(transaction, old as ItemId)?;
    }
    let (size, modified) = item.stamp.file.unzip();
    transaction
        .prepare_cached(
            "INSERT INTO items (id, set_name, key, size, modified, digest, metadata)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id as i64,
            set,
            item.key,
            size,
            modified,
            item.stamp.digest,
            item.metadata.to_string()
        ])?;
    if let Some(jpeg) = &item.thumbnail {
        let mut statement =
            transaction.prepare_cached("INSERT INTO thumbnails (id, jpeg) VALUES (?1, ?2)")?;
        statement.execute(params![id as i64, jpeg])?;
    }
    Ok(())
}

/// Deletes an item; its row stays in the segment, and is skipped.
pub(crate) fn delete(transaction: &Transaction, id: ItemId) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM items WHERE id = ?1",
        "DELETE FROM thumbnails WHERE id = ?1",
        "INSERT OR IGNORE INTO deleted (id) VALUES (?1)",
    ] {
        transaction.prepare_cached(statement)?.execute([id as i64])?;
    }
    Ok(())
}

/// Notes that the file of an item changed in nothing but its time.
pub(crate) fn touch(transaction: &Transaction, id: ItemId, stamp: &Stamp) -> rusqlite::Result<()> {
    let (size, modified) = stamp.file.unzip();
    let mut statement =
        transaction.prepare_cached("UPDATE items SET size = ?2, modified = ?3 WHERE id = ?1")?;
    statement.execute(params![id as i64, size, modified])?;
    Ok(())
}
