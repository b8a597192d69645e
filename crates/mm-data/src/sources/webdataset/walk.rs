//! Finds the samples of a plain tar from its headers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use tar::Archive;

use super::groups::{Group, Groups, Keys};
use super::index::Extent;
use super::members::{of_sample, padded_end};

/// The contents of a tar.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The samples in the order of the tar, each with a unique key.
    pub samples: Vec<(Extent, String)>,
    /// For samples whose key occurs more than once: the index of the sample, and the first byte of the other.
    pub other_places: BTreeMap<u64, u64>,
    /// The reason why the tar is incomplete, if it is.
    pub broken: Option<String>,
}

/// Reads the headers of a tar of `size` bytes.
///
/// # Errors
/// The file cannot be read.
pub(super) fn walk(tar: &File, size: u64) -> std::io::Result<Found> {
    let mut samples = Samples { found: Found::default(), keys: Keys::of(usize::MAX) };
    let broken = groups(tar, size, &mut samples)?;
    Ok(Found { broken, ..samples.found })
}

/// Collects groups as samples.
struct Samples {
    found: Found,
    keys: Keys,
}

impl Samples {
    fn add(&mut self, group: Group<()>) {
        let Group { key, bytes, .. } = group;
        let number = self.found.samples.len() as u64;
        let (key, before) = self.keys.name(key, bytes.start);
        if let Some(before) = before {
            let samples = &self.found.samples;
            let first = samples.binary_search_by_key(&before, |(extent, _)| extent.start);
            self.found.other_places.extend(first.ok().map(|first| (first as u64, bytes.start)));
            self.found.other_places.insert(number, before);
        }
        self.found.samples.push((Extent { start: bytes.start, length: bytes.end - bytes.start }, key));
    }
}

/// Groups the members. Returns the reason why the tar is incomplete, if it is.
fn groups(tar: &File, size: u64, samples: &mut Samples) -> std::io::Result<Option<String>> {
    let mut archive = Archive::new(tar);
    let mut groups = Groups::default();
    let mut end = 0; // of the previous member
    for entry in archive.entries_with_seek()? {
        let entry = match entry {
            Ok(entry) => entry,
            // The library returns I/O errors and format errors as one type; format errors have no OS error
            // code.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(error) => {
                groups.finish().for_each(|group| samples.add(group));
                return Ok(Some(format!("broken at byte {end}, the rest is lost: {error}")));
            }
        };
        let start = end;
        end = padded_end(&entry);
        if entry.raw_file_position().saturating_add(entry.size()) > size {
            // The truncated sample counts once, as the broken end of the tar.
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let rest = match of_sample(&entry) {
                Some(name) => {
                    let field = name.field();
                    groups.begin(&name, &field, start).for_each(|group| samples.add(group));
                    groups.abandon()
                }
                None => groups.finish(),
            };
            rest.for_each(|group| samples.add(group));
            return Ok(Some(format!("truncated at byte {size}, in {name}")));
        }
        let Some(name) = of_sample(&entry) else { continue };
        let field = name.field();
        groups.begin(&name, &field, start).for_each(|group| samples.add(group));
        groups.add(name, field, start..end.min(size), ());
    }
    groups.finish().for_each(|group| samples.add(group));
    Ok(after_end(tar, end)?
        .or_else(|| samples.found.samples.is_empty().then(|| "it has no sample".to_owned())))
}

/// Checks the end of a tar with its last member ending at byte `end`: only zeros may follow, at least one
/// block. Returns the problem, if there is one.
fn after_end(tar: &File, end: u64) -> std::io::Result<Option<String>> {
    let mut tar = BufReader::with_capacity(1 << 16, tar);
    tar.seek(SeekFrom::Start(end))?;
    let mut block = [1; 512];
    match tar.read_exact(&mut block) {
        // Without a block of zeros, the writer was stopped between two members.
        _ if block != [0; 512] => {
            Ok(Some(format!("truncated at byte {end}, between two members: it has no end mark")))
        }
        read => {
            read?;
            Ok(drain(tar)?.map(|zeros| more(end + 512 + zeros)))
        }
    }
}

/// Reads to the end. Returns the number of zeros before the first other byte, if there is one.
pub(super) fn drain(mut input: impl Read) -> std::io::Result<Option<u64>> {
    let mut buffer = vec![0; 1 << 16];
    let mut zeros = 0;
    loop {
        let read = match input.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(None);
        }
        if let Some(other) = buffer[..read].iter().position(|&byte| byte != 0) {
            // Read on, because a command fails if its output is not read to the end.
            std::io::copy(&mut input, &mut std::io::sink())?;
            return Ok(Some(zeros + other as u64));
        }
        zeros += read as u64;
    }
}

/// The message for bytes after the end mark of a tar.
pub(super) fn more(at: u64) -> String {
    format!(
        "more data follows its end mark, at byte {at}, and is not read: list concatenated tars as separate \
         shards, or join them with `tar --concatenate`"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::tar;
    use super::*;

    fn found(bytes: &[u8]) -> Found {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        walk(&file, bytes.len() as u64).unwrap()
    }

    fn keys(found: &Found) -> Vec<&str> {
        found.samples.iter().map(|(_, key)| key.as_str()).collect()
    }

    #[test]
    fn samples_of_one_key_have_unique_names_and_bytes() {
        let files =
            ["a.jpg", "a.txt", "a.jpg", "a.txt", "b.jpg", "c.txt", "b.txt"].map(|name| (name, &b"x"[..]));
        let found = found(&tar(&files));
        assert_eq!(keys(&found), ["a", "a#2", "b", "c", "b#2"]);
        let extents: Vec<(u64, u64)> =
            found.samples.iter().map(|(extent, _)| (extent.start, extent.length)).collect();
        assert_eq!(extents, [(0, 2048), (2048, 2048), (4096, 1024), (5120, 1024), (6144, 1024)]);
        assert_eq!(found.other_places, [(0, 2048), (1, 0), (2, 6144), (4, 4096)].into());
        assert_eq!(found.broken, None);
    }

    #[test]
    fn data_after_the_end_mark_is_reported() {
        let one = tar(&[("a.jpg", b"1"), ("a.txt", b"one")]);
        let two = [&one[..], &tar(&[("b.jpg", b"2"), ("b.txt", b"two")])].concat();
        let twice = found(&two);
        assert_eq!(keys(&twice), ["a"]);
        let message = twice.broken.unwrap();
        let expected = format!("more data follows its end mark, at byte {}", one.len());
        assert!(message.starts_with(&expected), "{message}");
        // Tars are padded with zeros to a block size of tapes.
        let filled = [&one[..], &[0; 100_000]].concat();
        assert_eq!(found(&filled).broken, None);
        let message = found(&[&filled[..], b"x"].concat()).broken.unwrap();
        assert!(message.contains(&format!("at byte {},", filled.len())), "{message}");
    }
}
