use crate::pipeline::check_rows;
use crate::{
    ClipPipeline, Error, ImageEmbedder, Result, Retrieval, Templates, TextEmbedder, ZeroShot, ZeroShotReport,
};
use mm_data::{BadSample, Dataset, DatasetConfig, Fault, Item, Loader, LoaderConfig, Position, Rank};
use mm_dist::ProcessGroup;
use mm_image::RgbImage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// A set that models are evaluated on.
#[derive(Clone)]
pub struct EvalSet {
    /// Its name in the config.
    pub name: String,
    source: Arc<dyn Dataset>,
    background: [u8; 3],
    max_bad_samples: usize,
    fast_decode: bool,
}

/// What evaluation keeps of a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalSample {
    /// Its number in the set.
    pub index: usize,
    /// Its key.
    pub key: String,
    /// Its canonical caption.
    pub caption: Option<String>,
    /// Its class.
    pub label: Option<String>,
    /// Whether it is a variant of another sample.
    pub is_variant: bool,
}

/// An image, ready for the model, with what is kept of its sample.
struct EvalItem {
    image: RgbImage,
    kept: EvalSample,
}

impl Item for EvalItem {
    fn bytes(&self) -> usize {
        self.image.bytes()
    }
}

impl EvalSet {
    /// Opens a set. Transparent images are set on `background`; up to `max_bad_samples` may be unreadable.
    ///
    /// # Errors
    /// The set cannot be opened or is empty.
    pub fn open(
        name: &str,
        config: &DatasetConfig,
        background: [u8; 3],
        max_bad_samples: usize,
    ) -> Result<Self> {
        let source: Arc<dyn Dataset> = Arc::from(config.open()?);
        if source.is_empty() {
            return Err(Error::Evaluation(format!("the set {name} is empty: {}", source.name())));
        }
        if source.stream().is_some() {
            let reason = "is a stream; an evaluation asks for samples by number: use plain local tars";
            return Err(Error::Evaluation(format!("the set {name} {reason}")));
        }
        Ok(Self { name: name.to_owned(), source, background, max_bad_samples, fast_decode: false })
    }

    /// Whether JPEGs that are several times as large as what the model sees are decoded at a part of their
    /// size: see [`mm_image::decode_reduced`]. Off at first, so that pixels are those of the Python peers.
    pub fn fast_decode(self, fast_decode: bool) -> Self {
        Self { fast_decode, ..self }
    }

    /// Samples in the set, unreadable ones included.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// The decoded image of a sample, by its number.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn image(&self, index: usize) -> Result<RgbImage> {
        Ok(self.source.sample(index)?.image()?.decode(self.background)?)
    }
}

/// A set's samples with their embeddings.
#[derive(Debug)]
pub struct Embedded {
    /// The samples that could be read, in order.
    pub samples: Vec<EvalSample>,
    /// Those that could not.
    pub bad: Vec<BadSample>,
    /// Unit rows `[N, D]` of the images.
    pub images: Tensor,
    /// Unit rows `[N, D]` of the canonical captions; none if a sample has none, or if nobody asked for them.
    pub texts: Option<Tensor>,
    /// How long the model waited for images: near zero where it is the model that takes the time.
    pub waiting: Duration,
}

impl Embedded {
    /// Reads and embeds all images of `set`, decoding ahead while the model computes, and with `text` the
    /// captions, if all samples have one. The processes of `group` share the work in whole batches, so that
    /// each sample is embedded once and as one process would, and all have all of it in the end. `progress`
    /// is told how many samples are done, by this process.
    ///
    /// # Errors
    /// More samples are bad than the set allows, or none is good; another process is lost.
    pub fn embed_set(
        image: &ImageEmbedder,
        text: Option<&TextEmbedder>,
        set: &EvalSet,
        batch_size: usize,
        group: &ProcessGroup,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let split = Rank { index: group.rank(), world: group.world() };
        let config = LoaderConfig {
            batch_size: batch_size * split.world,
            shuffle: false,
            drop_last: false,
            max_bad_samples: set.max_bad_samples,
            ..LoaderConfig::default()
        };
        let (background, fast_decode, processor) = (set.background, set.fast_decode, image.processor.clone());
        let map = Arc::new(move |sample: &mm_data::Sample, _: &mut mm_data::SampleRng| {
            let most = |width, height| if fast_decode { processor.largest_divisor(width, height) } else { 1 };
            let image = sample.image()?.decode_reduced(background, most)?;
            let resized = processor.resize_reduced(&image);
            let image = resized.map_err(|error| mm_data::Error::bad(Fault::Image, error.to_string()))?;
            let kept = EvalSample {
                index: 0, // the batch tells
                key: sample.key.clone(),
                caption: sample.captions.first().cloned(),
                label: sample.label.clone(),
                is_variant: sample.variant_of.is_some(),
            };
            Ok(EvalItem { image, kept })
        });
        let mut loader = Loader::new(Arc::clone(&set.source), config, split, map, Position::default())?;
        let (mut samples, mut images): (Vec<EvalSample>, _) = (Vec::with_capacity(set.len()), Vec::new());
        for batch in loader.epoch() {
            let batch = batch?;
            let pair = |(item, index): (EvalItem, usize)| (item.image, EvalSample { index, ..item.kept });
            let (pictures, kept): (Vec<_>, Vec<_>) =
                batch.items.into_iter().zip(batch.indices).map(pair).unzip();
            images.push(image.embed_resized(&pictures)?);
            samples.extend(kept);
            progress(samples.len());
        }
        let own = match images.is_empty() {
            true => Tensor::zeros([0, image.encoder.output_width()], (Kind::Float, Device::Cpu)),
            false => Tensor::f_cat(&images, 0)?,
        };
        drop(images);
        let (samples, images) = match group.is_alone() {
            true => (samples, own),
            false => in_order(gather(group, &samples)?, &group.gather_rows(&own)?)?,
        };
        let (bad, waiting) = (gather(group, loader.bad_samples())?, loader.data_wait());
        if samples.is_empty() {
            return Err(Error::Evaluation(format!("no sample of the set {} can be read", set.name)));
        }
        check_rows(&images, |row| samples[row].key.clone())?;
        let captions: Option<Vec<&str>> = samples.iter().map(|sample| sample.caption.as_deref()).collect();
        let texts = text
            .zip(captions)
            .map(|(text, captions)| text.embed_among(&captions, batch_size, group))
            .transpose()?;
        Ok(Self { images, texts, bad, samples, waiting })
    }
}

/// What all processes have, in the order of their ranks.
fn gather<T: Serialize + DeserializeOwned>(group: &ProcessGroup, own: &[T]) -> Result<Vec<T>> {
    let pieces = group.gather_bytes(&serde_json::to_vec(own).expect("plain values are JSON"))?;
    let parsed = pieces
        .iter()
        .map(|piece| serde_json::from_slice::<Vec<T>>(piece).expect("it was JSON before it was sent"));
    Ok(parsed.flatten().collect())
}

/// Samples and their rows in the order of the set.
fn in_order(samples: Vec<EvalSample>, rows: &Tensor) -> Result<(Vec<EvalSample>, Tensor)> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&place| samples[place].index);
    let places: Vec<i64> = order.iter().map(|&place| place as i64).collect();
    let rows = mm_sys::inference_mode(|| rows.f_index_select(0, &Tensor::from_slice(&places)))?;
    Ok((order.into_iter().map(|place| samples[place].clone()).collect(), rows))
}

/// Retrieval both ways among some pairs of a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// Pairs compared.
    pub pairs: usize,
    /// Finding the text of an image.
    pub image_to_text: Retrieval,
    /// Finding the image of a text.
    pub text_to_image: Retrieval,
}

/// What a model reaches on a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// The set's name.
    pub name: String,
    /// Samples read.
    pub samples: usize,
    /// Samples that could not be read.
    pub bad_samples: usize,
    /// Among all pairs, where samples have captions.
    pub all: Option<PairReport>,
    /// Among the pairs that are no variant of another (emoji: no skin tone chosen), where the set has
    /// variants.
    pub without_variants: Option<PairReport>,
    /// Zero-shot classification, where samples have labels.
    pub zero_shot: Option<ZeroShotReport>,
}

impl EvalReport {
    /// Evaluates what is embedded of the set `name`.
    ///
    /// # Errors
    /// As [`ZeroShot::new`] and [`Retrieval::measure`].
    pub fn evaluate(
        name: &str,
        bundle: &ClipPipeline,
        embedded: &Embedded,
        templates: &Templates,
        batch_size: usize,
    ) -> Result<Self> {
        let samples = &embedded.samples;
        let everything: Vec<usize> = (0..samples.len()).collect();
        let plain: Vec<usize> = everything.iter().copied().filter(|&i| !samples[i].is_variant).collect();
        let has_both = !plain.is_empty() && plain.len() < samples.len();
        Ok(Self {
            name: name.to_owned(),
            samples: samples.len(),
            bad_samples: embedded.bad.len(),
            all: pairs(embedded, &everything)?,
            without_variants: if has_both { pairs(embedded, &plain)? } else { None },
            zero_shot: zero_shot(bundle, embedded, templates, batch_size)?,
        })
    }

    /// Retrieval as the rows of a table, chance included: pairs compared, which of them and which way,
    /// result.
    pub fn retrieval_rows(&self) -> Vec<(usize, String, Retrieval)> {
        let kinds = [("all pairs", &self.all), ("without variants", &self.without_variants)];
        let rows = kinds.into_iter().filter_map(|(kind, pairs)| Some((kind, pairs.as_ref()?)));
        rows.flat_map(|(kind, pairs)| {
            let ways = [
                ("image to text", pairs.image_to_text),
                ("text to image", pairs.text_to_image),
                ("chance", Retrieval::chance(pairs.pairs)),
            ];
            ways.map(|(way, found)| (pairs.pairs, format!("{kind}, {way}"), found))
        })
        .collect()
    }

    /// The numbers by name: `NAME/text_to_image_r@1`, ...
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = Vec::new();
        for (suffix, pairs) in [("", &self.all), ("_without_variants", &self.without_variants)] {
            let Some(pairs) = pairs else { continue };
            for (way, found) in
                [("image_to_text", pairs.image_to_text), ("text_to_image", pairs.text_to_image)]
            {
                let named = found.named();
                metrics.extend(
                    named.map(|(metric, value)| (format!("{}/{way}_{metric}{suffix}", self.name), value)),
                );
            }
        }
        metrics.extend(
            self.zero_shot
                .as_ref()
                .map(|report| (format!("{}/zero_shot_accuracy", self.name), report.accuracy)),
        );
        metrics
    }
}

/// Retrieval among the samples of the indices given.
fn pairs(embedded: &Embedded, indices: &[usize]) -> Result<Option<PairReport>> {
    let Some(texts) = &embedded.texts else { return Ok(None) };
    let rows = Tensor::from_slice(&indices.iter().map(|&index| index as i64).collect::<Vec<_>>());
    let (images, texts) =
        mm_sys::inference_mode(|| (embedded.images.index_select(0, &rows), texts.index_select(0, &rows)));
    Ok(Some(PairReport {
        pairs: indices.len(),
        image_to_text: Retrieval::measure(&images, indices, &texts, indices)?,
        text_to_image: Retrieval::measure(&texts, indices, &images, indices)?,
    }))
}

fn zero_shot(
    bundle: &ClipPipeline,
    embedded: &Embedded,
    templates: &Templates,
    batch_size: usize,
) -> Result<Option<ZeroShotReport>> {
    let Some(truth) = labels_of(&embedded.samples)? else { return Ok(None) };
    let labels: Vec<&str> = truth.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let indices: Vec<usize> =
        truth.iter().map(|&label| labels.partition_point(|&other| other < label)).collect();
    let labels = labels.into_iter().map(str::to_owned).collect();
    let classifier = ZeroShot::new(bundle, labels, templates, batch_size)?;
    classifier.evaluate(&embedded.images, &indices).map(Some)
}

/// The label of each sample; none where one has none.
fn labels_of(samples: &[EvalSample]) -> Result<Option<Vec<&str>>> {
    let labels: Option<Vec<&str>> = samples.iter().map(|sample| sample.label.as_deref()).collect();
    let empty = |(sample, label): (&EvalSample, &&str)| label.trim().is_empty().then(|| sample.key.clone());
    match labels.as_ref().and_then(|labels| samples.iter().zip(labels).find_map(empty)) {
        Some(key) => Err(Error::Evaluation(format!(
            "the label of {key} is empty: fill it in, or leave labels out of the set"
        ))),
        None => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_labels_where_all_samples_have_one_and_none_is_empty() {
        let labels = |labels: &[Option<&str>]| {
            let sample = |(index, label): (usize, &Option<&str>)| EvalSample {
                index,
                key: format!("sample {index}"),
                caption: None,
                label: label.map(str::to_owned),
                is_variant: false,
            };
            let samples: Vec<EvalSample> = labels.iter().enumerate().map(sample).collect();
            labels_of(&samples)
                .map(|labels| labels.map(|labels| labels.join(",")))
                .map_err(|error| error.to_string())
        };
        assert_eq!(labels(&[Some("cat"), Some("dog")]).unwrap().as_deref(), Some("cat,dog"));
        assert_eq!(labels(&[Some("cat"), None]).unwrap(), None);
        assert!(labels(&[Some("cat"), Some(" ")]).unwrap_err().contains("the label of sample 1 is empty"));
    }
}
