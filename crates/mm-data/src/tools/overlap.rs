//! The overlap of two data sets: images, questions and groups of one that occur in the other too.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tools::in_order::{CHUNK, InOrder, each, threads};
use crate::tools::shards::perceptual_hash;
use crate::{Dataset, Error, Fault, Question, Result, Sample, SampleImage};

/// The number of [`Shared::examples`].
const EXAMPLES: usize = 10;

/// What two data sets share: a leakage report of an evaluation set with its training set. Numbers are those
/// of the first data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// The first data set, such as the test set.
    pub data: OverlapSet,
    /// The second data set, such as the training set.
    pub with: OverlapSet,
    /// Equal images, byte for byte.
    pub files: Shared,
    /// Images with equal pixels: also those that are stored in another lossless format.
    pub pixels: Shared,
    /// Images with equal perceptual hashes, such as copies of another size or compression. The hash ignores
    /// color and fine detail, so different drawings may share one: look at the examples.
    pub lookalikes: Shared,
    /// Questions by their text, in lower case and without repeated spaces.
    pub questions: Shared,
    /// Questions by their text and the pixels of their image.
    pub image_questions: Shared,
    /// [`Sample::group`]: patients, cases, articles.
    pub groups: Shared,
}

/// A data set of an [`Overlap`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlapSet {
    /// The name.
    pub name: String,
    /// The samples that were read.
    pub samples: u64,
    /// Samples that cannot be read and images that cannot be decoded, by the kind of fault. What is known of
    /// them is compared.
    pub bad: BTreeMap<Fault, u64>,
}

/// What two data sets share of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Different ones in the first data set.
    pub distinct: u64,
    /// Those among them that the second data set has too.
    pub shared: u64,
    /// All in the first data set, repeated ones counted each time.
    pub total: u64,
    /// Those among them that the second data set has too.
    pub total_shared: u64,
    /// The first shared ones, in the order of the first data set.
    pub examples: Vec<SharedExample>,
}

/// A shared image, question or group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedExample {
    /// The key of its first sample in the first data set.
    pub data: String,
    /// The key of its first sample in the second data set.
    pub with: String,
    /// The question or the group; empty for an image.
    pub text: String,
}

impl Overlap {
    /// Compares two data sets on `workers` threads, or one per core for 0. Every image is read and decoded
    /// once. `progress` is called with the number of samples done of both. A stream is read for one epoch.
    ///
    /// # Errors
    /// A stream that cannot be started, or a mix with a stream in it.
    pub fn of(
        data: &dyn Dataset,
        with: &dyn Dataset,
        workers: usize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Self> {
        let first = Contents::of(data, workers, progress)?;
        let second = Contents::of(with, workers, &|done| progress(data.len() + done))?;
        let [files, pixels, lookalikes, questions, image_questions, groups] =
            std::array::from_fn(|kind| shared(&first.kinds[kind], &second.kinds[kind]));
        Ok(Self {
            data: first.set,
            with: second.set,
            files,
            pixels,
            lookalikes,
            questions,
            image_questions,
            groups,
        })
    }
}

fn shared(first: &Kind, second: &Kind) -> Shared {
    let both: Vec<(&Found, &Found)> =
        first.iter().filter_map(|(id, found)| Some((found, second.get(id)?))).collect();
    let mut examples: Vec<_> = both.iter().map(|(found, other)| (found.place, found, other)).collect();
    examples.sort_by(|a, b| (a.0, &a.1.text).cmp(&(b.0, &b.1.text)));
    let example = |(_, found, other): (usize, &&Found, &&Found)| SharedExample {
        data: found.key.clone(),
        with: other.key.clone(),
        text: found.text.clone(),
    };
    Shared {
        distinct: first.len() as u64,
        shared: both.len() as u64,
        total: first.values().map(|found| found.count).sum(),
        total_shared: both.iter().map(|(found, _)| found.count).sum(),
        examples: examples.into_iter().take(EXAMPLES).map(example).collect(),
    }
}

/// The first half of a SHA-256.
type Id = [u8; 16];

/// The different ones of a kind.
type Kind = HashMap<Id, Found>;

/// An image, a question or a group in one data set.
struct Found {
    count: u64,
    /// The index of its first sample.
    place: usize,
    key: String,
    text: String,
}

/// The identities of the files, the pixels and the perceptual hash of an image.
#[derive(Clone, Copy)]
struct ImageIds {
    file: Id,
    pixels: Id,
    lookalike: Id,
}

/// The contents of a data set, in the order of the fields of [`Overlap`].
#[derive(Default)]
struct Contents {
    set: OverlapSet,
    kinds: [Kind; 6],
}

impl Contents {
    fn of(source: &dyn Dataset, workers: usize, progress: &(dyn Fn(usize) + Sync)) -> Result<Self> {
        let samples = InOrder::new(source)?;
        let chunks: Vec<usize> = (0..source.len().div_ceil(CHUNK)).collect();
        let name = source.name().to_owned();
        let all = Mutex::new(Self { set: OverlapSet { name, ..OverlapSet::default() }, ..Self::default() });
        let images = KnownImages::default();
        let done = AtomicUsize::new(0);
        each(&chunks, threads(source, workers), |chunk| {
            let range = chunk * CHUNK..source.len().min((chunk + 1) * CHUNK);
            let length = range.len();
            let mut some = Self::default();
            for (place, sample) in samples.read(range) {
                match sample {
                    Ok(sample) => some.add(place, &sample, &images),
                    Err(bad) => *some.set.bad.entry(bad.fault).or_default() += 1,
                }
            }
            all.lock().unwrap_or_else(PoisonError::into_inner).merge(some);
            progress(length + done.fetch_add(length, Ordering::Relaxed));
            Ok(())
        })?;
        Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&mut self, place: usize, sample: &Sample, images: &KnownImages) {
        self.set.samples += 1;
        let [files, pixels, lookalikes, questions, image_questions, groups] = &mut self.kinds;
        let add = |kind: &mut Kind, id: Id, text: &str| {
            let new = || Found { count: 0, place, key: sample.key.clone(), text: text.to_owned() };
            kind.entry(id).or_insert_with(new).count += 1;
        };
        let mut of_sample = Vec::with_capacity(sample.images.len());
        for image in &sample.images {
            match images.ids(image) {
                Ok(ids) => of_sample.push(ids),
                Err(fault) => *self.set.bad.entry(fault).or_default() += 1,
            }
        }
        for ids in &of_sample {
            add(files, ids.file, "");
            add(pixels, ids.pixels, "");
            add(lookalikes, ids.lookalike, "");
        }
        for Question { text, .. } in &sample.questions {
            let words = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            add(questions, id(&[words.as_bytes()]), text);
            for ids in &of_sample {
                add(image_questions, id(&[&ids.pixels, words.as_bytes()]), text);
            }
        }
        if let Some(group) = &sample.group {
            add(groups, id(&[group.as_bytes()]), group);
        }
    }

    fn merge(&mut self, other: Self) {
        self.set.samples += other.set.samples;
        for (fault, count) in other.set.bad {
            *self.set.bad.entry(fault).or_default() += count;
        }
        for (kind, other) in self.kinds.iter_mut().zip(other.kinds) {
            for (id, found) in other {
                match kind.get_mut(&id) {
                    None => drop(kind.insert(id, found)),
                    Some(known) => {
                        let count = known.count + found.count;
                        if found.place < known.place {
                            *known = found;
                        }
                        known.count = count;
                    }
                }
            }
        }
    }
}

/// The identities of the files that were read: many questions have the same image.
#[derive(Default)]
struct KnownImages(Mutex<HashMap<PathBuf, std::result::Result<ImageIds, Fault>>>);

impl KnownImages {
    fn ids(&self, image: &SampleImage) -> std::result::Result<ImageIds, Fault> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || Error::guarded(|| image_ids(image)).map_err(|error| error.fault());
        let SampleImage::File(path) = image else { return read() };
        if let Some(known) = lock().get(path) {
            return *known;
        }
        let ids = read();
        lock().insert(path.clone(), ids);
        ids
    }
}

fn image_ids(image: &SampleImage) -> Result<ImageIds> {
    let bytes = image.bytes()?;
    let decoded = mm_image::decode(&bytes, [255; 3])?;
    let [width, height] = [decoded.width(), decoded.height()].map(u32::to_le_bytes);
    Ok(ImageIds {
        file: id(&[&bytes]),
        pixels: id(&[&width, &height, decoded.as_raw()]),
        lookalike: id(&[&perceptual_hash(&decoded).to_le_bytes()]),
    })
}

fn id(parts: &[&[u8]]) -> Id {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    let mut id = Id::default();
    id.copy_from_slice(&hasher.finalize()[..16]);
    id
}
