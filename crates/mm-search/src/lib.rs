//! Search in the embeddings of images: an index on disk, exact and approximate.
//!
//! An index is a folder of three parts, each of the kind that suits it:
//!
//! - `rows/`: the embeddings, fixed-size rows in append-only files that are memory-mapped ([`RowType`]);
//! - `items.sqlite`: keys, metadata and thumbnails, and which rows count ([`Item`], [`Filter`]);
//! - `graph-N.usearch`, by choice: near neighbours (HNSW), for sets where comparing every row takes too long.
//!
//! Rows are written and synced before the transaction that counts them, and the graph replaces the one before
//! it by a rename. So an index opens after a kill at any moment, with everything that was committed.
//!
//! ```
//! use mm_search::{
//!     Filter, Index, IndexDescription, IndexWriter, ItemWriter, NewItem, SearchOptions, Stamp,
//! };
//! # let folder = tempfile::tempdir()?;
//! # let model = folder.path().join("model");
//! # std::fs::create_dir(&model)?;
//! # std::fs::write(model.join("config.json"), "{}")?;
//! # let (model, folder) = (model.to_str().unwrap(), folder.path().join("index"));
//! let description = IndexDescription::new(model, 2, Default::default())?;
//! let mut writer = IndexWriter::open(&folder, &description, "photos")?;
//! for (key, label, row) in [("a.jpg", "cat", [1.0, 0.0]), ("b.jpg", "dog", [0.6, 0.8])] {
//!     let stamp = Stamp::new(None, key.as_bytes());
//!     let metadata = serde_json::json!({ "label": label });
//!     writer.add(NewItem { key: key.to_owned(), stamp, metadata, thumbnail: None }, &row)?;
//! }
//! writer.commit()?;
//!
//! let index = Index::open(&folder)?;
//! let dogs = index.matching(&Filter::parse("label = 'dog'")?)?;
//! let options = SearchOptions { among: Some(dogs), ..SearchOptions::default() };
//! let hits = &index.search(&[vec![1.0, 0.0]], &options)?[0];
//! assert_eq!(index.item(hits[0].id)?.key, "b.jpg");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`PostgresIndex`] is the same in a table of PostgreSQL with pgvector. [`index_location`] chooses between
//! the two by the name, and [`SearchIndex`] is either.
//!
//! A data set is indexed by [`index_set`]. A new kind of stored number is a variant of [`RowType`]; another
//! graph takes the place of `graph.rs`.

mod backend;
mod description;
mod diverse;
mod duplicates;
mod error;
mod evaluate;
mod exact;
mod export;
mod export_files;
mod filter;
mod graph;
mod id_set;
mod index;
mod indexing;
mod matrix;
mod postgres;
mod query;
mod row_type;
mod segment;
mod store;
mod top_k;
mod writer;

pub use backend::{IndexLocation, ProgressFn, SearchIndex, SearchRequest, index_location};
pub use description::IndexDescription;
pub use error::{Error, Result};
pub use evaluate::{RecallReport, RecallRow};
pub use filter::{Comparison, Filter, Value};
pub use graph::GraphConfig;
pub use id_set::{IdSet, ItemId};
pub use index::{CANDIDATES, Index, SearchOptions};
pub use indexing::{IndexReport, IndexSettings, index_set, to_vectors};
pub use postgres::{PostgresIndex, PostgresLocation, PostgresWriter};
pub use query::{QueryPart, combine};
pub use row_type::RowType;
pub use store::{Item, NewItem, Stamp};
pub use top_k::Hit;
pub use writer::{IndexWriter, ItemWriter};
