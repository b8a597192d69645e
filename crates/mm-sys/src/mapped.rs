//! Memory-mapped files.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

/// The bytes of a file, memory-mapped: pages are loaded on access and shared with other processes.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and private to this value. Another process that truncates the file
        // meanwhile could end this one with SIGBUS, never with a wrong reference: checkpoints are replaced by
        // rename, not rewritten in place.
        Ok(Self(unsafe { memmap2::Mmap::map(&file)? }))
    }

    /// Releases the pages of `bytes`; they are loaded again on access. Without this every page that was read
    /// counts as memory of this process until the map is dropped.
    pub fn release(&self, bytes: Range<usize>) {
        if bytes.is_empty() || bytes.end > self.0.len() {
            return;
        }
        // SAFETY: the map is shared, read-only and backed by a file, so a dropped page is read again from the
        // file with the same content: no reference to it sees a change.
        let released = unsafe {
            self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len())
        };
        drop(released); // only advice: memory that stays is not an error
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
