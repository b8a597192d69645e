//! What the tests share: an index of random unit rows.

use mm_search::{IndexDescription, IndexWriter, ItemWriter, NewItem, RowType, Stamp};
use mm_testing::normal;
use std::path::{Path, PathBuf};

pub const DIM: usize = 24;

/// A folder with a description of embeddings of `DIM` numbers.
pub struct Place {
    folder: tempfile::TempDir,
    pub description: IndexDescription,
}

impl Place {
    pub fn new(rows: RowType) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let description = description(folder.path(), "model", DIM, rows);
        Self { folder, description }
    }

    /// The folder of the index.
    pub fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn writer(&self, set: &str) -> IndexWriter {
        IndexWriter::open(&self.index(), &self.description, set).unwrap()
    }

    /// Adds `rows`, the items `range` of them, as committed items with the keys 0, 1, ...
    pub fn fill(&self, rows: &[Vec<f32>], range: std::ops::Range<usize>) {
        let mut writer = self.writer("set");
        range.for_each(|at| writer.add(item(at), &rows[at]).unwrap());
        writer.commit().unwrap();
    }
}

/// The description of an index of the model `name`, a folder below `folder`.
pub fn description(folder: &Path, name: &str, dim: usize, rows: RowType) -> IndexDescription {
    let model = folder.join(name);
    std::fs::create_dir_all(&model).unwrap();
    std::fs::write(model.join("config.json"), format!("{{\"name\": \"{name}\"}}")).unwrap();
    IndexDescription::new(model.to_str().unwrap(), dim, rows).unwrap()
}

/// The item `at`; every third one is a cat.
pub fn item(at: usize) -> NewItem {
    let label = if at.is_multiple_of(3) { "cat" } else { "dog" };
    NewItem {
        key: at.to_string(),
        stamp: Stamp::new(None, at.to_string().as_bytes()),
        metadata: serde_json::json!({
            "label": label, "number": at, "caption": format!("A {label} of {at}"),
        }),
        thumbnail: Some(vec![at as u8; 3]),
    }
}

/// `count` random unit rows.
pub fn unit_rows(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let rows = normal(seed, &[count as i64, DIM as i64]);
    let rows = &rows / rows.norm_scalaropt_dim(2, [1i64].as_slice(), true);
    mm_search::to_vectors(&rows).unwrap()
}

/// The numbers of the `k` rows with the greatest products with `query`.
pub fn nearest(rows: &[Vec<f32>], query: &[f32], k: usize, accepts: impl Fn(usize) -> bool) -> Vec<usize> {
    let product =
        |row: &[f32]| row.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut order: Vec<(f64, usize)> =
        (0..rows.len()).filter(|&at| accepts(at)).map(|at| (product(&rows[at]), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.into_iter().take(k).map(|(_, at)| at).collect()
}
