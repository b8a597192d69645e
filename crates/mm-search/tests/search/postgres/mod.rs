//! Indexes in PostgreSQL: they hold and find what those in a folder do.

mod refusals;
mod searching;
mod server;
mod writing;

use crate::common::{Place, item};
use mm_search::{
    GraphConfig, Hit, IndexDescription, IndexLocation, ItemWriter, PostgresLocation, RowType, SearchIndex,
    SearchRequest,
};
use server::Server;
use std::sync::Arc;

/// A table in a database of its own.
struct Table {
    server: Arc<Server>,
    database: String,
    folder: Place,
}

impl Table {
    /// None, with the reason printed, where there is no PostgreSQL with pgvector.
    fn new(rows: RowType) -> Option<Self> {
        let server = Server::get()?;
        let database = server.database();
        Some(Self { server, database, folder: Place::new(rows) })
    }

    fn location(&self) -> PostgresLocation {
        self.server.location(&self.database, "tester", "items")
    }

    fn writer(&self, set: &str) -> Box<dyn ItemWriter> {
        self.location().open_writer(&self.folder.description, set).unwrap()
    }

    fn index(&self) -> Box<dyn SearchIndex> {
        self.location().open().unwrap()
    }

    /// Adds `rows`, the items `range` of them, as committed items, here and to an index in a folder.
    fn fill(&self, rows: &[Vec<f32>], range: std::ops::Range<usize>) {
        self.folder.fill(rows, range.clone());
        let mut writer = self.writer("set");
        range.for_each(|at| writer.add(item(at), &rows[at]).unwrap());
        writer.commit().unwrap();
    }

    fn build_graph(&self) {
        self.location().build_graph(GraphConfig::default(), &|_, _| {}).unwrap();
    }

    fn refusal(&self, description: &IndexDescription) -> String {
        self.location().open_writer(description, "set").err().expect("a refusal").to_string()
    }
}

fn request(k: usize, candidates: Option<usize>) -> SearchRequest<'static> {
    SearchRequest { k, filter: None, candidates }
}

/// The keys of hits.
fn keys(index: &dyn SearchIndex, hits: &[Hit]) -> Vec<String> {
    hits.iter().map(|hit| index.item(hit.id).unwrap().key).collect()
}
