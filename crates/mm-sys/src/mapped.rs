use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// A file's bytes, mapped into memory rather than read: pages come in as they are touched and are shared with other processes.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and private to this value. Another process that truncates the file meanwhile could
        // end this one with SIGBUS, never with a wrong reference: checkpoints are replaced by rename, not rewritten in place.
        Ok(Self(unsafe { memmap2::Mmap::map(&file)? }))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
