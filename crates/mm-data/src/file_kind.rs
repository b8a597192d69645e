//! The kind of a file, detected from its first bytes and not from its name.

use std::path::Path;

use mm_image::{GIT_LFS_POINTER, is_git_lfs_pointer};

use crate::{Error, Fault, Result};

/// The number of first bytes that the kind is detected from.
pub(crate) const HEAD_BYTES: usize = 64;

/// # Errors
/// The file that begins with `head` is a Git LFS pointer.
pub(crate) fn refuse_git_lfs_pointer(path: &Path, head: &[u8]) -> Result<()> {
    if is_git_lfs_pointer(head) {
        return Err(Error::bad(Fault::File, format!("{}: {GIT_LFS_POINTER}", path.display())));
    }
    Ok(())
}

/// The compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Compression {
    /// The compression of a file that begins with these bytes; `None` where it is not compressed.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // `1` to `9` is the block size; the rest is the header of the first block.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// The program that decompresses it with `-dc`.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// The message for a shard with an unsupported compression.
    pub(crate) fn unread(self, path: impl AsRef<Path>) -> String {
        let (program, path) = (self.program(), path.as_ref().display());
        format!("{program}-compressed: unpack it, or name it as \"pipe:{program} -dc {path}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_files_are_distinguished_from_a_tar() {
        assert_eq!(Compression::of(b"\x28\xb5\x2f\xfd\x04\x00"), Some(Compression::Zstd));
        assert_eq!(Compression::of(b"\xfd7zXZ\0\0\x04"), Some(Compression::Xz));
        assert_eq!(Compression::of(b"BZh91AY&SY\x12"), Some(Compression::Bzip2));
        for tar in [&b"BZh9.jpg\0\0\0"[..], b"000.jpg", b"\x1f", b""] {
            assert_eq!(Compression::of(tar), None);
        }
    }
}
