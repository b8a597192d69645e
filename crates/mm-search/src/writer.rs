//! Adding items to an index.

use crate::description::IndexDescription;
use crate::id_set::item_id;
use crate::segment::SegmentWriter;
use crate::store::{self, KeyDigest, NewItem, Stamp, Store};
use crate::{Error, ItemId, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Adds items of one data set to an index, in a folder or elsewhere. An item counts once
/// [`commit`](ItemWriter::commit) has returned; a killed process loses what came after, and nothing else.
pub trait ItemWriter: Send {
    /// The committed items of the data set, by the first 128 bits of the SHA-256 of their keys.
    ///
    /// # Errors
    /// The index cannot be read.
    fn known(&mut self) -> Result<HashMap<KeyDigest, (ItemId, Stamp)>>;

    /// Adds an item with its unit row, in place of the one of the same key.
    ///
    /// # Errors
    /// The row has another length than the index.
    fn add(&mut self, item: NewItem, row: &[f32]) -> Result<()>;

    /// Notes that the file of an item changed in nothing but its time.
    fn touch(&mut self, id: ItemId, stamp: Stamp);

    /// The number of items that are not committed.
    fn pending(&self) -> usize;

    /// Writes everything that was added: all of it, or nothing where it fails.
    ///
    /// # Errors
    /// The index cannot be written.
    fn commit(&mut self) -> Result<()>;

    /// Deletes items.
    ///
    /// # Errors
    /// As [`ItemWriter::commit`].
    fn delete(&mut self, ids: &[ItemId]) -> Result<()>;
}

/// Adds items of one data set to an index in a folder. Several processes may write to one index that exists,
/// each through a writer of its own.
pub struct IndexWriter {
    folder: PathBuf,
    set: String,
    description: IndexDescription,
    store: Store,
    segment: SegmentWriter,
    added: Vec<NewItem>,
    bytes: Vec<u8>,
    touched: Vec<(ItemId, Stamp)>,
}

impl IndexWriter {
    /// Opens the index in `folder` for items of the data set `set`; without an index, one of `description` is
    /// created.
    ///
    /// # Errors
    /// The index is of another model or another type of rows, or a file cannot be read or written.
    pub fn open(folder: &Path, description: &IndexDescription, set: &str) -> Result<Self> {
        let io = |source| mm_core::Error::io("create", folder, source);
        if IndexDescription::file(folder).exists() {
            IndexDescription::read(folder)?.accept(folder, description)?;
        } else {
            let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
            if !is_empty {
                return Err(Error::index(
                    folder,
                    "it has files but no index.json: name a new or empty folder",
                ));
            }
            std::fs::create_dir_all(folder).map_err(io)?;
            description.write(folder)?;
        }
        let mut store = Store::open_or_create(folder)?;
        let row_bytes = description.rows.row_bytes(description.dim);
        let segment = SegmentWriter::take(folder, row_bytes, &mut store)?;
        Ok(Self {
            folder: folder.to_owned(),
            set: set.to_owned(),
            description: description.clone(),
            store,
            segment,
            added: Vec::new(),
            bytes: Vec::new(),
            touched: Vec::new(),
        })
    }
}

impl ItemWriter for IndexWriter {
    fn known(&mut self) -> Result<HashMap<KeyDigest, (ItemId, Stamp)>> {
        self.store.known(&self.set)
    }

    fn add(&mut self, item: NewItem, row: &[f32]) -> Result<()> {
        if row.len() != self.description.dim {
            let problem = format!("{}: {} numbers, not {}", item.key, row.len(), self.description.dim);
            return Err(Error::index(&self.folder, problem));
        }
        self.description.rows.encode(row, &mut self.bytes);
        self.added.push(item);
        Ok(())
    }

    fn touch(&mut self, id: ItemId, stamp: Stamp) {
        self.touched.push((id, stamp));
    }

    fn pending(&self) -> usize {
        self.added.len()
    }

    fn commit(&mut self) -> Result<()> {
        if self.added.is_empty() && self.touched.is_empty() {
            return Ok(());
        }
        let (segment, first, set) = (self.segment.id(), self.segment.rows(), &self.set);
        let rows = first + self.added.len();
        if rows > u32::MAX as usize {
            return Err(Error::index(&self.folder, "a segment holds at most 4,294,967,295 rows"));
        }
        if !self.added.is_empty() {
            self.segment.append(&self.bytes)?;
        }
        let (added, touched) = (&self.added, &self.touched);
        self.store.write(|transaction| {
            for (row, item) in added.iter().enumerate() {
                store::insert(transaction, set, item_id(segment, first + row), item)?;
            }
            for (id, stamp) in touched {
                store::touch(transaction, *id, stamp)?;
            }
            transaction
                .execute("UPDATE segments SET rows = ?2 WHERE id = ?1", [i64::from(segment), rows as i64])?;
            Ok(())
        })?;
        self.segment.advance(self.added.len());
        self.added.clear();
        self.bytes.clear();
        self.touched.clear();
        Ok(())
    }

    fn delete(&mut self, ids: &[ItemId]) -> Result<()> {
        self.store.write(|transaction| ids.iter().try_for_each(|&id| store::delete(transaction, id)))
    }
}
