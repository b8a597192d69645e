//! Evaluation of a CLIP on a set: retrieval in both directions, zero-shot classification.

use crate::pipeline::check_rows;
use crate::{
    ClipPipeline, Error, ImageEmbedder, Result, Retrieval, Templates, TextEmbedder, ZeroShot, ZeroShotReport,
};
use mm_data::{BadSample, Fault, Item};
use mm_image::RgbImage;
use mm_train::{Cell, EvalContext, EvalSet, Evaluation, Metric, Table, gather};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// A sample of an evaluation set, without its image.
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

/// A resized image with the rest of its sample.
struct EvalItem {
    image: RgbImage,
    sample: EvalSample,
}

impl Item for EvalItem {
    fn bytes(&self) -> usize {
        self.image.bytes()
    }
}

/// A set's samples with their embeddings.
#[derive(Debug)]
pub struct Embedded {
    /// The samples that could be read, in order.
    pub samples: Vec<EvalSample>,
    /// The samples that could not be read.
    pub bad: Vec<BadSample>,
    /// Unit rows `[N, D]` of the images.
    pub images: Tensor,
    /// Unit rows `[N, D]` of the canonical captions; none if a sample has none, or without a text embedder.
    pub texts: Option<Tensor>,
    /// Time spent waiting for images.
    pub data_wait: Duration,
}

impl Embedded {
    /// Embeds all images of `set`, and with `text` the captions if all samples have one. The ranks share the
    /// work in whole batches, so that each sample is embedded in the batch that one process would put it in,
    /// and all ranks have all rows in the end.
    ///
    /// # Errors
    /// More samples are bad than the set allows, none is good, a row is not finite, or another process is
    /// lost.
    pub fn embed_set(
        image: &ImageEmbedder,
        text: Option<&TextEmbedder>,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Self> {
        let (mut samples, mut rows) = (Vec::with_capacity(set.len()), Vec::new());
        let read = set.for_each_batch(context, resize(image, set), |items: Vec<EvalItem>, indices| {
            let sample = |(item, index): (EvalItem, usize)| (item.image, EvalSample { index, ..item.sample });
            let (images, read): (Vec<_>, Vec<_>) = items.into_iter().zip(indices).map(sample).unzip();
            rows.push(image.embed_resized(&images)?);
            samples.extend(read);
            Ok(())
        })?;
        let own = if rows.is_empty() {
            Tensor::zeros([0, image.encoder.output_width()], (Kind::Float, Device::Cpu))
        } else {
            Tensor::f_cat(&rows, 0)?
        };
        drop(rows);
        let group = context.group;
        let (samples, images) = if group.is_alone() {
            (samples, own)
        } else {
            in_order(gather(group, &samples)?, &group.gather_rows(&own)?)?
        };
        if samples.is_empty() {
            return Err(Error::Evaluation(format!("no sample of the set {} can be read", set.name)));
        }
        check_rows(&images, |row| samples[row].key.clone())?;
        let captions: Option<Vec<&str>> = samples.iter().map(|sample| sample.caption.as_deref()).collect();
        let texts = text
            .zip(captions)
            .map(|(text, captions)| text.embed_among(&captions, context.batch_size, group))
            .transpose()?;
        Ok(Self { images, texts, bad: read.bad, samples, data_wait: read.data_wait })
    }

    /// Retrieval where samples have captions, zero-shot classification where they have labels.
    ///
    /// # Errors
    /// As [`ZeroShot::new`] and [`Retrieval::measure`].
    pub fn evaluate(
        &self,
        pipeline: &ClipPipeline,
        set: &EvalSet,
        templates: &Templates,
        batch_size: usize,
    ) -> Result<Evaluation> {
        let everything: Vec<usize> = (0..self.samples.len()).collect();
        let plain = everything.iter().copied().filter(|&index| !self.samples[index].is_variant);
        let plain: Vec<usize> = plain.collect();
        let has_both = !plain.is_empty() && plain.len() < self.samples.len();
        let all = PairReport::measure(self, &everything)?;
        let without_variants = if has_both { PairReport::measure(self, &plain)? } else { None };
        let zero_shot = zero_shot(pipeline, self, templates, batch_size)?;

        let mut evaluation = Evaluation {
            set: set.name.clone(),
            samples: self.samples.len(),
            bad_samples: self.bad.len(),
            credit: set.credit().to_owned(),
            ..Evaluation::default()
        };
        if let Some(all) = &all {
            evaluation.metrics.extend(all.metrics(""));
            let mut rows = all.rows("all pairs");
            if let Some(plain) = &without_variants {
                evaluation.metrics.extend(plain.metrics("_without_variants"));
                rows.extend(plain.rows("without variants"));
            }
            evaluation.tables.push(Table {
                title: "Retrieval".to_owned(),
                columns: ["", "pairs", "R@1", "R@5", "R@10", "median rank"].map(str::to_owned).into(),
                rows,
            });
        }
        if let Some(zero_shot) = &zero_shot {
            evaluation.metrics.push(Metric::headline("zero_shot_accuracy", zero_shot.accuracy));
            evaluation.tables.push(zero_shot.table());
        }
        Ok(evaluation)
    }
}

/// Decodes and resizes an image, and keeps what an evaluation needs of its sample.
fn resize(image: &ImageEmbedder, set: &EvalSet) -> mm_data::Map<EvalItem> {
    let (background, fast_decode, processor) = (set.background, set.fast_decode, image.processor.clone());
    Arc::new(move |sample: &mm_data::Sample, _: &mut mm_data::SampleRng| {
        let divisor = |width, height| if fast_decode { processor.largest_divisor(width, height) } else { 1 };
        let image = sample.image()?.decode_reduced(background, divisor)?;
        let resized = processor.resize_reduced(&image);
        let image = resized.map_err(|error| mm_data::Error::bad(Fault::Image, error.to_string()))?;
        let sample = EvalSample {
            index: 0, // known once the sample is in its batch
            key: sample.key.clone(),
            caption: sample.captions.first().cloned(),
            label: sample.label.clone(),
            is_variant: sample.variant_of.is_some(),
        };
        Ok(EvalItem { image, sample })
    })
}

/// Samples and their rows in the order of the set.
fn in_order(samples: Vec<EvalSample>, rows: &Tensor) -> Result<(Vec<EvalSample>, Tensor)> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&place| samples[place].index);
    let places: Vec<i64> = order.iter().map(|&place| place as i64).collect();
    let rows = mm_sys::inference_mode(|| rows.f_index_select(0, &Tensor::from_slice(&places)))?;
    Ok((order.into_iter().map(|place| samples[place].clone()).collect(), rows))
}

/// Retrieval in both directions among some pairs of a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// Pairs compared.
    pub pairs: usize,
    /// Finding the text of an image.
    pub image_to_text: Retrieval,
    /// Finding the image of a text.
    pub text_to_image: Retrieval,
}

impl PairReport {
    /// Retrieval among the samples of these indices; none without captions.
    fn measure(embedded: &Embedded, indices: &[usize]) -> Result<Option<Self>> {
        let Some(texts) = &embedded.texts else { return Ok(None) };
        let rows = Tensor::from_slice(&indices.iter().map(|&index| index as i64).collect::<Vec<_>>());
        let (images, texts) =
            mm_sys::inference_mode(|| (embedded.images.index_select(0, &rows), texts.index_select(0, &rows)));
        Ok(Some(Self {
            pairs: indices.len(),
            image_to_text: Retrieval::measure(&images, indices, &texts, indices)?,
            text_to_image: Retrieval::measure(&texts, indices, &images, indices)?,
        }))
    }

    /// The numbers, `text_to_image_r@1` and so on, with `suffix` behind each name. R@1 among all pairs is a
    /// headline.
    fn metrics(&self, suffix: &str) -> Vec<Metric> {
        let ways = [("image_to_text", self.image_to_text), ("text_to_image", self.text_to_image)];
        let of_way = |(way, found): (&str, Retrieval)| {
            found.named().map(|(metric, value)| Metric {
                name: format!("{way}_{metric}{suffix}"),
                value,
                is_headline: metric == "r@1" && suffix.is_empty(),
            })
        };
        ways.into_iter().flat_map(of_way).collect()
    }

    /// The rows of the retrieval table, with those of a random ranking.
    fn rows(&self, pairs: &str) -> Vec<Vec<Cell>> {
        let ways = [
            ("image to text", self.image_to_text),
            ("text to image", self.text_to_image),
            ("chance", Retrieval::chance(self.pairs)),
        ];
        let row = |(way, found): (&str, Retrieval)| {
            vec![
                Cell::Text(format!("{pairs}, {way}")),
                Cell::Count(self.pairs as u64),
                Cell::Share(found.recall_at_1),
                Cell::Share(found.recall_at_5),
                Cell::Share(found.recall_at_10),
                Cell::Number(found.median_rank),
            ]
        };
        ways.map(row).into()
    }
}

fn zero_shot(
    pipeline: &ClipPipeline,
    embedded: &Embedded,
    templates: &Templates,
    batch_size: usize,
) -> Result<Option<ZeroShotReport>> {
    let Some(truth) = labels_of(&embedded.samples)? else { return Ok(None) };
    let labels: Vec<&str> = truth.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let indices: Vec<usize> =
        truth.iter().map(|&label| labels.partition_point(|&other| other < label)).collect();
    let labels = labels.into_iter().map(str::to_owned).collect();
    let classifier = ZeroShot::new(pipeline, labels, templates, batch_size)?;
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
