//! The files of a cache.

use crate::task::item::{Latents, Picture, Pictures};
use crate::text::TextConditions;
use crate::{Error, Result};
use mm_core::checkpoint::{Weights, write_with_metadata};
use mm_data::Fault;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tch::Tensor;

/// The entry of a file's header with its [`Contents`].
const METADATA_KEY: &str = "contents";

/// What a shard holds, each by its place in the list.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    fingerprint: String,
    /// The keys of the samples.
    keys: Vec<String>,
    /// The prompts whose states are there.
    prompts: Vec<String>,
}

/// What a denoiser reads of one prompt.
pub(in crate::task) struct CachedText {
    /// `[1, L, D]`.
    pub states: Tensor,
    /// `[1, P]`.
    pub pooled: Option<Tensor>,
}

impl CachedText {
    pub(in crate::task) fn bytes(&self) -> usize {
        4 * (self.states.numel() + self.pooled.as_ref().map_or(0, Tensor::numel))
    }
}

/// The file of the shard `number` in `folder`.
pub(super) fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("shard-{number:05}.safetensors"))
}

/// Tensors of a shard by their names.
#[derive(Default)]
pub(super) struct ShardTensors {
    tensors: Vec<(String, Tensor)>,
    keys: Vec<String>,
    prompts: Vec<String>,
}

impl ShardTensors {
    /// Adds the sample `key`.
    ///
    /// # Errors
    /// A number is not finite.
    pub(super) fn add_sample(&mut self, key: String, pictures: &Pictures) -> Result<()> {
        let (number, mut named) = (self.keys.len(), Vec::new());
        if let Picture::Latents(Latents { mean, std }) = &pictures.image {
            named.extend([("mean", mean.shallow_clone()), ("std", std.shallow_clone())]);
        }
        if let Some(Picture::Latents(mean)) = &pictures.source {
            named.push(("source", mean.shallow_clone()));
        }
        for (name, tensor) in &named {
            if tensor.isfinite().all().int64_value(&[]) == 0 {
                return Err(Error::Model(format!(
                    "the latents of the sample {key} are not finite ({name}): the autoencoder may need f32, \
                     or another version of its weights"
                )));
            }
        }
        named.extend(pictures.weights.as_ref().map(|weights| ("weights", Tensor::from_slice(weights))));
        named.push(("sizes", Tensor::from_slice(&pictures.sizes)));
        self.tensors.extend(named.into_iter().map(|(name, tensor)| (format!("{number}.{name}"), tensor)));
        self.keys.push(key);
        Ok(())
    }

    /// Adds what the denoiser reads of `prompts`.
    pub(super) fn add_texts(&mut self, prompts: &[&str], text: &TextConditions) {
        for (row, prompt) in (0..).zip(prompts) {
            let number = self.prompts.len();
            let row = |tensor: &Tensor| tensor.narrow(0, row, 1).contiguous();
            self.tensors.push((format!("text.{number}.states"), row(&text.states)));
            let pooled = text.pooled.as_ref().map(|pooled| (format!("text.{number}.pooled"), row(pooled)));
            self.tensors.extend(pooled);
            self.prompts.push((*prompt).to_owned());
        }
    }

    pub(super) fn write(self, file: &Path, fingerprint: &str) -> Result<()> {
        let Self { tensors, keys, prompts } = self;
        let contents = Contents { fingerprint: fingerprint.to_owned(), keys, prompts };
        let contents = serde_json::to_string(&contents).expect("texts are JSON");
        Ok(write_with_metadata(file, &tensors, (METADATA_KEY, contents))?)
    }
}

/// An open cache.
pub(in crate::task) struct Cache {
    folder: PathBuf,
    shards: Vec<Mutex<Weights>>,
    /// The shard of a sample and its number there, by key.
    samples: HashMap<String, (usize, usize)>,
    /// The same of a prompt.
    prompts: HashMap<String, (usize, usize)>,
}

impl Cache {
    /// Opens the `count` shards in `folder`.
    ///
    /// # Errors
    /// A shard is missing, damaged or of another cache, or two samples have one key.
    pub(super) fn open(folder: &Path, count: usize, fingerprint: &str) -> Result<Self> {
        let mut cache = Self {
            folder: folder.to_owned(),
            shards: Vec::with_capacity(count),
            samples: HashMap::new(),
            prompts: HashMap::new(),
        };
        for number in 0..count {
            let file = file(folder, number);
            let (weights, Contents { fingerprint: found, keys, prompts }) = open_shard(&file)?;
            if found != fingerprint {
                return Err(Error::folder(&file, "is of another cache: remove it"));
            }
            for (index, key) in keys.into_iter().enumerate() {
                if cache.samples.contains_key(&key) {
                    let problem = format!(
                        "two samples have the key {key}, by which latents are found: give each its own, or \
                         leave out [cache]"
                    );
                    return Err(Error::folder(&file, problem));
                }
                cache.samples.insert(key, (number, index));
            }
            cache
                .prompts
                .extend(prompts.into_iter().enumerate().map(|(index, text)| (text, (number, index))));
            cache.shards.push(Mutex::new(weights));
        }
        Ok(cache)
    }

    /// The pictures of the sample `key`.
    ///
    /// # Errors
    /// It is not here, as it could not be read.
    pub(in crate::task) fn pictures(&self, key: &str) -> mm_data::Result<Pictures> {
        let place = self.samples.get(key);
        let &(shard, index) = place.ok_or_else(|| self.bad("it could not be read when this was made"))?;
        let tensor = |name: &str| self.tensor(shard, &format!("{index}.{name}"));
        let need = |name: &str| tensor(name)?.ok_or_else(|| self.bad(&format!("it has no {name}")));
        let numbers = |tensor: Tensor| {
            Vec::<f32>::try_from(tensor.view([-1])).map_err(|error| self.bad(&error.to_string()))
        };
        let sizes = numbers(need("sizes")?)?;
        Ok(Pictures {
            image: Picture::Latents(Latents { mean: need("mean")?, std: need("std")? }),
            source: tensor("source")?.map(Picture::Latents),
            weights: tensor("weights")?.map(numbers).transpose()?,
            sizes: sizes.try_into().map_err(|_| self.bad("its sizes are not six"))?,
        })
    }

    /// What the denoiser reads of `prompt`.
    ///
    /// # Errors
    /// It is not here, as its sample could not be read.
    pub(in crate::task) fn text(&self, prompt: &str) -> mm_data::Result<CachedText> {
        let missing = || self.bad(&format!("the prompt {prompt:?} is not in it"));
        let &(shard, index) = self.prompts.get(prompt).ok_or_else(missing)?;
        let tensor = |name: &str| self.tensor(shard, &format!("text.{index}.{name}"));
        Ok(CachedText { states: tensor("states")?.ok_or_else(missing)?, pooled: tensor("pooled")? })
    }

    fn tensor(&self, shard: usize, name: &str) -> mm_data::Result<Option<Tensor>> {
        let weights = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if weights.shape(name).is_none() {
            return Ok(None);
        }
        weights.tensor(name).map(Some).map_err(|error| self.bad(&error.to_string()))
    }

    fn bad(&self, problem: &str) -> mm_data::Error {
        mm_data::Error::bad(Fault::Other, format!("the cache {}: {problem}", self.folder.display()))
    }
}

/// The shard `file` with its contents.
fn open_shard(file: &Path) -> Result<(Weights, Contents)> {
    let damaged = |problem: String| {
        Error::folder(file, format!("is damaged ({problem}): remove it, and it is made again"))
    };
    let weights = Weights::open(file).map_err(|error| match error {
        mm_core::Error::Checkpoint { problem, .. } => damaged(problem),
        other => other.into(),
    })?;
    let text = weights.metadata(METADATA_KEY);
    let text = text.ok_or_else(|| damaged("it has no list of its contents".to_owned()))?;
    let contents = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    Ok((weights, contents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;

    fn pictures(seed: u64) -> Pictures {
        let latents = |seed| normal(seed, &[1, 2, 3, 4]);
        Pictures {
            image: Picture::Latents(Latents { mean: latents(seed), std: latents(seed + 1) }),
            source: (seed == 1).then(|| Picture::Latents(latents(seed + 2))),
            weights: (seed == 1).then(|| vec![0.5; 12]),
            sizes: [seed as f32; 6],
        }
    }

    /// Writes shards of these keys into `folder`, with the prompt `a`.
    fn write(folder: &Path, shards: &[&[&str]]) {
        for (number, keys) in shards.iter().enumerate() {
            let mut shard = ShardTensors::default();
            for (seed, key) in (1..).zip(*keys) {
                shard.add_sample((*key).to_owned(), &pictures(seed)).unwrap();
            }
            let pooled = Some(normal(8, &[1, 3]));
            shard.add_texts(&["a"], &TextConditions { states: normal(9, &[1, 5, 2]), pooled, mask: None });
            shard.write(&file(folder, number), "print").unwrap();
        }
    }

    fn message<T>(result: Result<T, impl std::fmt::Display>) -> String {
        result.err().expect("an error").to_string()
    }

    #[test]
    fn samples_and_prompts_are_found_again_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[&["x", "y"], &["z"]]);
        let cache = Cache::open(folder.path(), 2, "print").unwrap();
        for (key, seed) in [("x", 1), ("y", 2), ("z", 1)] {
            let (found, written) = (cache.pictures(key).unwrap(), pictures(seed));
            let (Picture::Latents(found_image), Picture::Latents(image)) = (&found.image, &written.image)
            else {
                panic!("a cache has latents")
            };
            assert!(found_image.mean == image.mean && found_image.std == image.std, "{key}");
            assert_eq!((found.sizes, &found.weights), (written.sizes, &written.weights));
            assert_eq!(found.source.is_some(), written.source.is_some());
        }
        let text = cache.text("a").unwrap();
        assert!(text.states == normal(9, &[1, 5, 2]) && text.pooled.unwrap() == normal(8, &[1, 3]));
        assert!(message(cache.pictures("w")).contains("could not be read when this was made"));
        assert!(message(cache.text("b")).contains("the prompt \"b\" is not in it"));
    }

    #[test]
    fn what_is_damaged_or_of_another_cache_is_refused_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[&["x", "y"], &["x"]]);
        assert!(message(Cache::open(folder.path(), 2, "print")).contains("two samples have the key x"));
        assert!(message(Cache::open(folder.path(), 1, "other")).contains("is of another cache"));
        let first = file(folder.path(), 0);
        let bytes = std::fs::read(&first).unwrap();
        std::fs::write(&first, &bytes[..bytes.len() - 7]).unwrap();
        let error = message(Cache::open(folder.path(), 1, "print"));
        assert!(error.contains("shard-00000.safetensors") && error.contains("damaged"), "{error}");
    }

    #[test]
    fn latents_that_are_not_finite_are_an_error_with_the_sample() {
        let mut sample = pictures(2);
        if let Picture::Latents(latents) = &mut sample.image {
            let _ = latents.std.view([-1]).get(3).fill_(f64::NAN);
        }
        let error = message(ShardTensors::default().add_sample("photo 7".to_owned(), &sample));
        assert!(error.contains("the latents of the sample photo 7 are not finite"), "{error}");
    }
}
