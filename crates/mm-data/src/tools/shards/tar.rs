//! Writes a shard: under a temporary name, with its checksum, then synced and renamed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::sources::webdataset::Member;
use crate::{Error, Result};

/// A tar of samples. Its bytes depend on the samples alone: no times, no owners.
pub(super) struct Tar<W: Write> {
    builder: Builder<Summed<W>>,
}

impl<W: Write> Tar<W> {
    pub fn new(to: W) -> Self {
        Self { builder: Builder::new(Summed { to, sha256: Sha256::new(), bytes: 0 }) }
    }

    pub fn append(&mut self, key: &str, members: &[Member]) -> std::io::Result<()> {
        for Member { extension, bytes } in members {
            let mut header = Header::new_ustar();
            header.set_path(format!("{key}.{extension}"))?;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            self.builder.append(&header, &bytes[..])?;
        }
        Ok(())
    }

    /// Ends the tar. Returns its size, its SHA-256 in hexadecimal, and the writer.
    pub fn finish(self) -> std::io::Result<(u64, String, W)> {
        let Summed { to, sha256, bytes } = self.builder.into_inner()?;
        Ok((bytes, hexadecimal(sha256), to))
    }
}

/// A tar file that gets its final name when it is complete.
pub(super) struct TarFile {
    tar: Tar<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
}

impl TarFile {
    pub fn create(path: PathBuf) -> Result<Self> {
        let part = path.with_extension("tar.part");
        let file = File::create(&part).map_err(Error::io(&part))?;
        Ok(Self { tar: Tar::new(BufWriter::with_capacity(1 << 20, file)), part, path })
    }

    pub fn append(&mut self, key: &str, members: &[Member]) -> Result<()> {
        self.tar.append(key, members).map_err(Error::io(&self.part))
    }

    /// Syncs and renames the file. Returns its size and SHA-256.
    pub fn finish(self) -> Result<(u64, String)> {
        let Self { tar, part, path } = self;
        let synced = || -> std::io::Result<(u64, String)> {
            let (bytes, sha256, file) = tar.finish()?;
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            Ok((bytes, sha256))
        };
        let written = synced().map_err(Error::io(&part))?;
        std::fs::rename(&part, &path).map_err(Error::io(&path))?;
        Ok(written)
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let mut sum = Summed { to: std::io::sink(), sha256: Sha256::new(), bytes: 0 };
    let mut file = File::open(path).map_err(Error::io(path))?;
    std::io::copy(&mut file, &mut sum).map_err(Error::io(path))?;
    Ok(hexadecimal(sum.sha256))
}

fn hexadecimal(sha256: Sha256) -> String {
    sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A writer that computes size and SHA-256.
struct Summed<W> {
    to: W,
    sha256: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(buffer)?;
        self.sha256.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
