//! The places of an index: a folder, or a table of PostgreSQL.

use crate::postgres::PostgresLocation;
use crate::{
    Filter, GraphConfig, Hit, Index, IndexDescription, IndexWriter, Item, ItemId, ItemWriter, RecallReport,
    Result, SearchOptions,
};
use std::path::{Path, PathBuf};

/// Progress of a long operation: the number of items done, and their total.
pub type ProgressFn<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A search as any index answers it.
#[derive(Clone, Debug)]
pub struct SearchRequest<'a> {
    /// The number of items to find.
    pub k: usize,
    /// The condition that the items fulfil.
    pub filter: Option<&'a Filter>,
    /// Candidates that the graph gives, as in [`SearchOptions`]; None compares every row.
    pub candidates: Option<usize>,
}

/// An index, open for queries; several threads may query it at once. Every method fails where the index
/// cannot be read.
pub trait SearchIndex: Send + Sync {
    /// What the index holds.
    fn description(&self) -> &IndexDescription;

    /// The number of items.
    fn len(&self) -> Result<usize>;

    /// Whether there is no item.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The number of rows in the graph; None without a graph.
    fn graph_len(&self) -> Result<Option<usize>>;

    /// The item `id`; an error where there is no such item.
    fn item(&self, id: ItemId) -> Result<Item>;

    /// The thumbnail of an item, a JPEG; None where the index has none.
    fn thumbnail(&self, id: ItemId) -> Result<Option<Vec<u8>>>;

    /// The stored row of an item; None where there is no such item.
    fn row(&self, id: ItemId) -> Result<Option<Vec<f32>>>;

    /// The rows of about `count` items, evenly spaced.
    fn sample(&self, count: usize) -> Result<Vec<Vec<f32>>>;

    /// The best items for each of `queries`, unit rows, best first.
    fn search(&self, queries: &[Vec<f32>], request: &SearchRequest) -> Result<Vec<Vec<Hit>>>;

    /// As [`Index::search_diverse`].
    fn search_diverse(&self, query: &[f32], request: &SearchRequest, diversity: f32) -> Result<Vec<Hit>>;

    /// As [`Index::near_duplicates`].
    fn near_duplicates(
        &self,
        threshold: f32,
        candidates: Option<usize>,
        progress: ProgressFn,
    ) -> Result<Vec<Vec<ItemId>>>;

    /// As [`Index::recall`].
    fn recall(&self, queries: &[Vec<f32>], k: usize, candidates: &[usize]) -> Result<RecallReport>;

    /// As [`Index::export_parquet`].
    fn export_parquet(&self, file: &Path) -> Result<()>;

    /// As [`Index::export_npy`].
    fn export_npy(&self, file: &Path) -> Result<()>;
}

/// The place of an index, whether or not there is one yet.
pub trait IndexLocation: Send + Sync {
    /// The place as messages name it, without a password.
    fn name(&self) -> String;

    /// What the index holds; None where there is no index.
    ///
    /// # Errors
    /// The place cannot be read.
    fn description(&self) -> Result<Option<IndexDescription>>;

    /// Opens the index.
    ///
    /// # Errors
    /// There is no index, or it cannot be read.
    fn open(&self) -> Result<Box<dyn SearchIndex>>;

    /// Opens the index for items of the data set `set`; without an index, one of `description` is created.
    ///
    /// # Errors
    /// The index is of another model or another type of rows, or cannot be written.
    fn open_writer(&self, description: &IndexDescription, set: &str) -> Result<Box<dyn ItemWriter>>;

    /// Builds the graph, or adds the rows that it does not cover.
    ///
    /// # Errors
    /// Memory or the disk is short; the graph that was there stays.
    fn build_graph(&self, config: GraphConfig, progress: ProgressFn) -> Result<()>;
}

/// The location that `text` names: `postgres://user@host/database?table=NAME`, else a folder.
///
/// # Errors
/// It is a wrong address of PostgreSQL; the message has no password.
pub fn index_location(text: &str) -> Result<Box<dyn IndexLocation>> {
    match text.starts_with("postgres://") || text.starts_with("postgresql://") {
        true => Ok(Box::new(PostgresLocation::parse(text)?)),
        false => Ok(Box::new(PathBuf::from(text))),
    }
}

impl IndexLocation for PathBuf {
    fn name(&self) -> String {
        self.display().to_string()
    }

    fn description(&self) -> Result<Option<IndexDescription>> {
        IndexDescription::file(self).exists().then(|| IndexDescription::read(self)).transpose()
    }

    fn open(&self) -> Result<Box<dyn SearchIndex>> {
        Ok(Box::new(Index::open(self)?))
    }

    fn open_writer(&self, description: &IndexDescription, set: &str) -> Result<Box<dyn ItemWriter>> {
        Ok(Box::new(IndexWriter::open(self, description, set)?))
    }

    fn build_graph(&self, config: GraphConfig, progress: ProgressFn) -> Result<()> {
        Index::build_graph(self, config, progress)
    }
}

impl Index {
    fn options(&self, request: &SearchRequest) -> Result<SearchOptions> {
        let among = request.filter.map(|filter| self.matching(filter)).transpose()?;
        Ok(SearchOptions { k: request.k, among, candidates: request.candidates })
    }
}

impl SearchIndex for Index {
    fn description(&self) -> &IndexDescription {
        Index::description(self)
    }

    fn len(&self) -> Result<usize> {
        Ok(Index::len(self))
    }

    fn graph_len(&self) -> Result<Option<usize>> {
        Ok(Index::graph_len(self))
    }

    fn item(&self, id: ItemId) -> Result<Item> {
        Index::item(self, id)
    }

    fn thumbnail(&self, id: ItemId) -> Result<Option<Vec<u8>>> {
        Index::thumbnail(self, id)
    }

    fn row(&self, id: ItemId) -> Result<Option<Vec<f32>>> {
        Ok(Index::row(self, id))
    }

    fn sample(&self, count: usize) -> Result<Vec<Vec<f32>>> {
        let ids = self.ids();
        let step = (ids.len() / count.max(1)).max(1);
        Ok(ids.into_iter().step_by(step).filter_map(|id| Index::row(self, id)).collect())
    }

    fn search(&self, queries: &[Vec<f32>], request: &SearchRequest) -> Result<Vec<Vec<Hit>>> {
        Index::search(self, queries, &self.options(request)?)
    }

    fn search_diverse(&self, query: &[f32], request: &SearchRequest, diversity: f32) -> Result<Vec<Hit>> {
        Index::search_diverse(self, query, &self.options(request)?, diversity)
    }

    fn near_duplicates(
        &self,
        threshold: f32,
        candidates: Option<usize>,
        progress: ProgressFn,
    ) -> Result<Vec<Vec<ItemId>>> {
        Index::near_duplicates(self, threshold, candidates, &progress)
    }

    fn recall(&self, queries: &[Vec<f32>], k: usize, candidates: &[usize]) -> Result<RecallReport> {
        Index::recall(self, queries, k, candidates)
    }

    fn export_parquet(&self, file: &Path) -> Result<()> {
        Index::export_parquet(self, file)
    }

    fn export_npy(&self, file: &Path) -> Result<()> {
        Index::export_npy(self, file)
    }
}
