//! An index, open for queries.

use crate::exact;
use crate::graph::Graph;
use crate::segment::Rows;
use crate::store::{Item, Store};
use crate::{Error, Filter, GraphConfig, Hit, IdSet, IndexDescription, ItemId, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// An index, open for queries. It shows the items that were there when it was opened; several threads may
/// query it at once.
pub struct Index {
    folder: PathBuf,
    description: IndexDescription,
    /// SQLite's connections are used by one thread at a time.
    store: Mutex<Store>,
    rows: Rows,
    deleted: IdSet,
    graph: Option<Graph>,
    /// The state of the database and of the graph when they were read.
    version: (i64, Option<SystemTime>),
}

/// How a search is done.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// The number of items to find.
    pub k: usize,
    /// The items among which to search; None for all.
    pub among: Option<IdSet>,
    /// Candidates that the graph gives, of which the best are found exactly: more of them cost time and miss
    /// less. None compares every row. Without a graph every row is compared, too.
    pub candidates: Option<usize>,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { k: 10, among: None, candidates: Some(CANDIDATES) }
    }
}

/// The usual number of candidates: recall@10 is 0.996 on a million clustered rows (docs/search.md).
pub const CANDIDATES: usize = 256;

/// Where a filter leaves less than this share of the items, comparing those is faster than walking the graph.
const SMALL_SUBSET: f64 = 0.05;

impl Index {
    /// Opens the index in `folder`.
    ///
    /// # Errors
    /// There is no index, or a file of it is missing, cut off or of another program.
    pub fn open(folder: &Path) -> Result<Self> {
        let description = IndexDescription::read(folder)?;
        let store = Store::open(folder)?;
        let version = (store.version()?, Graph::written(folder));
        let (segments, deleted) = (store.segments()?, store.deleted()?);
        let rows = Rows::open(folder, description.rows, description.dim, &segments)?;
        let graph = Graph::open(folder, description.dim)?;
        let store = Mutex::new(store);
        Ok(Self { folder: folder.to_owned(), description, store, rows, deleted, graph, version })
    }

    /// Whether the index on disk has changed since it was opened: another one that is opened now shows more.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn has_changed(&self) -> Result<bool> {
        Ok(self.version != (self.store().version()?, Graph::written(&self.folder)))
    }

    /// Adds the rows that the graph of the index in `folder` does not cover yet, or builds it. `progress` has
    /// the number of rows done and their total.
    ///
    /// # Errors
    /// A file is damaged, memory runs out or the disk refuses; the graph that was there stays.
    pub fn build_graph(
        folder: &Path,
        config: GraphConfig,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<()> {
        let description = IndexDescription::read(folder)?;
        let store = Store::open(folder)?;
        let rows = Rows::open(folder, description.rows, description.dim, &store.segments()?)?;
        Graph::update(folder, &rows, &store.deleted()?, config, progress)
    }

    /// What the index holds.
    pub fn description(&self) -> &IndexDescription {
        &self.description
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.rows.len() - self.deleted.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of rows in the graph; None without a graph.
    pub fn graph_len(&self) -> Option<usize> {
        self.graph.as_ref().map(Graph::len)
    }

    /// The ids of all items.
    pub fn ids(&self) -> Vec<ItemId> {
        self.rows.ids(&self.deleted)
    }

    /// The stored row of an item; None where there is no such item.
    pub fn row(&self, id: ItemId) -> Option<Vec<f32>> {
        self.rows.row(id).filter(|_| !self.deleted.contains(id))
    }

    /// The item `id`.
    ///
    /// # Errors
    /// There is no such item.
    pub fn item(&self, id: ItemId) -> Result<Item> {
        let item = self.store().item(id)?;
        item.ok_or_else(|| Error::Query(format!("the index has no item {id}")))
    }

    /// The thumbnail of an item, a JPEG; None where the index has none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn thumbnail(&self, id: ItemId) -> Result<Option<Vec<u8>>> {
        self.store().thumbnail(id)
    }

    /// The data sets with the numbers of their items.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sets(&self) -> Result<Vec<(String, usize)>> {
        self.store().sets()
    }

    /// The items that fulfil `filter`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn matching(&self, filter: &Filter) -> Result<IdSet> {
        self.store().matching(filter)
    }

    /// The best items for each of `queries`, unit rows, best first. What is found for a query does not depend
    /// on the others.
    ///
    /// # Errors
    /// A query has another length than the rows, or memory runs out.
    pub fn search(&self, queries: &[Vec<f32>], options: &SearchOptions) -> Result<Vec<Vec<Hit>>> {
        let dim = self.rows.dim();
        if let Some(query) = queries.iter().find(|query| query.len() != dim) {
            return Err(Error::Query(format!("it has {} numbers, and the index {dim}", query.len())));
        }
        let is_alive = |id| !self.deleted.contains(id);
        let is_among = |id| is_alive(id) && options.among.as_ref().is_none_or(|among| among.contains(id));
        if let Some(among) = &options.among
            && (among.len() as f64) < SMALL_SUBSET * self.len() as f64
        {
            let found = queries.iter().map(|query| exact::search_subset(&self.rows, query, options.k, among));
            return Ok(found.collect());
        }
        let (Some(graph), Some(candidates)) = (&self.graph, options.candidates) else {
            return exact::search(&self.rows, queries, options.k, &is_among, |_| 0);
        };
        let accepts: &(dyn Fn(ItemId) -> bool + Sync) = &is_among;
        let accepts = (!self.deleted.is_empty() || options.among.is_some()).then_some(accepts);
        let later =
            exact::search(&self.rows, queries, options.k, &is_among, |segment| graph.covers(segment))?;
        let nearest = |(query, later): (&Vec<f32>, Vec<Hit>)| -> Result<Vec<Hit>> {
            let ids = graph.candidates(query, candidates.max(options.k), accepts)?;
            let found = ids.into_iter().map(|id| Hit { id, score: 0.0 });
            Ok(exact::rescore(&self.rows, query, options.k, found.chain(later).collect()))
        };
        queries.par_iter().zip(later).map(nearest).collect()
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        // A panic while reading leaves the database as it is.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}
