//! The graph: pgvector's HNSW index (<https://github.com/pgvector/pgvector#hnsw>).

use super::location::Place;
use super::schema::{self, Tables, column_type, lock, read_description};
use crate::backend::ProgressFn;
use crate::{GraphConfig, Result};
use postgres::{Client, GenericClient};

/// The most memory that building takes, where the server's setting is lower: a graph that does not fit is
/// built several times more slowly.
const MEMORY_KB: usize = 4 << 20;

/// The options of the valid HNSW index of the items; None where there is none.
///
/// # Errors
/// The database fails.
pub(super) fn options(client: &mut impl GenericClient, place: &Place) -> Result<Option<Vec<String>>> {
    let found = client.query_opt(
        "SELECT coalesce(class.reloptions, '{}') FROM pg_index AS index
         JOIN pg_class AS class ON class.oid = index.indexrelid
         JOIN pg_am AS method ON method.oid = class.relam
         WHERE index.indrelid = to_regclass($1) AND method.amname = 'hnsw' AND index.indisvalid LIMIT 1",
        &[&place.tables.items],
    );
    Ok(found.map_err(|error| place.error(error))?.map(|row| row.get(0)))
}

/// Builds the graph with `config`, in place of one that was built in another way. Writers wait meanwhile.
///
/// # Errors
/// There is no index, pgvector refuses `config` or the number of dimensions, or the disk is full.
pub(super) fn build(
    client: &mut Client,
    place: &Place,
    config: GraphConfig,
    progress: ProgressFn,
) -> Result<()> {
    let failed = |error| place.error(error);
    let mut transaction = client.transaction().map_err(failed)?;
    lock(&mut transaction, place, &place.tables.items)?;
    let description = read_description(&mut transaction, place)?.ok_or_else(|| schema::missing(place))?;
    let GraphConfig { connectivity, expansion } = config;
    let wanted = [format!("m={connectivity}"), format!("ef_construction={expansion}")];
    if options(&mut transaction, place)?.is_some_and(|options| wanted.iter().all(|one| options.contains(one)))
    {
        return Ok(());
    }
    let Tables { items, graph, .. } = &place.tables;
    let count = transaction.query_one(&format!("SELECT count(*) FROM {items}"), &[]).map_err(failed)?;
    let rows = count.get::<_, i64>(0) as usize;
    progress(0, rows);
    let memory = memory_kb(rows, description.rows.row_bytes(description.dim), connectivity);
    let column = column_type(description.rows, place)?;
    transaction
        .batch_execute(&format!(
            "SELECT set_config('maintenance_work_mem', greatest({memory}, setting::bigint)::text, true)
             FROM pg_settings WHERE name = 'maintenance_work_mem';
             DROP INDEX IF EXISTS {graph};
             CREATE INDEX {graph} ON {items} USING hnsw (embedding {column}_ip_ops)
             WITH (m = {connectivity}, ef_construction = {expansion});
             ANALYZE {items}"
        ))
        .map_err(failed)?;
    transaction.commit().map_err(failed)?;
    progress(rows, rows);
    Ok(())
}

/// The kB that a graph of `rows` rows takes while it is built: the row, twice `connectivity` neighbours of 16
/// bytes on the lowest level, and a tenth of that on the others; with a fifth to spare.
fn memory_kb(rows: usize, row_bytes: usize, connectivity: usize) -> usize {
    let row = row_bytes + 35 * connectivity + 128;
    (rows.saturating_mul(row) / 5 * 6 / 1024).clamp(1024, MEMORY_KB)
}
