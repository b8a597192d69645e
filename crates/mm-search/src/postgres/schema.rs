//! The tables of an index, and the extension that they need.

use super::location::{Place, described};
use crate::{Error, IndexDescription, Result, RowType};
use postgres::types::Json;
use postgres::{Client, GenericClient, Transaction};

/// The version of the tables.
const FORMAT: i32 = 1;

/// The first key of the locks under which tables, graphs and the extension are made. Without them one of two
/// processes that make the same fails.
const LOCKS: i32 = 0x6d6d_7378;

/// The longest name of a table: PostgreSQL cuts names at 63 bytes, and suffixes are added.
const NAME: usize = 48;

/// The widest row that stays beside the other columns: a page has 8 kB. Wider ones are stored out of line,
/// where exact search reads them more slowly.
const INLINE_BYTES: usize = 6_144;

/// The tables and the graph of an index, as quoted names.
#[derive(Clone)]
pub(super) struct Tables {
    pub items: String,
    pub description: String,
    pub graph: String,
}

impl Tables {
    /// Those of the index in the table `name`; or what is wrong with the name.
    pub fn new(name: &str) -> std::result::Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !begins || !name.chars().all(is_plain) || name.len() > NAME {
            let form = "it has up to 48 lower-case letters, digits and _, and begins with no digit";
            return Err(format!("{name:?} is no name of a table: {form}"));
        }
        let quoted = |suffix: &str| format!("\"{name}{suffix}\"");
        Ok(Self { items: quoted(""), description: quoted("_description"), graph: quoted("_graph") })
    }
}

/// A version of pgvector: major and minor.
pub(super) type Version = (u32, u32);

/// The first version with HNSW.
const HNSW: Version = (0, 5);
/// The first version with `halfvec`.
const HALFVEC: Version = (0, 7);
/// The first version whose scans go on until enough rows fulfil the filter.
pub(super) const ITERATIVE: Version = (0, 8);

/// The type of the column `embedding` for rows of `rows`.
///
/// # Errors
/// pgvector has no such type.
pub(super) fn column_type(rows: RowType, place: &Place) -> Result<&'static str> {
    match rows {
        RowType::F32 => Ok("vector"),
        RowType::F16 => Ok("halfvec"),
        RowType::Int8 => Err(place.problem("pgvector has no 8-bit rows: use --rows f16 or f32")),
    }
}

/// The version of pgvector in the database; None where the extension is not created.
pub(super) fn version(client: &mut impl GenericClient, place: &Place) -> Result<Option<Version>> {
    let query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'";
    let Some(row) = client.query_opt(query, &[]).map_err(|error| place.error(error))? else {
        return Ok(None);
    };
    let text: String = row.get(0);
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    Ok(Some((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))))
}

/// Creates the extension where it is missing, and checks that it has what rows of `rows` need.
fn ensure_extension(transaction: &mut Transaction, place: &Place, rows: RowType) -> Result<()> {
    if version(transaction, place)?.is_none() {
        lock(transaction, place, "extension")?;
        transaction.batch_execute("CREATE EXTENSION IF NOT EXISTS vector").map_err(|error| {
            place.problem(format!(
                "the database has no pgvector, and it cannot be created: {}; install pgvector 0.5 or later \
                 on the server, and let an administrator run CREATE EXTENSION vector",
                described(&error)
            ))
        })?;
    }
    let (major, minor) = version(transaction, place)?.unwrap_or_default();
    let needed = if rows == RowType::F16 { HALFVEC } else { HNSW };
    if (major, minor) < needed {
        let (needed_major, needed_minor) = needed;
        return Err(place.problem(format!(
            "pgvector {major}.{minor} is too old for {rows:?} rows: install {needed_major}.{needed_minor} or \
             later and run ALTER EXTENSION vector UPDATE"
        )));
    }
    Ok(())
}

fn has_table(client: &mut impl GenericClient, table: &str, place: &Place) -> Result<bool> {
    let found = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]);
    Ok(found.map_err(|error| place.error(error))?.get(0))
}

/// Takes the lock of `subject` until the transaction ends.
pub(super) fn lock(transaction: &mut Transaction, place: &Place, subject: &str) -> Result<()> {
    let locked = transaction.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", &[&LOCKS, &subject]);
    locked.map(drop).map_err(|error| place.error(error))
}

/// What the index holds; None where there is none.
///
/// # Errors
/// The tables are of another version or another program, or the database fails.
pub(super) fn read_description(
    client: &mut impl GenericClient,
    place: &Place,
) -> Result<Option<IndexDescription>> {
    let Tables { items, description, .. } = &place.tables;
    match (has_table(client, description, place)?, has_table(client, items, place)?) {
        (true, true) => {}
        (false, false) => return Ok(None),
        (false, true) => {
            let problem = "the table is there, and is no index: name another one with ?table=NAME";
            return Err(place.problem(problem));
        }
        (true, false) => {
            let problem = format!("its table of items is gone: drop the table {description} and index again");
            return Err(place.problem(problem));
        }
    }
    let found = client
        .query_one(&format!("SELECT format, description FROM {description}"), &[])
        .map_err(|error| place.error(error))?;
    let format: i32 = found.try_get(0).map_err(|error| place.error(error))?;
    if format != FORMAT {
        let problem = format!("its format is {format}, and this program reads {FORMAT}: index again");
        return Err(place.problem(problem));
    }
    let Json(description) = found.try_get(1).map_err(|error| place.error(error))?;
    Ok(Some(description))
}

/// The error of an index that is not there.
pub(super) fn missing(place: &Place) -> Error {
    place.problem("there is no index: make one with `mm search index`")
}

/// Creates the index of `description`, or checks that the one that is there takes its embeddings.
///
/// # Errors
/// The index is of another model or type of rows, pgvector is missing or too old, or the database fails.
pub(super) fn ensure(client: &mut Client, place: &Place, description: &IndexDescription) -> Result<()> {
    let column = column_type(description.rows, place)?;
    let failed = |error| place.error(error);
    let mut transaction = client.transaction().map_err(failed)?;
    lock(&mut transaction, place, &place.tables.items)?;
    ensure_extension(&mut transaction, place, description.rows)?;
    if let Some(existing) = read_description(&mut transaction, place)? {
        return existing.accept(place.name.as_ref(), description);
    }
    let Tables { items, description: about, .. } = &place.tables;
    let dim = description.dim;
    transaction
        .batch_execute(&format!(
            "CREATE TABLE {items} (
                 id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                 set_name text NOT NULL, key text NOT NULL,
                 size bigint, modified bigint, digest text NOT NULL,
                 metadata jsonb NOT NULL, thumbnail bytea, embedding {column}({dim}) NOT NULL,
                 UNIQUE (set_name, key)
             );
             CREATE TABLE {about} (format integer NOT NULL, description jsonb NOT NULL)"
        ))
        .map_err(failed)?;
    if description.rows.row_bytes(dim) <= INLINE_BYTES {
        let plain = format!("ALTER TABLE {items} ALTER COLUMN embedding SET STORAGE PLAIN");
        transaction.batch_execute(&plain).map_err(failed)?;
    }
    let insert = format!("INSERT INTO {about} (format, description) VALUES ($1, $2)");
    transaction.execute(&insert, &[&FORMAT, &Json(description)]).map_err(failed)?;
    transaction.commit().map_err(failed)
}
