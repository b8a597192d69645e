//! Approximate search: a graph of near neighbours (HNSW; Malkov and Yashunin, 1603.09320), of `usearch`.
//!
//! The graph holds rows in 8 bits and finds candidates, whose stored rows are then compared exactly: that is
//! smaller and faster than a graph of the stored rows at the same recall (docs/search.md has the numbers). It
//! covers the rows that were there when it was written; later ones are compared one by one.

use crate::id_set::place_of;
use crate::segment::Rows;
use crate::{Error, IdSet, ItemId, Result};
use mm_core::checkpoint::{hex, write_atomically};
use mm_core::{read_json, write_json};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use usearch::{Index as Hnsw, IndexOptions, MetricKind, ScalarKind};

/// How a graph is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphConfig {
    /// Neighbours of a row: M in the paper.
    pub connectivity: usize,
    /// Candidates for the neighbours of a new row: efConstruction in the paper.
    pub expansion: usize,
}

impl Default for GraphConfig {
    /// Distances of 8-bit rows are cheap, so more candidates than the usual 128 make up for their rounding.
    fn default() -> Self {
        Self { connectivity: 16, expansion: 192 }
    }
}

/// `graph.json`: what a graph covers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphDescription {
    config: GraphConfig,
    file: String,
    bytes: u64,
    /// The SHA-256 of the file's first and last 64 kB.
    digest: String,
    /// The number of covered rows of each segment.
    segments: BTreeMap<u32, usize>,
    /// The number of rows in the graph.
    rows: usize,
}

/// A graph over the rows of an index.
pub(crate) struct Graph {
    hnsw: Hnsw,
    description: GraphDescription,
}

fn file_of_description(folder: &Path) -> PathBuf {
    folder.join("graph.json")
}

fn error(folder: &Path, file: &str, error: impl ToString) -> Error {
    Error::index(folder, format!("{file}: {}", error.to_string()))
}

fn new_hnsw(folder: &Path, dim: usize, config: GraphConfig) -> Result<Hnsw> {
    let options = IndexOptions {
        dimensions: dim,
        metric: MetricKind::IP,
        quantization: ScalarKind::I8,
        connectivity: config.connectivity,
        expansion_add: config.expansion,
        expansion_search: 0,
        multi: false,
    };
    Hnsw::new(&options).map_err(|problem| error(folder, "graph", problem))
}

impl Graph {
    /// Opens the graph of the index in `folder`, memory-mapped; none where there is none.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn open(folder: &Path, dim: usize) -> Result<Option<Self>> {
        let Some(description) = read_description(folder)? else { return Ok(None) };
        let hnsw = new_hnsw(folder, dim, description.config)?;
        let file = folder.join(&description.file);
        hnsw.view(&file.to_string_lossy()).map_err(|problem| error(folder, &description.file, problem))?;
        hnsw.change_expansion_search(1); // a search then has the number of candidates that it names
        Ok(Some(Self { hnsw, description }))
    }

    /// Adds the rows that the graph of the index in `folder` does not cover, without `deleted` ones, and
    /// writes it. `progress` gets the number of rows done and their total.
    ///
    /// # Errors
    /// The graph is damaged, memory runs out, or the disk refuses: the graph that was there stays.
    pub fn update(
        folder: &Path,
        rows: &Rows,
        deleted: &IdSet,
        config: GraphConfig,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<()> {
        let old = read_description(folder)?.filter(|old| old.config == config);
        let hnsw = new_hnsw(folder, rows.dim(), config)?;
        let failed = |problem: &dyn ToString| error(folder, "graph", problem.to_string());
        let from = |segment: u32| -> usize {
            old.as_ref().and_then(|old| old.segments.get(&segment)).copied().unwrap_or_default()
        };
        if let Some(old) = &old {
            let file = folder.join(&old.file);
            hnsw.load(&file.to_string_lossy()).map_err(|problem| failed(&problem))?;
            for id in deleted.iter().filter(|&id| hnsw.contains(id)) {
                hnsw.remove(id).map_err(|problem| failed(&problem))?;
            }
        }
        let all = rows.ids(deleted).into_iter();
        let new: Vec<ItemId> = all.filter(|&id| place_of(id).1 >= from(place_of(id).0)).collect();
        let threads = rayon::current_num_threads();
        hnsw.reserve_capacity_and_threads(hnsw.size() + new.len(), threads)
            .map_err(|problem| failed(&problem))?;
        let total = new.len();
        for (at, part) in new.chunks(PROGRESS_ROWS).enumerate() {
            part.par_iter().with_min_len(64).try_for_each(|&id| match rows.row(id) {
                Some(row) => hnsw.add(id, &row).map_err(|problem| failed(&problem)),
                None => Ok(()),
            })?;
            progress((at * PROGRESS_ROWS + part.len()).min(total), total);
        }
        let generation = old.as_ref().and_then(|old| generation_of(&old.file)).map_or(1, |last| last + 1);
        let description = save(folder, &hnsw, config, generation, rows.segments().collect())?;
        write_json(&file_of_description(folder), &description)?;
        if let Some(old) = old {
            let _ = std::fs::remove_file(folder.join(old.file)); // readers that have it mapped keep it
        }
        Ok(())
    }

    /// The time at which the graph of the index in `folder` was written; none without a graph.
    pub fn written(folder: &Path) -> Option<SystemTime> {
        file_of_description(folder).metadata().and_then(|file| file.modified()).ok()
    }

    /// The number of rows of a segment that the graph covers.
    pub fn covers(&self, segment: u32) -> usize {
        self.description.segments.get(&segment).copied().unwrap_or_default()
    }

    /// The number of rows in the graph.
    pub fn len(&self) -> usize {
        self.description.rows
    }

    /// About `count` candidates for the neighbours of `query`, among the items that `accepts`.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn candidates(
        &self,
        query: &[f32],
        count: usize,
        accepts: Option<&(dyn Fn(ItemId) -> bool + Sync)>,
    ) -> Result<Vec<ItemId>> {
        let found = match accepts {
            None => self.hnsw.search(query, count),
            Some(accepts) => self.hnsw.filtered_search(query, count, accepts),
        };
        Ok(found.map_err(|problem| Error::Query(format!("the graph: {problem}")))?.keys)
    }
}

/// Rows that are added between two reports of progress.
const PROGRESS_ROWS: usize = 10_000;

fn file_of(generation: u64) -> String {
    format!("graph-{generation}.usearch")
}

fn generation_of(file: &str) -> Option<u64> {
    file.strip_prefix("graph-")?.strip_suffix(".usearch")?.parse().ok()
}

/// Reads `graph.json` and checks the file of the graph; none without a graph.
fn read_description(folder: &Path) -> Result<Option<GraphDescription>> {
    let file = file_of_description(folder);
    if !file.exists() {
        return Ok(None);
    }
    let description: GraphDescription = read_json(&file)?;
    let file = folder.join(&description.file);
    let is_named = generation_of(&description.file).is_some();
    match is_named.then(|| digest(&file)) {
        Some(Ok((bytes, digest))) if bytes == description.bytes && digest == description.digest => {
            Ok(Some(description))
        }
        _ => {
            let problem = "it is missing, cut off or of another index: remove graph.json and index again";
            Err(error(folder, &description.file, problem))
        }
    }
}

fn save(
    folder: &Path,
    hnsw: &Hnsw,
    config: GraphConfig,
    generation: u64,
    segments: BTreeMap<u32, usize>,
) -> Result<GraphDescription> {
    let file = file_of(generation);
    let path = folder.join(&file);
    write_atomically(&path, |partial| {
        hnsw.save(&partial.to_string_lossy()).map_err(|problem| {
            let source = std::io::Error::other(problem.to_string());
            mm_core::Error::io("write", &path, source)
        })
    })?;
    let (bytes, digest) = digest(&path).map_err(|source| mm_core::Error::io("read", &path, source))?;
    Ok(GraphDescription { config, file, bytes, digest, segments, rows: hnsw.size() })
}

/// The length of a file, and a digest of its ends.
fn digest(file: &Path) -> std::io::Result<(u64, String)> {
    use std::io::{Read, Seek, SeekFrom};
    const END: u64 = 1 << 16;
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    for start in [0, length.saturating_sub(END)] {
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        (&mut file).take(END).read_to_end(&mut part)?;
        hash.update(&part);
    }
    Ok((length, hex(&hash.finalize())))
}
