//! The index of a shard: the place of each sample in the tar. It makes a plain tar readable by index.
//!
//! # The file
//! `SHARD.tar.index` is little-endian: the magic, the tar's size and modification time in nanoseconds, the
//! number of samples, the number of samples whose key occurs more than once, and the length of the reason why
//! the tar is broken (0 if it is complete); then for each sample its first byte, its length and the end of
//! its key; then the keys; then for each sample whose key occurs more than once its number and the first byte
//! of the other; then the reason. It is written under a temporary name and renamed, and rebuilt when the
//! tar's size or time differs.
//!
//! The number in the magic changes with the definition of a sample: older indices are rebuilt.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::walk::{Found, walk};
use mm_image::{GIT_LFS_POINTER, is_git_lfs_pointer};

use crate::file_kind::{Compression, HEAD_BYTES};
use crate::{Error, Fault, Result};

const MAGIC: &[u8; 16] = b"mm shard index 2";
/// The extension of an index file.
pub(super) const INDEX_EXTENSION: &str = "index";

const HEAD: usize = 16 + 5 * 8;
const ENTRY: usize = 3 * 8;
const APART: usize = 2 * 8;

/// The limit on the length of a key or reason. A damaged index may have any length.
const LONGEST: usize = 1 << 16;

/// The bytes of an index.
enum Place {
    File(File),
    /// In memory, where no file could be written.
    Memory(Vec<u8>),
}

/// The open index of one shard. It takes little memory.
pub(super) struct Index {
    place: Place,
    counts: Counts,
    tar_bytes: u64,
}

/// The lengths in the head of an index.
#[derive(Clone, Copy)]
struct Counts {
    samples: usize,
    /// The number of samples whose key occurs more than once.
    apart: usize,
    /// The length of the reason in bytes.
    reason: usize,
}

impl Counts {
    fn of(head: &[u8]) -> Option<Self> {
        let number = |at| number(head, at).map(|number| number as usize);
        Some(Self { samples: number(32)?, apart: number(40)?, reason: number(48)? })
    }
}

/// The summary of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub samples: usize,
    /// The reason why the rest of the tar cannot be read, if it cannot.
    pub broken: Option<String>,
    /// The size of the tar in bytes.
    pub bytes: u64,
}

/// The place of a sample in its tar: bytes `start..start + length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub start: u64,
    pub length: u64,
}

impl Index {
    /// Opens the index of the tar at `path`, beside the tar or in `folder`, or builds it. An index that
    /// cannot be written is kept in memory, with a warning.
    ///
    /// # Errors
    /// The tar cannot be read.
    pub fn open(path: &Path, folder: Option<&Path>) -> Result<Self> {
        let io = Error::io(path);
        let tar = File::open(path).and_then(|tar| Ok((tar.metadata()?, tar)));
        let (metadata, tar) = tar.map_err(io)?;
        let stamp = [
            metadata.len(),
            (metadata.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec() as u64),
        ];
        let place = place(path, folder);
        if let Some(index) = Self::of_file(&place, stamp) {
            return Ok(index);
        }
        check_plain(path, &tar)?;
        let bytes = build(tar, stamp).map_err(Error::io(path))?;
        let index = match write(&place, &bytes) {
            Ok(()) => Self::of_file(&place, stamp),
            Err(error) => {
                let place = place.display();
                tracing::warn!(
                    "{place} cannot be written, so that {} is indexed at every start: {error}; set index_dir \
                     to another folder",
                    path.display()
                );
                None
            }
        };
        index
            .or_else(|| {
                let counts = Counts::of(&bytes)?;
                Some(Self { place: Place::Memory(bytes), counts, tar_bytes: stamp[0] })
            })
            .ok_or_else(|| Error::Setting(format!("{}: its index cannot be read back", path.display())))
    }

    /// The index in a file, if it is complete and matches the tar.
    fn of_file(path: &Path, stamp: [u64; 2]) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        let fits = head[..16] == *MAGIC && number(&head, 16)? == stamp[0] && number(&head, 24)? == stamp[1];
        let counts = Counts::of(&head)?;
        let Counts { samples, apart, reason } = counts;
        let entries = samples.checked_mul(ENTRY)?.checked_add(HEAD)?;
        let length = file.metadata().ok()?.len();
        let index = Self { place: Place::File(file), counts, tar_bytes: stamp[0] };
        let keys = match samples {
            0 => 0,
            _ if (entries as u64) > length => return None,
            _ => index.entry(samples - 1)?.1,
        };
        let rest = apart.checked_mul(APART)?.checked_add(reason)?;
        (fits && (entries as u64).checked_add(keys)?.checked_add(rest as u64)? == length).then_some(index)
    }

    /// The number of samples that can be read.
    pub fn samples(&self) -> usize {
        self.counts.samples
    }

    /// The summary of the shard.
    pub fn summary(&self) -> Summary {
        let Counts { samples, apart, reason } = self.counts;
        let read = || {
            let bytes = self.read(self.keys_end()? + (apart * APART) as u64, reason)?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let broken = (reason > 0).then(|| read().unwrap_or_else(|| "its index cannot be read".into()));
        Summary { samples, broken, bytes: self.tar_bytes }
    }

    /// The first byte of another sample of the same key, if there is one.
    pub fn other_place(&self, sample: usize) -> Option<u64> {
        let begin = self.keys_end()?;
        let pair = |place: usize| {
            let bytes = self.read(begin + (place * APART) as u64, APART)?;
            Some((number(&bytes, 0)?, number(&bytes, 8)?))
        };
        let (mut low, mut high) = (0, self.counts.apart);
        while low < high {
            let middle = low.midpoint(high);
            match pair(middle)? {
                (number, other) if number == sample as u64 => return Some(other),
                (number, _) if number < sample as u64 => low = middle + 1,
                _ => high = middle,
            }
        }
        None
    }

    /// The end of the keys in the index.
    fn keys_end(&self) -> Option<u64> {
        let keys = self
            .counts
            .samples
            .checked_sub(1)
            .map_or(Some(0), |last| self.entry(last).map(|(_, end)| end))?;
        (self.entries_end()).checked_add(keys)
    }

    fn entries_end(&self) -> u64 {
        (HEAD + self.counts.samples * ENTRY) as u64
    }

    /// Whether the index could not be written to a file.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// The place of a sample; `None` where the index cannot be read.
    pub fn extent(&self, sample: usize) -> Option<Extent> {
        self.entry(sample).map(|(extent, _)| extent)
    }

    /// The key of a sample; `None` where the index cannot be read.
    pub fn key(&self, sample: usize) -> Option<String> {
        let start = if sample == 0 { 0 } else { self.entry(sample - 1)?.1 };
        let length = self.entry(sample)?.1.checked_sub(start)?;
        let bytes = self.read(self.entries_end() + start, usize::try_from(length).ok()?)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn entry(&self, sample: usize) -> Option<(Extent, u64)> {
        let bytes = self.read((HEAD + sample * ENTRY) as u64, ENTRY)?;
        Some((Extent { start: number(&bytes, 0)?, length: number(&bytes, 8)? }, number(&bytes, 16)?))
    }

    fn read(&self, start: u64, length: usize) -> Option<Vec<u8>> {
        match &self.place {
            Place::File(file) if length <= LONGEST => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start).ok()?;
                Some(bytes)
            }
            Place::File(_) => None,
            Place::Memory(bytes) => {
                bytes.get(start as usize..(start as usize).checked_add(length)?).map(<[u8]>::to_vec)
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// The path of the index: beside the tar, or in `folder` under the tar's full path, so that names do not
/// clash.
fn place(path: &Path, folder: Option<&Path>) -> PathBuf {
    let name = match folder {
        None => path.to_owned(),
        Some(folder) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            folder
                .join(whole.to_string_lossy().trim_start_matches('/').replace('%', "%25").replace('/', "%2f"))
        }
    };
    let mut name = name.into_os_string();
    name.push(".");
    name.push(INDEX_EXTENSION);
    name.into()
}

fn write(place: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = place.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Other users read the shards, too; by default temporary files are private.
    let readable = Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".index-").permissions(readable).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(place)?;
    Ok(())
}

/// # Errors
/// The tar is compressed or a Git LFS pointer; the message has a way out.
fn check_plain(path: &Path, tar: &File) -> Result<()> {
    let mut head = [0; HEAD_BYTES];
    let read = tar.read_at(&mut head, 0).map_err(Error::io(path))?;
    let bad = |reason: String| Err(Error::bad(Fault::Shard, reason));
    match Compression::of(&head[..read]) {
        None if is_git_lfs_pointer(&head[..read]) => bad(GIT_LFS_POINTER.into()),
        None => Ok(()),
        Some(kind @ (Compression::Gzip | Compression::Zstd)) => bad(format!(
            "{0}-compressed, so that it cannot be read by index: decompress it with `{0} -dc`, or set \
             streamed = true and samples = N",
            kind.program()
        )),
        Some(kind) => bad(kind.unread(path)),
    }
}

/// Builds the bytes of the index of a tar.
fn build(tar: File, stamp: [u64; 2]) -> std::io::Result<Vec<u8>> {
    let Found { samples, other_places: apart, broken } = walk(&tar, stamp[0])?;
    let mut bytes = MAGIC.to_vec();
    let reason = broken.unwrap_or_default();
    for number in [stamp[0], stamp[1], samples.len() as u64, apart.len() as u64, reason.len() as u64] {
        bytes.extend(number.to_le_bytes());
    }
    let mut end_of_key = 0;
    for (extent, key) in &samples {
        end_of_key += key.len() as u64;
        for number in [extent.start, extent.length, end_of_key] {
            bytes.extend(number.to_le_bytes());
        }
    }
    samples.iter().for_each(|(_, key)| bytes.extend(key.as_bytes()));
    apart
        .iter()
        .for_each(|(number, other)| bytes.extend([number.to_le_bytes(), other.to_le_bytes()].as_flattened()));
    bytes.extend(reason.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tar;
    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn an_index_finds_each_sample_and_is_read_back() {
        let long = format!("{}/deep", "long".repeat(60));
        let bytes =
            tar(&[("x.jpg", b"1"), ("x.txt", b"one"), (&format!("{long}.jpg"), &[7; 2000]), ("z.jpg", b"")]);
        let (folder, path) = written(&bytes);
        for _ in 0..2 {
            let index = Index::open(&path, None).unwrap();
            let summary = index.summary();
            assert_eq!((summary.samples, summary.broken), (3, None));
            assert_eq!(
                (0..3).map(|sample| index.key(sample).unwrap()).collect::<Vec<_>>(),
                ["x", &long, "z"]
            );
            assert_eq!(index.extent(0).unwrap(), Extent { start: 0, length: 2048 });
            let next = index.extent(1).unwrap();
            assert_eq!(index.extent(2).unwrap().start, next.start + next.length);
            let written = std::fs::metadata(folder.path().join("a.tar.index")).unwrap();
            assert_eq!(written.mode() & 0o444, 0o444);
        }
    }

    #[test]
    fn a_sample_with_a_repeated_key_has_the_place_of_the_other() {
        let files =
            ["a.jpg", "b.jpg", "b.txt", "a.txt", "c.jpg", "d.jpg", "c.txt"].map(|name| (name, &b"x"[..]));
        let (_folder, path) = written(&tar(&files));
        for folder in [None, Some(Path::new("/proc/none"))] {
            let index = Index::open(&path, folder).unwrap();
            let places: Vec<Option<u64>> =
                (0..index.samples()).map(|sample| index.other_place(sample)).collect();
            assert_eq!(places, [Some(3072), None, Some(0), Some(6144), None, Some(4096)]);
            assert_eq!(
                index.summary(),
                Summary { samples: 6, broken: None, bytes: std::fs::metadata(&path).unwrap().len() }
            );
        }
    }

    #[test]
    fn an_index_of_an_older_version_is_rebuilt() {
        let (_folder, path) =
            written(&tar(&[("a.jpg", b"1"), ("a.txt", b"1"), ("a.jpg", b"2"), ("a.txt", b"2")]));
        let metadata = std::fs::metadata(&path).unwrap();
        let time = metadata.mtime() as u64 * 1_000_000_000 + metadata.mtime_nsec() as u64;
        // As version 1 wrote it, where all adjacent members of one key were one sample.
        let mut before = b"mm shard index 1".to_vec();
        for number in [metadata.len(), time, 1, 0, 0, 4096, 1] {
            before.extend(number.to_le_bytes());
        }
        std::fs::write(path.with_extension("tar.index"), [&before[..], b"a"].concat()).unwrap();
        assert_eq!(Index::open(&path, None).unwrap().samples(), 2);
    }

    #[test]
    fn an_unreadable_tar_is_an_error_with_a_way_out() {
        let message_of =
            |bytes: &[u8]| Index::open(&written(bytes).1, None).err().map(|error| error.to_string());
        let gzip = message_of(b"\x1f\x8b\x08\x00").unwrap();
        assert!(
            gzip.contains("gzip-compressed")
                && gzip.contains("`gzip -dc`")
                && gzip.contains("streamed = true"),
            "{gzip}"
        );
        assert!(message_of(b"\x28\xb5\x2f\xfd").unwrap().contains("`zstd -dc`"));
        let xz = message_of(b"\xfd7zXZ\0").unwrap();
        assert!(xz.contains("\"pipe:xz -dc ") && xz.contains("a.tar"), "{xz}");
        let pointer =
            message_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n").unwrap();
        assert_eq!(pointer, GIT_LFS_POINTER);
    }

    #[test]
    fn a_changed_tar_or_a_broken_index_is_indexed_again() {
        let (_folder, path) = written(&tar(&[("x.jpg", b"1")]));
        let samples = || Index::open(&path, None).unwrap().summary().samples;
        assert_eq!(samples(), 1);
        std::fs::write(&path, tar(&[("x.jpg", b"1"), ("y.jpg", b"1")])).unwrap();
        assert_eq!(samples(), 2);
        let index = path.with_extension("tar.index");
        let whole = std::fs::read(&index).unwrap();
        for length in [0, 20, HEAD + 3, whole.len() - 1] {
            std::fs::write(&index, &whole[..length]).unwrap();
            assert_eq!(samples(), 2);
        }
    }

    #[test]
    fn an_index_can_be_in_another_folder_or_in_memory() {
        let (folder, path) = written(&tar(&[("x.jpg", b"1")]));
        let elsewhere = folder.path().join("indices");
        assert!(Index::open(&path, Some(&elsewhere)).is_ok());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
        let index = Index::open(&path, Some(Path::new("/proc/none"))).unwrap();
        assert_eq!((index.summary().samples, index.key(0).unwrap()), (1, "x".into()));
    }

    #[test]
    fn a_truncated_tar_keeps_complete_samples_and_reports_the_place() {
        let whole = tar(&[("x.jpg", &[1; 700]), ("x.txt", b"one"), ("y.jpg", &[2; 700])]);
        for (length, samples, message) in [
            (100, 0, "broken at byte 0"),
            (512 + 600, 0, "truncated at byte 1112, in x.jpg"),
            (1536 + 1024, 1, "truncated at byte 2560, between two members"),
            (1536 + 1024 + 512 + 1, 1, "truncated at byte 3073, in y.jpg"),
        ] {
            let (_folder, path) = written(&whole[..length]);
            let summary = Index::open(&path, None).unwrap().summary();
            assert_eq!(summary.samples, samples);
            assert!(summary.broken.clone().unwrap().contains(message), "{length}: {:?}", summary.broken);
        }
        let (_folder, path) = written(&tar(&[]));
        assert_eq!(Index::open(&path, None).unwrap().summary().broken.as_deref(), Some("it has no sample"));
    }
}
