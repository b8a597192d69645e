//! What `cargo xtask bench search` measures of ours: building an index of synthetic rows, exact search and
//! the graph. Each work prints one line of JSON, as `xtask/peers/search.py` does for the peers.
//!
//! `bench_search rows FOLDER N` writes N clustered rows and 1,000 queries; `bench_search build FOLDER` makes
//! an index of them with a graph, and the true neighbours; `bench_search search FOLDER exact|graph` searches.

use mm_core::peak_memory;
use mm_search::{
    GraphConfig, Index, IndexDescription, IndexWriter, ItemWriter, NewItem, RowType, SearchOptions, Stamp,
};
use mm_testing::normal;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;
use tch::{Kind, Tensor};

const DIM: usize = 512;
const K: usize = 10;
const QUERIES: usize = 1000;
const CLUSTERS: i64 = 1000;
/// Rows that are made and added at once.
const PART: usize = 20_000;
const CANDIDATES: [usize; 11] = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["rows", folder, count] => make_rows(Path::new(folder), count.parse()?),
        ["build", folder] => build(Path::new(folder)),
        ["search", folder, "exact"] => search(Path::new(folder), false),
        ["search", folder, "graph"] => search(Path::new(folder), true),
        _ => Err("rows FOLDER N, build FOLDER or search FOLDER exact|graph is needed".into()),
    }
}

/// Unit rows around random centers, the noise as large as the centers.
fn make_rows(folder: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(folder)?;
    let centers = normal(0, &[CLUSTERS, DIM as i64]);
    let part = |seed: u64, count: usize| -> Result<Vec<f32>> {
        let cluster = mm_testing::integers(seed, 0..CLUSTERS, &[count as i64]);
        let rows = centers.index_select(0, &cluster) + normal(seed + 1, &[count as i64, DIM as i64]);
        let rows = &rows / rows.norm_scalaropt_dim(2, [1i64].as_slice(), true);
        Ok(Vec::try_from(rows.to_kind(Kind::Float).view([-1]))?)
    };
    let write = |name: &str, count: usize, seed: u64| -> Result<()> {
        let mut out = BufWriter::new(File::create(folder.join(name))?);
        for start in (0..count).step_by(PART) {
            for x in part(seed + 2 * start as u64, PART.min(count - start))? {
                out.write_all(&x.to_le_bytes())?;
            }
        }
        Ok(out.flush()?)
    };
    write("rows.f32", count, 1)?;
    write("queries.f32", QUERIES, 1 << 40)
}

fn read_rows(file: &Path) -> Result<Vec<Vec<f32>>> {
    let bytes = fs::read(file)?;
    let numbers = Tensor::from_data_size(&bytes, &[(bytes.len() / 4 / DIM) as i64, DIM as i64], Kind::Float);
    Ok(mm_search::to_vectors(&numbers)?)
}

/// Makes the index, then its graph, then the true neighbours of the queries as u64.
fn build(folder: &Path) -> Result<()> {
    let model = folder.join("model");
    fs::create_dir_all(&model)?;
    fs::write(model.join("config.json"), "{}")?;
    let index = folder.join("index");
    if index.exists() {
        fs::remove_dir_all(&index)?;
    }
    let description = IndexDescription::new(&model.to_string_lossy(), DIM, RowType::F32)?;
    let bytes = mm_sys::MappedFile::open(&folder.join("rows.f32"))?;
    let begun = Instant::now();
    let mut writer = IndexWriter::open(&index, &description, "rows")?;
    for (part, bytes) in bytes.chunks(PART * DIM * 4).enumerate() {
        for (at, row) in bytes.chunks_exact(DIM * 4).enumerate() {
            let row: Vec<f32> = row.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
            let key = (part * PART + at).to_string();
            let stamp = Stamp::new(None, key.as_bytes());
            let metadata = serde_json::json!({ "number": part * PART + at });
            writer.add(NewItem { key, stamp, metadata, thumbnail: None }, &row)?;
        }
        writer.commit()?;
    }
    drop(writer);
    let rows_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    Index::build_graph(&index, GraphConfig::default(), &|done, total| eprint!("\r{done}/{total}"))?;
    let build_seconds = begun.elapsed().as_secs_f64();
    let index = Index::open(&index)?;
    let queries = read_rows(&folder.join("queries.f32"))?;
    let numbers: Vec<u64> = index.ids();
    let truth = index.search(&queries, &SearchOptions { k: K, among: None, candidates: None })?;
    let mut out = BufWriter::new(File::create(folder.join("truth.u64"))?);
    for hit in truth.iter().flatten() {
        let number = numbers.binary_search(&hit.id).map_err(|_| "an item without a number")?;
        out.write_all(&(number as u64).to_le_bytes())?;
    }
    out.flush()?;
    let peak_mb = peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64;
    let line = serde_json::json!({
        "build_seconds": build_seconds, "rows_seconds": rows_seconds, "peak_mb": peak_mb,
    });
    println!("{line}");
    Ok(())
}

fn search(folder: &Path, with_graph: bool) -> Result<()> {
    let queries = read_rows(&folder.join("queries.f32"))?;
    let before = resident_mb()?;
    let begun = Instant::now();
    let index = Index::open(&folder.join("index"))?;
    let open_seconds = begun.elapsed().as_secs_f64();
    let exact = SearchOptions { k: K, among: None, candidates: None };
    let mut searches = Vec::new();
    if with_graph {
        let ids = index.ids();
        let numbers = fs::read(folder.join("truth.u64"))?;
        let numbers = numbers.as_chunks().0.iter().map(|&number| u64::from_le_bytes(number) as usize);
        let truth: Vec<u64> = numbers.map(|number| ids[number]).collect();
        drop(ids);
        for candidates in CANDIDATES {
            let options = SearchOptions { candidates: Some(candidates), ..exact.clone() };
            index.search(&queries[..16], &options)?;
            let begun = Instant::now();
            let found = index.search(&queries, &options)?;
            let per_second = queries.len() as f64 / begun.elapsed().as_secs_f64();
            let of_query = |(hits, truth): (&Vec<mm_search::Hit>, &[u64])| {
                hits.iter().filter(|hit| truth.contains(&hit.id)).count()
            };
            let hits: usize = found.iter().zip(truth.chunks(K)).map(of_query).sum();
            let recall = hits as f64 / truth.len() as f64;
            searches
                .push(serde_json::json!({ "width": candidates, "recall": recall, "per_second": per_second }));
        }
    } else {
        index.search(&queries[..16], &exact)?;
        let begun = Instant::now();
        index.search(&queries, &exact)?;
        let per_second = queries.len() as f64 / begun.elapsed().as_secs_f64();
        searches.push(serde_json::json!({ "width": 0, "recall": 1.0, "per_second": per_second }));
    }
    let [memory_mb, mapped_mb] = resident_mb()?;
    let (memory_mb, mapped_mb) = (memory_mb - before[0], mapped_mb - before[1]);
    let line = serde_json::json!({
        "build_seconds": 0.0, "open_seconds": open_seconds, "memory_mb": memory_mb, "mapped_mb": mapped_mb,
        "searches": searches,
    });
    println!("{line}");
    Ok(())
}

/// Memory that this process holds now, and pages of mapped files, which the system may drop at any time.
fn resident_mb() -> Result<[f64; 2]> {
    let status = fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    };
    Ok([of("RssAnon:")?, of("RssFile:")?])
}
