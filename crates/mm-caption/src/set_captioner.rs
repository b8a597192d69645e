//! Captions of all images of a set, in batches, ordered by their scores or by a CLIP.

use crate::metrics::cosines_at;
use crate::{Caption, CaptionPipeline, Result};
use mm_clip::ClipPipeline;
use mm_data::{Fault, Item, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;
use mm_train::{EvalContext, EvalSet, ReadReport};
use std::sync::Arc;
use tch::Tensor;

/// How the images of a set are captioned.
#[derive(Clone, Copy, Debug)]
pub struct SetCaptioner<'a> {
    /// The captioner.
    pub pipeline: &'a CaptionPipeline,
    /// What all captions begin with.
    pub prompt: &'a str,
    /// How they are generated. Image `i` of the set draws by the seed `i`, so that its captions do not depend
    /// on the batch that it is in, nor on whether the images before it can be read.
    pub generation: &'a GenerationConfig,
    /// The CLIP that orders the captions of an image by its cosine with each of them.
    pub rerank: Option<&'a ClipPipeline>,
}

/// An image of a set with its captions, the best first.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageCaptions {
    /// The number of the image in the set.
    pub index: usize,
    /// The key of its sample.
    pub key: String,
    /// Its captions.
    pub captions: Vec<Caption>,
}

/// An image resized for each model that sees it.
pub(crate) struct Resized {
    /// The key of its sample.
    pub key: String,
    /// For the captioner.
    pub image: RgbImage,
    /// For the CLIP, where there is one.
    pub for_clip: Option<RgbImage>,
}

impl Item for Resized {
    fn bytes(&self) -> usize {
        self.image.bytes() + self.for_clip.as_ref().map_or(0, Item::bytes)
    }
}

impl SetCaptioner<'_> {
    /// Captions the images of `set` that can be read, in order, and calls `body` with each batch. Images are
    /// decoded ahead of the model.
    ///
    /// # Errors
    /// More images are bad than the set allows, `body` fails, or as [`CaptionPipeline::generate`].
    pub fn caption_set(
        &self,
        set: &EvalSet,
        context: &EvalContext,
        mut body: impl FnMut(Vec<ImageCaptions>) -> mm_train::Result<()>,
    ) -> Result<ReadReport> {
        let resize = resize(self.pipeline, self.rerank, set);
        let map: Map<Resized> = Arc::new(move |sample: &Sample, _: &mut SampleRng| resize(sample));
        let read =
            set.for_each_batch(context, map, |items, indices| body(self.caption_batch(items, &indices)?))?;
        Ok(read)
    }

    fn caption_batch(&self, items: Vec<Resized>, indices: &[usize]) -> Result<Vec<ImageCaptions>> {
        let (mut keys, mut images, mut for_clip) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            keys.push(item.key);
            images.push(item.image);
            for_clip.extend(item.for_clip);
        }
        let prompts = self.pipeline.prompts(self.prompt, indices.iter().map(|&index| index as u64))?;
        let states = self.pipeline.encode_resized(&images)?;
        let texts = self.pipeline.generate(&states, &prompts, self.generation)?;
        let captions =
            texts.iter().zip(&prompts).map(|(texts, prompt)| self.pipeline.captions(prompt, texts));
        let mut captions: Vec<Vec<Caption>> = captions.collect::<Result<_>>()?;
        if let Some(clip) = self.rerank {
            rerank(clip, &clip.image.embed_resized(&for_clip)?, &mut captions)?;
        }
        let of_image = keys.into_iter().zip(indices).zip(captions);
        Ok(of_image.map(|((key, &index), captions)| ImageCaptions { index, key, captions }).collect())
    }
}

/// Decodes the image of a sample of `set` and resizes it for `pipeline` and `clip`.
pub(crate) fn resize(
    pipeline: &CaptionPipeline,
    clip: Option<&ClipPipeline>,
    set: &EvalSet,
) -> impl Fn(&Sample) -> mm_data::Result<Resized> + Send + Sync + 'static + use<> {
    let processor = pipeline.processor.clone();
    let clip_processor = clip.map(|clip| clip.image.processor.clone());
    let (background, fast_decode) = (set.background, set.fast_decode);
    move |sample| {
        let processors = || std::iter::once(&processor).chain(&clip_processor);
        let divisor = |width, height| {
            let divisors = processors().map(|processor| processor.largest_divisor(width, height));
            if fast_decode { divisors.min().unwrap_or(1) } else { 1 }
        };
        let image = sample.image()?.decode_reduced(background, divisor)?;
        let bad = |error: mm_vision::Error| mm_data::Error::bad(Fault::Image, error.to_string());
        let for_clip = clip_processor.as_ref().map(|processor| processor.resize_reduced(&image));
        Ok(Resized {
            key: sample.key.clone(),
            image: processor.resize_reduced(&image).map_err(bad)?,
            for_clip: for_clip.transpose().map_err(bad)?,
        })
    }
}

/// Sets the `clip_score` of the captions of each image, with the unit rows `images` `[B, D]`, and puts the
/// highest first. A caption that has none, because the tokenizer of the CLIP refuses it, comes last.
///
/// # Errors
/// libtorch refuses an operation.
fn rerank(clip: &ClipPipeline, images: &Tensor, captions: &mut [Vec<Caption>]) -> Result<()> {
    let texts: Vec<&str> = captions.iter().flatten().map(|caption| caption.caption.as_str()).collect();
    let places: Vec<i64> = (0..).zip(&*captions).flat_map(|(image, of)| vec![image; of.len()]).collect();
    let cosines = match clip.text.embed(&texts, texts.len().max(1)) {
        Ok(rows) => cosines_at(images, &places, &rows)?.into_iter().map(Some).collect(),
        Err(error) => {
            let found = cosines_one_by_one(clip, images, &places, &texts)?;
            let missing = found.iter().filter(|cosine| cosine.is_none()).count();
            tracing::warn!("{missing} captions have no cosine and come last: {error}");
            found
        }
    };
    let mut cosines = cosines.into_iter();
    for of_image in captions {
        for caption in &mut *of_image {
            caption.clip_score = cosines.next().flatten();
        }
        let score = |caption: &Caption| caption.clip_score.unwrap_or(f32::NEG_INFINITY);
        of_image.sort_by(|a, b| score(b).total_cmp(&score(a)));
    }
    Ok(())
}

/// As [`cosines_at`], with none for a text that cannot be embedded.
fn cosines_one_by_one(
    clip: &ClipPipeline,
    images: &Tensor,
    places: &[i64],
    texts: &[&str],
) -> Result<Vec<Option<f32>>> {
    let one = |(text, place): (&&str, &i64)| {
        let Ok(row) = clip.text.embed(&[text], 1) else { return Ok(None) };
        Ok(cosines_at(images, &[*place], &row)?.first().copied())
    };
    texts.iter().zip(places).map(one).collect()
}
