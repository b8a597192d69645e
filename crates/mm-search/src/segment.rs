//! Files of rows. A process appends to a segment of its own; the database holds the number of rows that
//! count, so that a row half written by a killed process is no row.

use crate::id_set::{item_id, place_of};
use crate::store::Store;
use crate::{Error, IdSet, ItemId, Result, RowType};
use mm_sys::MappedFile;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file of a segment in the index in `folder`.
fn file_of(folder: &Path, segment: u32) -> PathBuf {
    folder.join("rows").join(format!("{segment:08}.bin"))
}

/// The rows of a segment, memory-mapped.
struct Segment {
    id: u32,
    rows: usize,
    /// None without rows.
    map: Option<MappedFile>,
}

/// The rows of an index.
pub(crate) struct Rows {
    row_type: RowType,
    dim: usize,
    segments: Vec<Segment>,
}

/// A run of rows of a segment.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    segment: u32,
    first: usize,
    bytes: &'a [u8],
}

impl Rows {
    /// Maps the `segments` of the index in `folder`, each with the number of its rows.
    ///
    /// # Errors
    /// A file is missing or shorter than its rows.
    pub fn open(folder: &Path, row_type: RowType, dim: usize, segments: &[(u32, usize)]) -> Result<Self> {
        let open = |&(id, rows): &(u32, usize)| {
            let file = file_of(folder, id);
            let map = (rows > 0).then(|| MappedFile::open(&file)).transpose();
            let map = map.map_err(|source| mm_core::Error::io("read", &file, source))?;
            let (found, expected) = (map.as_ref().map_or(0, |map| map.len()), rows * row_type.row_bytes(dim));
            if found < expected {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let problem = format!("rows/{name} is cut off: {found} bytes of {expected}; index again");
                return Err(Error::index(folder, problem));
            }
            Ok(Segment { id, rows, map })
        };
        let segments = segments.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { row_type, dim, segments })
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn row_type(&self) -> RowType {
        self.row_type
    }

    /// The number of rows, those of deleted items included.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.rows).sum()
    }

    /// The segments with the numbers of their rows.
    pub fn segments(&self) -> impl Iterator<Item = (u32, usize)> {
        self.segments.iter().map(|segment| (segment.id, segment.rows))
    }

    /// The rows in blocks of up to `count`, from row `from(segment)` of each segment on.
    pub fn blocks(&self, count: usize, from: impl Fn(u32) -> usize) -> Vec<Block<'_>> {
        let row_bytes = self.row_type.row_bytes(self.dim);
        let mut blocks = Vec::new();
        for &Segment { id, rows, ref map } in &self.segments {
            let bytes = map.as_ref().map_or(&[][..], |map| &map[..rows * row_bytes]);
            let start = from(id).min(rows);
            let parts = bytes[start * row_bytes..].chunks(count * row_bytes).enumerate();
            blocks.extend(parts.map(|(at, bytes)| Block { segment: id, first: start + at * count, bytes }));
        }
        blocks
    }

    /// The bytes of the row of an item; none where there is no such row.
    pub fn bytes(&self, id: ItemId) -> Option<&[u8]> {
        let (segment, row) = place_of(id);
        let at = self.segments.binary_search_by_key(&segment, |segment| segment.id).ok()?;
        let segment = &self.segments[at];
        let bytes = self.row_type.row_bytes(self.dim);
        let map = segment.map.as_ref().filter(|_| row < segment.rows)?;
        Some(&map[row * bytes..(row + 1) * bytes])
    }

    /// The row of an item; none where there is no such row.
    pub fn row(&self, id: ItemId) -> Option<Vec<f32>> {
        self.bytes(id).map(|bytes| self.row_type.decode(bytes))
    }

    /// The score of an item for `query`; none where there is no such row.
    pub fn score(&self, id: ItemId, query: &[f32]) -> Option<f32> {
        self.bytes(id).map(|bytes| self.row_type.dot(bytes, query))
    }

    /// The ids of all rows that are not `deleted`.
    pub fn ids(&self, deleted: &IdSet) -> Vec<ItemId> {
        let all = self.segments().flat_map(|(segment, rows)| (0..rows).map(move |row| item_id(segment, row)));
        all.filter(|&id| !deleted.contains(id)).collect()
    }
}

impl<'a> Block<'a> {
    /// Each row with its id.
    pub fn rows(self, row_bytes: usize) -> impl Iterator<Item = (ItemId, &'a [u8])> {
        let rows = self.bytes.chunks_exact(row_bytes).enumerate();
        rows.map(move |(at, bytes)| (item_id(self.segment, self.first + at), bytes))
    }

    /// The id of the row `at` of the block.
    pub fn id(self, at: usize) -> ItemId {
        item_id(self.segment, self.first + at)
    }

    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }
}

/// A segment that this process alone appends to, as long as the value lives.
pub(crate) struct SegmentWriter {
    id: u32,
    file: File,
    path: PathBuf,
    rows: usize,
    row_bytes: usize,
}

impl SegmentWriter {
    /// Takes the first segment of `store` that no other process holds, else a new one.
    ///
    /// # Errors
    /// A file cannot be opened or is cut off, or the database fails.
    pub fn take(folder: &Path, row_bytes: usize, store: &mut Store) -> Result<Self> {
        let rows_folder = folder.join("rows");
        fs::create_dir_all(&rows_folder)
            .map_err(|source| mm_core::Error::io("create", &rows_folder, source))?;
        for (id, _) in store.segments()? {
            if let Some(taken) = Self::lock(folder, id, row_bytes, store)? {
                return Ok(taken);
            }
        }
        let id = store.add_segment()?;
        let taken = Self::lock(folder, id, row_bytes, store)?;
        taken.ok_or_else(|| Error::index(folder, format!("another process holds the new segment {id}")))
    }

    fn lock(folder: &Path, id: u32, row_bytes: usize, store: &Store) -> Result<Option<Self>> {
        let path = file_of(folder, id);
        let failed = |source| mm_core::Error::io("open", &path, source);
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(failed)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // Read under the lock: the previous holder may have added rows until it ended.
        let rows = store.segments()?.into_iter().find(|(other, _)| *other == id).map_or(0, |(_, rows)| rows);
        let (found, committed) = (file.metadata().map_err(failed)?.len(), (rows * row_bytes) as u64);
        if found < committed {
            let problem = format!("rows/{id:08}.bin is cut off: {found} bytes of {committed}; index again");
            return Err(Error::index(folder, problem));
        }
        file.set_len(committed).map_err(failed)?; // without the rows that a killed process did not commit
        Ok(Some(Self { id, file, path, rows, row_bytes }))
    }

    /// The id of the segment.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The number of rows that count.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes rows behind those that count, and waits until the disk has them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let start = (self.rows * self.row_bytes) as u64;
        let mut write = || {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.write_all(bytes)?;
            self.file.sync_data()
        };
        write().map_err(|source| mm_core::Error::io("write", &self.path, source).into())
    }

    /// Counts `rows` more rows, which the database has committed.
    pub fn advance(&mut self, rows: usize) {
        self.rows += rows;
    }
}
