//! Indexing a data set: new and changed images are embedded, those that are gone are deleted.

use crate::store::{KeyDigest, NewItem, Stamp, key_digest};
use crate::{Error, IndexDescription, IndexLocation, ItemId, ItemWriter, Result};
use mm_clip::{ImageEmbedder, check_rows};
use mm_data::{BadSample, Fault, Item, Map, Sample, SampleImage, SampleRng};
use mm_dist::ReduceOp;
use mm_image::image::codecs::jpeg::JpegEncoder;
use mm_image::resize::Filter;
use mm_image::{Reduced, RgbImage};
use mm_train::{EvalContext, EvalSet, gather};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Tensor;

/// How a data set is indexed.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// The longer side of a thumbnail in pixels; 0 for none.
    pub thumbnail: u32,
    /// Whether items stay whose samples are gone from the data set.
    pub keep_deleted: bool,
}

/// How indexing went, over all processes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IndexReport {
    /// Items that are new.
    pub added: usize,
    /// Items whose image changed.
    pub changed: usize,
    /// Items that stay as they are.
    pub unchanged: usize,
    /// Items that are gone from the data set, or can no longer be read.
    pub deleted: usize,
    /// The samples that cannot be read.
    pub bad: Vec<BadSample>,
    /// Time that this process waited for images.
    pub data_wait: Duration,
}

/// A sample on its way into the index.
enum Incoming {
    /// The item is there, and its image is the same.
    Unchanged(ItemId),
    /// The same, but for the time of its file.
    Touched(ItemId, Stamp),
    /// The image is to be embedded.
    New(Box<NewImage>),
}

struct NewImage {
    /// Resized for the model.
    image: RgbImage,
    item: NewItem,
    /// The item of the same key, if there is one.
    replaces: Option<ItemId>,
}

impl Item for Incoming {
    fn bytes(&self) -> usize {
        match self {
            Self::New(new) => new.image.bytes() + new.item.thumbnail.as_ref().map_or(0, Vec::len),
            _ => size_of::<Self>(),
        }
    }
}

/// Items are committed when this many are embedded, or after this time.
const COMMIT_ROWS: usize = 256;
const COMMIT_AFTER: Duration = Duration::from_secs(2);

/// Brings the index at `location`, a folder or a table of PostgreSQL, up to date with the data set `set`,
/// called `name` in the index; an index of `description` is created where there is none. Images that are in
/// the index and did not change (by size and time of the file, else by the digest of the image) are not
/// embedded again, so that an interrupted call continues where its last commit was. The processes of
/// `context.group` share the samples.
///
/// # Errors
/// The index is of another model, a sample's embedding is not finite, the disk refuses, or a process is lost.
/// Items that were committed before stay.
pub fn index_set(
    location: &dyn IndexLocation,
    description: &IndexDescription,
    model: &ImageEmbedder,
    (name, set): (&str, &EvalSet),
    settings: &IndexSettings,
    context: &EvalContext,
) -> Result<IndexReport> {
    let group = context.group;
    // One process creates the index, then the others find it.
    let open = || location.open_writer(description, name);
    let main = group.is_main().then(open).transpose().map_err(mm_train::Error::from);
    let mut writer = match mm_train::agree(group, main)? {
        Some(writer) => writer,
        None => open()?,
    };
    let known = Arc::new(writer.known()?);
    let (mut seen, mut waiting): (Vec<ItemId>, Vec<NewImage>) = (Vec::new(), Vec::new());
    let mut report = IndexReport::default();
    let mut committed = Instant::now();
    let read = set.for_each_batch(context, prepare(model, set, &known, settings), |items, _| {
        for item in items {
            match item {
                Incoming::Unchanged(id) => seen.push(id),
                Incoming::Touched(id, stamp) => {
                    seen.push(id);
                    writer.touch(id, stamp);
                }
                Incoming::New(new) => {
                    report.added += usize::from(new.replaces.is_none());
                    report.changed += usize::from(new.replaces.is_some());
                    seen.extend(new.replaces);
                    waiting.push(*new);
                }
            }
        }
        while waiting.len() >= context.batch_size {
            let rest = waiting.split_off(context.batch_size);
            embed(model, std::mem::replace(&mut waiting, rest), &mut *writer)?;
        }
        if writer.pending() >= COMMIT_ROWS || committed.elapsed() > COMMIT_AFTER {
            writer.commit()?;
            committed = Instant::now();
        }
        Ok(())
    })?;
    if !waiting.is_empty() {
        embed(model, waiting, &mut *writer)?;
    }
    writer.commit()?;
    report.unchanged = seen.len() - report.changed;
    report.bad = read.bad;
    report.data_wait = read.data_wait;
    let seen: HashSet<ItemId> = gather(group, &seen)?.into_iter().collect();
    let gone: Vec<ItemId> = known.values().map(|(id, _)| *id).filter(|id| !seen.contains(id)).collect();
    if !settings.keep_deleted {
        report.deleted = gone.len();
        if group.is_main() {
            writer.delete(&gone)?;
        }
    }
    let counts = [&mut report.added, &mut report.changed, &mut report.unchanged];
    let sums = group.reduce(&counts.each_ref().map(|count| **count as f64), ReduceOp::Sum)?;
    counts.into_iter().zip(sums).for_each(|(count, sum)| *count = sum as usize);
    group.barrier()?;
    Ok(report)
}

/// Embeds images as one batch.
fn embed(model: &ImageEmbedder, images: Vec<NewImage>, writer: &mut dyn ItemWriter) -> Result<()> {
    let (images, items): (Vec<RgbImage>, Vec<NewItem>) =
        images.into_iter().map(|new| (new.image, new.item)).unzip();
    let rows = model.embed_resized(&images)?; // [N, D]
    check_rows(&rows, |row| items[row].key.clone())?;
    for (item, row) in items.into_iter().zip(to_vectors(&rows)?) {
        writer.add(item, &row)?;
    }
    Ok(())
}

/// The rows of `[N, D]`.
///
/// # Errors
/// The tensor has another type or shape.
pub fn to_vectors(rows: &Tensor) -> Result<Vec<Vec<f32>>> {
    let dim = rows.size().get(1).copied().unwrap_or(1).max(1) as usize;
    let numbers = Vec::<f32>::try_from(rows.f_contiguous()?.f_view([-1])?)?;
    Ok(numbers.chunks(dim).map(<[f32]>::to_vec).collect())
}

/// Reads a sample on a loader thread: no more of it than is needed to see that it did not change.
fn prepare(
    model: &ImageEmbedder,
    set: &EvalSet,
    known: &Arc<HashMap<KeyDigest, (ItemId, Stamp)>>,
    settings: &IndexSettings,
) -> Map<Incoming> {
    let (known, processor, thumbnail) = (known.clone(), model.processor.clone(), settings.thumbnail);
    let (background, fast_decode) = (set.background, set.fast_decode);
    Arc::new(move |sample: &Sample, _: &mut SampleRng| {
        let source = sample.image()?;
        let known = known.get(&key_digest(&sample.key));
        let file = file_stamp(source);
        if let Some((id, stamp)) = known
            && file.is_some()
            && stamp.file == file
        {
            return Ok(Incoming::Unchanged(*id));
        }
        let encoded = source.bytes()?.into_owned();
        let stamp = Stamp::new(file, &encoded);
        if let Some((id, old)) = known
            && old.digest == stamp.digest
        {
            return Ok(match stamp == *old {
                true => Incoming::Unchanged(*id),
                false => Incoming::Touched(*id, stamp),
            });
        }
        let divisor = |width, height| if fast_decode { processor.largest_divisor(width, height) } else { 1 };
        let decoded = SampleImage::Memory(encoded).decode_reduced(background, divisor)?;
        let resized = processor.resize_reduced(&decoded);
        let image = resized.map_err(|error| mm_data::Error::bad(Fault::Image, error.to_string()))?;
        let item = NewItem {
            key: sample.key.clone(),
            stamp,
            metadata: metadata(sample, &decoded),
            thumbnail: (thumbnail > 0).then(|| thumbnail_of(&decoded, thumbnail)).transpose()?,
        };
        Ok(Incoming::New(Box::new(NewImage { image, item, replaces: known.map(|(id, _)| *id) })))
    })
}

/// The size of an image's file in bytes and the time of its last change in nanoseconds since 1970.
fn file_stamp(image: &SampleImage) -> Option<(i64, i64)> {
    let SampleImage::File(path) = image else { return None };
    let metadata = path.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((metadata.len() as i64, modified.as_nanos() as i64))
}

/// Caption, label and size: the fields that a sample has.
fn metadata(sample: &Sample, image: &Reduced) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    let mut text = |name: &str, value: Option<&String>| {
        fields.extend(value.map(|value| (name.to_owned(), value.as_str().into())));
    };
    text("caption", sample.captions.first());
    text("label", sample.label.as_ref());
    text("group", sample.group.as_ref());
    if sample.captions.len() > 1 {
        fields.insert("captions".to_owned(), sample.captions.clone().into());
    }
    fields.insert("width".to_owned(), image.width.into());
    fields.insert("height".to_owned(), image.height.into());
    fields.into()
}

const THUMBNAIL_QUALITY: u8 = 85;

/// A JPEG whose longer side has `side` pixels, or those of the image where it is smaller.
fn thumbnail_of(image: &Reduced, side: u32) -> mm_data::Result<Vec<u8>> {
    let longer = image.width.max(image.height).max(1);
    let side = side.min(longer);
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(longer)).max(1) as u32;
    let small = image.exact(scaled(image.width), scaled(image.height), Filter::Bilinear);
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, THUMBNAIL_QUALITY);
    small
        .write_with_encoder(encoder)
        .map_err(|error| mm_data::Error::bad(Fault::Image, format!("no thumbnail: {error}")))?;
    Ok(jpeg)
}

impl From<Error> for mm_train::Error {
    fn from(error: Error) -> Self {
        Self::task(error)
    }
}
