//! Making of a cache.

use super::fingerprint::Fingerprint;
use super::shard::{Cache, ShardTensors, file};
use crate::pipeline::{DiffusionPipeline, stack_pixel_values};
use crate::task::config::{DiffusionRunConfig, ModelConfig};
use crate::task::item::{Latents, Picture, Pictures};
use crate::task::preprocess::PictureReader;
use crate::text::TextRules;
use crate::vae::Vae;
use crate::{Error, Result};
use mm_core::{hub, upload};
use mm_data::{Dataset, Item, Loader, LoaderConfig, Map, Position, Rank, Sample, SampleRng};
use mm_dist::ReduceOp;
use mm_image::RgbImage;
use mm_sys::inference_mode;
use mm_train::{DataConfig, TaskContext};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Tensor};

/// `[cache]`: latents and text states are computed once, before the first step, for all epochs and runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// The folder. One that was made with other weights, settings or data is refused.
    pub folder: PathBuf,
    /// Samples in a file.
    #[serde(default = "samples_per_shard")]
    pub samples_per_shard: usize,
}

fn samples_per_shard() -> usize {
    256
}

/// Pixels that the autoencoder encodes at once.
const PIXELS_AT_ONCE: u32 = 4 * 512 * 512;

/// Prompts that the text encoders read at once.
const PROMPTS_AT_ONCE: usize = 32;

/// The folders of a pipeline that text states come from.
const TEXT_PARTS: [&str; 6] =
    ["text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"];

/// What is read of a sample.
struct CachedItem {
    pictures: Pictures,
    prompts: Vec<String>,
}

impl Item for CachedItem {
    fn bytes(&self) -> usize {
        self.pictures.bytes()
    }
}

/// Opens the cache `cache` of a run, of which the shards that are missing are made first, with the parts of
/// `pipeline` that do not train. The processes share the work.
///
/// # Errors
/// The folder holds another cache, a sample cannot be used, the disk fails, or another process is lost.
pub(in crate::task) fn open(
    cache: &CacheConfig,
    config: &DiffusionRunConfig,
    pipeline: &DiffusionPipeline,
    reader: &PictureReader,
    context: &TaskContext,
) -> Result<Arc<Cache>> {
    let (data, dataset) = (&config.data, context.dataset.clone());
    if dataset.stream().is_some() {
        let problem = "is a stream, whose samples have no number: [cache] needs plain local tars";
        return Err(Error::Model(format!("{} {problem}", dataset.name())));
    }
    let folder = &cache.folder;
    let trains_text = pipeline.text.rules == TextRules::Masked;
    let settings = format!("{reader:?}, {} in a shard", cache.samples_per_shard);
    let fingerprint = Fingerprint::new(&parts(&config.model, trains_text)?, &*dataset, settings)?;
    let group = context.group;
    let mut begun = Ok(());
    if group.is_main() {
        begun = begin(folder, &fingerprint);
    }
    together(context, begun)?;
    let digest = fingerprint.digest();
    let count = dataset.len().div_ceil(cache.samples_per_shard);
    let job = Job { pipeline, reader, data, dataset, samples: cache.samples_per_shard, trains_text };
    // In rounds of one shard a process, so that none waits for another for long.
    for first in (0..count).step_by(group.world()) {
        let number = first + group.rank();
        let mut made = Ok(());
        if number < count && !file(folder, number).exists() {
            made = job.shard(number).and_then(|shard| shard.write(&file(folder, number), &digest));
        }
        together(context, made)?;
        context.progress.report("shards of latents", (first + group.world()).min(count) as u64, count as u64);
    }
    Ok(Arc::new(Cache::open(folder, count, &digest)?))
}

/// The folders of the parts whose results are kept, each with its name.
fn parts(model: &ModelConfig, trains_text: bool) -> Result<Vec<(&'static str, PathBuf)>> {
    if let Some(vae) = &model.vae {
        return Ok(vec![("vae", hub::resolve(vae)?)]);
    }
    let missing = || Error::Model("[cache] is for models with an autoencoder".to_owned());
    let folder = hub::resolve(model.from.as_ref().ok_or_else(missing)?)?;
    let texts = TEXT_PARTS.iter().filter(|_| !trains_text);
    Ok(["vae"].iter().chain(texts).map(|&part| (part, folder.join(part))).collect())
}

/// Makes the folder of a new cache, or checks that of an earlier one.
fn begin(folder: &Path, fingerprint: &Fingerprint) -> Result<()> {
    if fingerprint.is_of(folder)? {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|source| mm_core::Error::io("create", folder, source))?;
    fingerprint.write(folder)
}

/// The result of this process, or an error where that of another is one: no process waits for one that has
/// failed.
fn together(context: &TaskContext, own: Result<()>) -> Result<()> {
    let failed = context.group.reduce(&[f64::from(own.is_err())], ReduceOp::Max)?;
    own?;
    if failed == [0.0] { Ok(()) } else { Err(mm_train::Error::Stopped.into()) }
}

/// What all shards are made with.
struct Job<'a> {
    pipeline: &'a DiffusionPipeline,
    reader: &'a PictureReader,
    data: &'a DataConfig,
    dataset: Arc<dyn Dataset>,
    samples: usize,
    trains_text: bool,
}

impl Job<'_> {
    /// The tensors of the shard `number`.
    fn shard(&self, number: usize) -> Result<ShardTensors> {
        let start = number * self.samples;
        let config = LoaderConfig {
            batch_size: self.samples.min(self.dataset.len() - start),
            workers: self.data.workers,
            prefetch: 1,
            shuffle: false,
            drop_last: false,
            max_bad_samples: self.data.max_bad_samples,
            ..LoaderConfig::default()
        };
        let position = Position { index: start, ..Position::default() };
        let mut loader = Loader::new(self.dataset.clone(), config, Rank::default(), self.map(), position)?;
        let mut shard = ShardTensors::default();
        let batch = loader.epoch().next().transpose()?;
        // Where all samples of a shard are bad, the first batch is of the next one.
        let is_own = |index: &usize| *index < start + self.samples;
        let batch = batch.filter(|batch| batch.indices.first().is_some_and(is_own));
        let (items, keys) = batch.map(|batch| (batch.items, batch.keys)).unwrap_or_default();
        let mut prompts: BTreeSet<String> = items.iter().flat_map(|item| item.prompts.clone()).collect();
        // Of a prompt that is dropped.
        prompts.insert(String::new());
        let pictures: Vec<Pictures> = items.into_iter().map(|item| item.pictures).collect();
        for (key, pictures) in keys.into_iter().zip(self.encode(pictures)?) {
            shard.add_sample(key, &pictures)?;
        }
        if !self.trains_text {
            let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
            for prompts in prompts.chunks(PROMPTS_AT_ONCE) {
                let text = inference_mode(|| self.pipeline.text.encode(prompts, 0))?;
                shard.add_texts(prompts, &text);
            }
        }
        Ok(shard)
    }

    /// Reads the pictures of a sample and all its prompts.
    fn map(&self) -> Map<CachedItem> {
        let reader = self.reader.clone();
        Arc::new(move |sample: &Sample, _: &mut SampleRng| {
            let pictures = reader.read(sample, true)?;
            let prompts = sample.instruction.iter().chain(&sample.captions).cloned().collect();
            Ok(CachedItem { pictures, prompts })
        })
    }

    /// The same pictures as latents.
    fn encode(&self, pictures: Vec<Pictures>) -> Result<Vec<Pictures>> {
        let missing = || Error::Model("[cache] is for models with an autoencoder".to_owned());
        let vae = self.pipeline.vae.as_ref().ok_or_else(missing)?;
        let device = self.pipeline.device;
        let mut images = Vec::new();
        for Pictures { image, source, .. } in &pictures {
            images.extend(pixels(image));
            images.extend(source.as_ref().and_then(pixels));
        }
        let mut encoded = encode(vae, device, &images).into_iter();
        let mut next = || encoded.next().ok_or_else(missing);
        let mut latents = Vec::with_capacity(pictures.len());
        for Pictures { source, weights, sizes, .. } in pictures {
            let image = Picture::Latents(next()?);
            let source = source.map(|_| Ok::<_, Error>(Picture::Latents(next()?.mean))).transpose()?;
            latents.push(Pictures { image, source, weights, sizes });
        }
        Ok(latents)
    }
}

fn pixels<Latents>(picture: &Picture<Latents>) -> Option<&RgbImage> {
    match picture {
        Picture::Pixels(image) => Some(image),
        Picture::Latents(_) => None,
    }
}

/// The latents of each of `images`, on the CPU. Neighbours of one size are encoded together.
fn encode(vae: &Vae, device: Device, images: &[&RgbImage]) -> Vec<Latents> {
    let mut all = Vec::with_capacity(images.len());
    for alike in images.chunk_by(|a, b| a.dimensions() == b.dimensions()) {
        let at_once = (PIXELS_AT_ONCE / (alike[0].width() * alike[0].height()).max(1)).max(1);
        for some in alike.chunks(at_once as usize) {
            let pixel_values = stack_pixel_values(some.iter().copied());
            let encoded = inference_mode(|| vae.encode(&upload(&pixel_values, device)));
            let row =
                |x: &Tensor, index: usize| x.narrow(0, index as i64, 1).to_device(Device::Cpu).contiguous();
            let std = encoded.std();
            all.extend(
                (0..some.len())
                    .map(|index| Latents { mean: row(&encoded.mean, index), std: row(&std, index) }),
            );
        }
    }
    all
}
