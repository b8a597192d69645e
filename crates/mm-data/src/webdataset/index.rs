//! The index of a shard: where each sample lies in the tar. It makes a plain tar readable by number.
//!
//! # The file
//! `SHARD.tar.index` is little-endian: the magic, the tar's size and time of change in nanoseconds, the number of samples
//! and the length of the reason why the tar is broken (0: it is whole); then of each sample its first byte, its length and where
//! its key ends; then the keys, then the reason. It is written under a temporary name and renamed, and made again when the tar's size or time is
//! another.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::Archive;

use super::members::{key_and_extension, of_sample};
use crate::{Error, Result};

const MAGIC: &[u8; 16] = b"mm shard index 1";
/// What stands behind the name of a shard in that of its index.
pub(super) const INDEX_EXTENSION: &str = "index";

const HEAD: usize = 16 + 4 * 8;
const ENTRY: usize = 3 * 8;

/// The longest key or reason. A spoilt index may ask for any length.
const LONGEST: usize = 1 << 16;

/// Where the index's bytes are.
enum Place {
    File(File),
    /// Where no file could be written.
    Memory(Vec<u8>),
}

/// The index of one shard, open. It holds next to nothing in memory.
pub(super) struct Index {
    place: Place,
    samples: usize,
    /// The bytes of the reason at the end.
    reason: usize,
    tar_bytes: u64,
}

/// What an index says of a whole shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub samples: usize,
    /// Why the rest of the tar cannot be read, if it cannot.
    pub broken: Option<String>,
    /// Bytes of the tar.
    pub bytes: u64,
}

/// Where a sample lies in its tar: bytes `start..start + length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub start: u64,
    pub length: u64,
}

impl Index {
    /// The index of the tar at `path`: as it stands beside the tar or in `folder`, or made now.
    ///
    /// Errors: the tar cannot be read. An index that cannot be written is kept in memory, and said so.
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
        let bytes = build(tar, stamp).map_err(Error::io(path))?;
        let index = match write(&place, &bytes) {
            Ok(()) => Self::of_file(&place, stamp),
            Err(error) => {
                let place = place.display();
                tracing::warn!(
                    "{place} cannot be written, so that {} is indexed at every start: {error}; index_dir names another folder",
                    path.display()
                );
                None
            }
        };
        let head = |bytes: &[u8]| Some((number(bytes, 32)? as usize, number(bytes, 40)? as usize));
        index
            .or_else(|| {
                let (samples, reason) = head(&bytes)?;
                Some(Self { place: Place::Memory(bytes), samples, reason, tar_bytes: stamp[0] })
            })
            .ok_or_else(|| Error::Setting(format!("{}: its index cannot be read back", path.display())))
    }

    /// The index in a file, if it is whole and of the tar as it is now.
    fn of_file(path: &Path, stamp: [u64; 2]) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        let fits = head[..16] == *MAGIC && number(&head, 16)? == stamp[0] && number(&head, 24)? == stamp[1];
        let (samples, reason) = (number(&head, 32)? as usize, number(&head, 40)? as usize);
        let entries = samples.checked_mul(ENTRY)?.checked_add(HEAD)?;
        let length = file.metadata().ok()?.len();
        let index = Self { place: Place::File(file), samples, reason, tar_bytes: stamp[0] };
        let keys = match samples {
            0 => 0,
            _ if (entries as u64) > length => return None,
            _ => index.entry(samples - 1)?.1,
        };
        (fits && (entries as u64).checked_add(keys)?.checked_add(reason as u64)? == length).then_some(index)
    }

    /// How many samples can be found.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Samples, and what is broken.
    pub fn summary(&self) -> Summary {
        let reason = || {
            let keys = self.samples.checked_sub(1).map_or(Some(0), |last| self.entry(last).map(|(_, end)| end))?;
            let bytes = self.read((HEAD + self.samples * ENTRY) as u64 + keys, self.reason)?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let broken = (self.reason > 0).then(|| reason().unwrap_or_else(|| "its index cannot be read".into()));
        Summary { samples: self.samples, broken, bytes: self.tar_bytes }
    }

    /// Whether it could not be written.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// Where a sample lies; none where the index cannot be read.
    pub fn extent(&self, sample: usize) -> Option<Extent> {
        self.entry(sample).map(|(extent, _)| extent)
    }

    /// The key of a sample; none where the index cannot be read.
    pub fn key(&self, sample: usize) -> Option<String> {
        let start = if sample == 0 { 0 } else { self.entry(sample - 1)?.1 };
        let length = self.entry(sample)?.1.checked_sub(start)?;
        let bytes = self.read((HEAD + self.samples * ENTRY) as u64 + start, usize::try_from(length).ok()?)?;
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

/// Beside the tar, or in `folder` under the tar's whole path, so that tars of one name do not meet.
fn place(path: &Path, folder: Option<&Path>) -> PathBuf {
    let name = match folder {
        None => path.to_owned(),
        Some(folder) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            folder.join(whole.to_string_lossy().trim_start_matches('/').replace('%', "%25").replace('/', "%2f"))
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
    // Others of the team read the shards too; temporary files are their owner's alone unless told otherwise.
    let readable = Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".index-").permissions(readable).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(place)?;
    Ok(())
}

/// Walks over the headers of a tar and writes down where its samples lie. Neighbours of one key are one sample.
fn build(tar: File, stamp: [u64; 2]) -> std::io::Result<Vec<u8>> {
    let mut samples: Vec<(Extent, String)> = Vec::new();
    let broken = walk(&tar, stamp[0], &mut samples)?;
    let mut bytes = MAGIC.to_vec();
    let reason = broken.unwrap_or_default();
    for number in [stamp[0], stamp[1], samples.len() as u64, reason.len() as u64] {
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
    bytes.extend(reason.as_bytes());
    Ok(bytes)
}

/// Collects the samples of a tar; what is returned says why the tar is not whole. Errors: the disk's.
fn walk(tar: &File, size: u64, samples: &mut Vec<(Extent, String)>) -> std::io::Result<Option<String>> {
    let mut archive = Archive::new(tar);
    let mut end = 0; // of the member before
    for entry in archive.entries_with_seek()? {
        let entry = match entry {
            Ok(entry) => entry,
            // The library gives the disk's errors and its own in one type; its own have no number of the system's.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(error) => return Ok(Some(format!("broken at byte {end}, what follows is lost: {error}"))),
        };
        let start = end;
        let data = entry.raw_file_position();
        end = data.saturating_add(entry.size().div_ceil(512).saturating_mul(512));
        if data.saturating_add(entry.size()) > size {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            // The sample that lost a member is counted as what is broken, not once more for what it lacks.
            let key = key_and_extension(name.as_bytes()).map(|(key, _)| key);
            samples.pop_if(|(_, last)| Some(&*last) == key.as_ref());
            return Ok(Some(format!("cut off at byte {size}, in {name}")));
        }
        let Some((key, _)) = of_sample(&entry) else { continue };
        match samples.last_mut().filter(|(_, last)| *last == key) {
            Some((extent, _)) => extent.length = end.min(size) - extent.start,
            None => samples.push((Extent { start, length: end.min(size) - start }, key)),
        }
    }
    // Two blocks of zeros end a tar; where none is, the writer was stopped between two members.
    let mut block = [1; 512];
    let mut tar = tar;
    tar.seek(SeekFrom::Start(end))?;
    Ok(match tar.read_exact(&mut block) {
        Ok(()) if block == [0; 512] => (samples.is_empty()).then(|| "no sample is in it".to_owned()),
        _ => Some(format!("cut off at byte {end}, between two members: it has no end mark")),
    })
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
        let bytes = tar(&[("x.jpg", b"1"), ("x.txt", b"one"), (&format!("{long}.jpg"), &[7; 2000]), ("z.jpg", b"")]);
        let (folder, path) = written(&bytes);
        for _ in 0..2 {
            let index = Index::open(&path, None).unwrap();
            let summary = index.summary();
            assert_eq!((summary.samples, summary.broken), (3, None));
            assert_eq!((0..3).map(|sample| index.key(sample).unwrap()).collect::<Vec<_>>(), ["x", &long, "z"]);
            assert_eq!(index.extent(0).unwrap(), Extent { start: 0, length: 2048 });
            let next = index.extent(1).unwrap();
            assert_eq!(index.extent(2).unwrap().start, next.start + next.length);
            let written = std::fs::metadata(folder.path().join("a.tar.index")).unwrap();
            assert_eq!(written.mode() & 0o444, 0o444);
        }
    }

    #[test]
    fn a_tar_that_changed_or_a_broken_index_is_indexed_anew() {
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
    fn an_index_can_stand_elsewhere_or_nowhere() {
        let (folder, path) = written(&tar(&[("x.jpg", b"1")]));
        let elsewhere = folder.path().join("indices");
        assert!(Index::open(&path, Some(&elsewhere)).is_ok());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
        let index = Index::open(&path, Some(Path::new("/proc/none"))).unwrap();
        assert_eq!((index.summary().samples, index.key(0).unwrap()), (1, "x".into()));
    }

    #[test]
    fn a_tar_cut_off_anywhere_keeps_what_is_whole_and_says_where() {
        let whole = tar(&[("x.jpg", &[1; 700]), ("x.txt", b"one"), ("y.jpg", &[2; 700])]);
        for (length, samples, said) in [
            (100, 0, "broken at byte 0"),
            (512 + 600, 0, "cut off at byte 1112, in x.jpg"),
            (1536 + 1024, 1, "cut off at byte 2560, between two members"),
            (1536 + 1024 + 512 + 1, 1, "cut off at byte 3073, in y.jpg"),
        ] {
            let (_folder, path) = written(&whole[..length]);
            let summary = Index::open(&path, None).unwrap().summary();
            assert_eq!(summary.samples, samples);
            assert!(summary.broken.clone().unwrap().contains(said), "{length}: {:?}", summary.broken);
        }
        let (_folder, path) = written(&tar(&[]));
        assert_eq!(Index::open(&path, None).unwrap().summary().broken.as_deref(), Some("no sample is in it"));
    }
}
