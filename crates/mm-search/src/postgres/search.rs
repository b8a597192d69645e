//! An index in PostgreSQL, open for queries.

use super::filter::{Parameters, condition};
use super::location::Place;
use super::schema::{self, Version, column_type};
use super::{PostgresLocation, SqlResult, duplicates, export, graph, recall};
use crate::backend::{ProgressFn, SearchIndex, SearchRequest};
use crate::diverse::{POOL, check_diversity, diverse};
use crate::{Error, Hit, IndexDescription, Item, ItemId, RecallReport, Result};
use postgres::types::{Json, ToSql};
use postgres::{Client, IsolationLevel, Row, Transaction};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most candidates that pgvector gives: the greatest `hnsw.ef_search`.
const MAX_CANDIDATES: usize = 1000;

/// An index in PostgreSQL, open for queries. It shows the items that are there at the time of each query.
pub struct PostgresIndex {
    client: Mutex<Client>,
    pub(super) place: Place,
    description: IndexDescription,
    version: Version,
}

impl PostgresIndex {
    /// Opens the index at `location`.
    ///
    /// # Errors
    /// There is no index, it is of another version of this program, or the database cannot be reached.
    pub fn open(location: &PostgresLocation) -> Result<Self> {
        let (mut client, place) = (location.connect()?, location.place.clone());
        let description =
            schema::read_description(&mut client, &place)?.ok_or_else(|| schema::missing(&place))?;
        let version = schema::version(&mut client, &place)?.unwrap_or_default();
        Ok(Self { client: Mutex::new(client), place, description, version })
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        // After a panic in a query the connection is as good as before, or its next use fails.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` on one snapshot of the database, with `settings` for it alone.
    pub(super) fn snapshot<T>(
        &self,
        settings: &str,
        body: impl FnOnce(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let failed = |error| self.place.error(error);
        let mut client = self.client();
        let level = IsolationLevel::RepeatableRead;
        let begun = client.build_transaction().read_only(true).isolation_level(level);
        let mut transaction = begun.start().map_err(failed)?;
        transaction.batch_execute(settings).map_err(failed)?;
        body(&mut transaction)
    }

    /// As [`PostgresIndex::snapshot`], for a body of queries alone.
    pub(super) fn read<T>(
        &self,
        settings: &str,
        body: impl FnOnce(&mut Transaction) -> SqlResult<T>,
    ) -> Result<T> {
        self.snapshot(settings, |transaction| body(transaction).map_err(|error| self.place.error(error)))
    }

    /// The `columns` of the item `id`, read by `read`; None where there is no such item.
    fn columns<T>(
        &self,
        id: ItemId,
        columns: &str,
        read: impl Fn(&Row) -> SqlResult<T>,
    ) -> Result<Option<T>> {
        let query = format!("SELECT {columns} FROM {} WHERE id = $1", self.place.tables.items);
        let found = self.client().query_opt(&query, &[&(id as i64)]);
        let read = found.and_then(|row| row.as_ref().map(read).transpose());
        read.map_err(|error| self.place.error(error))
    }

    /// The settings of a search with so many candidates from the graph, or of one that compares every row.
    ///
    /// # Errors
    /// pgvector takes fewer candidates.
    pub(super) fn settings(&self, candidates: Option<usize>, k: usize, is_filtered: bool) -> Result<String> {
        let Some(candidates) = candidates else {
            return Ok("SET LOCAL enable_indexscan = off".to_owned());
        };
        if candidates > MAX_CANDIDATES {
            let problem = format!("pgvector gives at most {MAX_CANDIDATES} candidates, not {candidates}");
            return Err(Error::Query(problem));
        }
        let count = candidates.max(k).clamp(1, MAX_CANDIDATES);
        let mut settings = format!("SET LOCAL hnsw.ef_search = {count};");
        if self.version >= schema::ITERATIVE {
            settings += "SET LOCAL hnsw.iterative_scan = relaxed_order;";
        }
        // With a filter PostgreSQL chooses between the graph and the rows that fulfil it.
        if !is_filtered {
            settings += "SET LOCAL enable_seqscan = off;";
        }
        Ok(settings)
    }

    fn search_with(
        &self,
        queries: &[Vec<f32>],
        request: &SearchRequest,
        candidates: Option<usize>,
    ) -> Result<Vec<Vec<Hit>>> {
        let column = column_type(self.description.rows, &self.place)?;
        let mut parameters = Parameters::new();
        let is_filtered = request.filter.is_some();
        // The row is the first parameter.
        parameters.push(Box::new(Vec::<f32>::new()));
        let among = request.filter.map(|filter| condition(filter, &mut parameters));
        let query = format!(
            "SELECT id, embedding <#> $1::real[]::{column} AS distance FROM {} WHERE {}
             ORDER BY distance LIMIT {}",
            self.place.tables.items,
            among.as_deref().unwrap_or("true"),
            request.k,
        );
        self.read(&self.settings(candidates, request.k, is_filtered)?, |transaction| {
            let statement = transaction.prepare(&query)?;
            let mut find = |query: &Vec<f32>| {
                let mut values: Vec<&(dyn ToSql + Sync)> = vec![query];
                values.extend(parameters.iter().skip(1).map(|value| &**value));
                let mut hits = transaction
                    .query(&statement, &values)?
                    .iter()
                    .map(|row| Ok(Hit { id: id_of(row)?, score: -row.try_get::<_, f64>(1)? as f32 }))
                    .collect::<SqlResult<Vec<Hit>>>()?;
                hits.sort(); // the graph gives them in about this order
                Ok(hits)
            };
            queries.iter().map(&mut find).collect()
        })
    }
}

/// The id in the first column of `row`.
pub(super) fn id_of(row: &Row) -> SqlResult<ItemId> {
    Ok(row.try_get::<_, i64>(0)? as ItemId)
}

/// The item in the columns `id`, `set_name`, `key` and `metadata` of `row`.
pub(super) fn item_of(row: &Row) -> SqlResult<Item> {
    let Json(metadata) = row.try_get(3)?;
    Ok(Item { id: id_of(row)?, set: row.try_get(1)?, key: row.try_get(2)?, metadata })
}

impl SearchIndex for PostgresIndex {
    fn description(&self) -> &IndexDescription {
        &self.description
    }

    fn len(&self) -> Result<usize> {
        let count = format!("SELECT count(*) FROM {}", self.place.tables.items);
        let row = self.client().query_one(&count, &[]).map_err(|error| self.place.error(error))?;
        Ok(row.get::<_, i64>(0) as usize)
    }

    fn graph_len(&self) -> Result<Option<usize>> {
        let options = graph::options(&mut *self.client(), &self.place)?;
        options.map(|_| self.len()).transpose()
    }

    fn item(&self, id: ItemId) -> Result<Item> {
        let item = self.columns(id, "id, set_name, key, metadata", item_of)?;
        item.ok_or_else(|| Error::Query(format!("the index has no item {id}")))
    }

    fn thumbnail(&self, id: ItemId) -> Result<Option<Vec<u8>>> {
        Ok(self.columns(id, "thumbnail", |row| row.try_get(0))?.flatten())
    }

    fn row(&self, id: ItemId) -> Result<Option<Vec<f32>>> {
        self.columns(id, "embedding::real[]", |row| row.try_get(0))
    }

    fn sample(&self, count: usize) -> Result<Vec<Vec<f32>>> {
        let step = (self.len()? / count.max(1)).max(1) as i64;
        let items = &self.place.tables.items;
        let query = format!(
            "SELECT embedding::real[] FROM {items} JOIN
             (SELECT id, row_number() OVER (ORDER BY id) AS number FROM {items}) AS numbered USING (id)
             WHERE (number - 1) % $1 = 0 ORDER BY id"
        );
        self.read("", |transaction| {
            transaction.query(&query, &[&step])?.iter().map(|row| row.try_get(0)).collect()
        })
    }

    fn search(&self, queries: &[Vec<f32>], request: &SearchRequest) -> Result<Vec<Vec<Hit>>> {
        let dim = self.description.dim;
        if let Some(query) = queries.iter().find(|query| query.len() != dim) {
            return Err(Error::Query(format!("it has {} numbers, and the index {dim}", query.len())));
        }
        let mut found = self.search_with(queries, request, request.candidates)?;
        if request.candidates.is_none() {
            return Ok(found);
        }
        // The graph gives too few where a filter leaves few of its rows, or where many of them are deleted.
        for (query, hits) in queries.iter().zip(&mut found).filter(|(_, hits)| hits.len() < request.k) {
            let exact = self.search_with(std::slice::from_ref(query), request, None)?;
            *hits = exact.into_iter().next().unwrap_or_default();
        }
        Ok(found)
    }

    fn search_diverse(&self, query: &[f32], request: &SearchRequest, diversity: f32) -> Result<Vec<Hit>> {
        check_diversity(diversity)?;
        let pool = SearchRequest { k: request.k.saturating_mul(POOL), ..request.clone() };
        let found = self.search(&[query.to_vec()], &pool)?.pop().unwrap_or_default();
        let mut with_rows = Vec::new();
        for hit in found {
            with_rows.extend(self.row(hit.id)?.map(|row| (hit, row)));
        }
        Ok(diverse(with_rows, request.k, diversity))
    }

    fn near_duplicates(
        &self,
        threshold: f32,
        candidates: Option<usize>,
        progress: ProgressFn,
    ) -> Result<Vec<Vec<ItemId>>> {
        duplicates::near_duplicates(self, threshold, candidates, progress)
    }

    fn recall(&self, queries: &[Vec<f32>], k: usize, candidates: &[usize]) -> Result<RecallReport> {
        recall::recall(self, queries, k, candidates)
    }

    fn export_parquet(&self, file: &Path) -> Result<()> {
        export::parquet(self, file)
    }

    fn export_npy(&self, file: &Path) -> Result<()> {
        export::npy(self, file)
    }
}
