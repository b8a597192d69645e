//! From a sample to an item, on a loader thread.

use super::buckets::Buckets;
use super::cache::Cache;
use super::config::{DiffusionRunConfig, InputConfig};
use super::item::{DiffusionItem, Picture, Pictures};
use crate::framing::Framing;
use crate::objective::NoiseDraw;
use crate::pipeline::{Denoiser, DiffusionPipeline};
use crate::text::TextRules;
use crate::textual_inversion::expand;
use crate::{Error, Result};
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_text::Tokenizer;
use rand::RngExt;
use std::sync::Arc;

/// The sizes that images are brought to for `pipeline`.
///
/// # Errors
/// `input.buckets` does not fit the model.
pub(super) fn buckets(config: &DiffusionRunConfig, pipeline: &DiffusionPipeline) -> Result<Buckets> {
    let side = pipeline.image_side();
    let Some(buckets) = &config.input.buckets else { return Ok(Buckets::square(side)) };
    let unit = pipeline.reduction() * pipeline.denoiser.unit();
    let buckets = Buckets::new(buckets, side, unit as u32)?;
    if let Denoiser::Transformer(transformer) = &pipeline.denoiser {
        let most = transformer.config().pos_embed_max_size * unit;
        if i64::from(buckets.largest()) > most {
            return Err(Error::Model(format!(
                "input.buckets: a side of {} pixels is beyond the {most} that the transformer has positions \
                 for (pos_embed_max_size): lower max_aspect",
                buckets.largest()
            )));
        }
    }
    Ok(buckets)
}

/// Reads the images of a sample.
#[derive(Clone, Debug)]
pub(super) struct PictureReader {
    buckets: Buckets,
    background: [u8; 3],
    reads_mask: bool,
    /// Pixels of a latent's side.
    reduction: u32,
}

impl PictureReader {
    pub(super) fn new(config: &DiffusionRunConfig, pipeline: &DiffusionPipeline, buckets: Buckets) -> Self {
        Self {
            buckets,
            background: config.data.background,
            reads_mask: config.input.masked_loss,
            reduction: pipeline.reduction() as u32,
        }
    }

    /// The images of `sample`, brought to the size of a bucket. Without `with_source` the image that is
    /// edited is left out.
    ///
    /// # Errors
    /// An image cannot be read, its aspect is beyond the limit, or a mask has another size.
    pub(super) fn read(&self, sample: &Sample, with_source: bool) -> mm_data::Result<Pictures> {
        let (target, source) = match sample.instruction {
            Some(_) => {
                let [before, after] = sample.image_pair()?;
                (after, Some(before))
            }
            None => (sample.image()?, None),
        };
        let image = target.decode(self.background)?;
        let size = self.buckets.of(image.dimensions())?;
        let framing = Framing::new(image.dimensions(), size);
        let weights = sample.mask.as_ref().filter(|_| self.reads_mask).map(|mask| {
            // On black: what is transparent in a mask is not in it.
            let mask = mask.decode([0; 3])?;
            same_size("mask", mask.dimensions(), image.dimensions())?;
            Ok::<_, mm_data::Error>(framing.weights(mask, self.reduction))
        });
        let source = source.filter(|_| with_source).map(|source| {
            let source = source.decode(self.background)?;
            let framing = Framing::new(source.dimensions(), size);
            Ok::<_, mm_data::Error>(Picture::Pixels(framing.apply(source)))
        });
        Ok(Pictures {
            weights: weights.transpose()?,
            sizes: framing.sizes(),
            source: source.transpose()?,
            image: Picture::Pixels(framing.apply(image)),
        })
    }
}

/// Reads the images or their latents, encodes one prompt, and draws what is random.
pub(super) fn map(
    config: &DiffusionRunConfig,
    pipeline: &DiffusionPipeline,
    reader: PictureReader,
    cache: Option<Arc<Cache>>,
) -> Map<DiffusionItem> {
    let InputConfig { caption_dropout, image_dropout, canonical_share, .. } = config.input;
    let trains_text = pipeline.text.rules == TextRules::Masked;
    let tokenizer: Arc<Tokenizer> = Arc::clone(&pipeline.text.first.tokenizer);
    let (inversion, new_tokens) = (config.textual_inversion.clone(), pipeline.text.new_tokens.clone());
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let caption = sample.draw_caption(canonical_share, rng).map(str::to_owned);
        let (drops_caption, drops_image) =
            (rng.random::<f64>() < caption_dropout, rng.random::<f64>() < image_dropout);
        let level = NoiseDraw::new(rng);
        let noise_seed = rng.random();
        let (prompt, missing) = match (&sample.instruction, &inversion) {
            (Some(instruction), _) => (Some(instruction.clone()), "no instruction".to_owned()),
            (None, Some(inversion)) => {
                let missing = format!("no caption with {}", inversion.token);
                (inversion.drawn_prompt(rng.random(), caption), missing)
            }
            (None, None) => (caption, "no caption".to_owned()),
        };
        let prompt = prompt.ok_or_else(|| mm_data::Error::bad(Fault::NoCaption, missing))?;
        let mut pictures = match &cache {
            Some(cache) => cache.pictures(&sample.key)?,
            None => reader.read(sample, !drops_image)?,
        };
        pictures.source = pictures.source.filter(|_| !drops_image);
        let prompt = if drops_caption { String::new() } else { prompt };
        let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let (token_ids, is_cut) =
            tokenizer.encode_and_tell(&expand(&new_tokens, &prompt)).map_err(unreadable)?;
        let text = cache.as_ref().filter(|_| !trains_text).map(|cache| cache.text(&prompt)).transpose()?;
        Ok(DiffusionItem { pictures, prompt, token_ids, is_cut, text, noise_seed, level })
    })
}

/// # Errors
/// `found` is another size than that of the image.
fn same_size(what: &str, found: (u32, u32), image: (u32, u32)) -> mm_data::Result<()> {
    if found == image {
        return Ok(());
    }
    let problem = format!(
        "its {what} has {} x {} pixels, the image {} x {}: they must be of one size",
        found.0, found.1, image.0, image.1
    );
    Err(mm_data::Error::bad(Fault::Image, problem))
}
