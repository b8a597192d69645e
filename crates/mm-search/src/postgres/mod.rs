//! An index in a table of PostgreSQL with pgvector, for items of more than one machine.
//!
//! The table holds everything of an item: key, stamp, metadata, thumbnail and embedding (`vector`, or
//! `halfvec` for 16-bit rows); a second one of a single row, its name ending in `_description`, holds the
//! description of the index. A batch of items is one transaction, so a killed process loses what it did not
//! commit and nothing else, and several processes write at once. The graph is pgvector's HNSW index, which
//! PostgreSQL keeps up to date with every write.

mod duplicates;
mod export;
mod filter;
mod graph;
mod location;
mod password;
mod recall;
mod schema;
mod search;
mod writer;

pub use location::PostgresLocation;
pub use search::PostgresIndex;
pub use writer::PostgresWriter;

/// A result with the error of the client.
type SqlResult<T> = std::result::Result<T, ::postgres::Error>;
