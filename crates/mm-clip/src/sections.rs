//! The pictures of an evaluation: the images found for texts, and heat maps.

use crate::{ClipPipeline, Embedded, Error, EvalSample, Result, heat_map, relevance};
use mm_data::html::thumbnail;
use mm_image::RgbImage;
use mm_image::image::imageops::{self, FilterType};
use mm_train::{EvalSet, Figure, Section, SectionRow};
use tch::Tensor;

/// Texts whose best images are shown.
const TEXTS: usize = 20;
/// Images that are shown for each text.
const FOUND: usize = 5;
/// Images whose heat map is shown.
const HEAT_MAPS: usize = 6;
/// Sides of the pictures in pixels.
const SMALL: u32 = 72;
const LARGE: u32 = 160;

/// The sections of a set with captions; none for a set without.
///
/// # Errors
/// An image cannot be read again, or a heat map cannot be computed.
pub(crate) fn draw(pipeline: &ClipPipeline, set: &EvalSet, embedded: &Embedded) -> Result<Vec<Section>> {
    let Some(texts) = &embedded.texts else { return Ok(Vec::new()) };
    let count = embedded.samples.len();
    let searches = spread(count, TEXTS).map(|row| search(set, embedded, texts, row));
    let mut sections = vec![Section {
        title: "Text to image".to_owned(),
        text: "Captions spread evenly over the set with the nearest images. The image that the caption \
               belongs to is framed."
            .to_owned(),
        rows: searches.collect::<Result<_>>()?,
    }];
    let maps = spread(count, HEAT_MAPS).map(|row| explain(pipeline, set, &embedded.samples[row]));
    match maps.collect() {
        Ok(rows) => sections.push(Section {
            title: "Heat maps".to_owned(),
            text: "Red regions contribute most to the similarity of image and caption.".to_owned(),
            rows,
        }),
        Err(Error::NoGradients) => {} // packed for inference, or locked
        Err(error) => return Err(error),
    }
    Ok(sections)
}

/// `wanted` numbers below `count`, evenly spread: the same in every run, and none chosen for its looks.
fn spread(count: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(count);
    (0..wanted).map(move |index| (2 * index + 1) * count / (2 * wanted))
}

fn search(set: &EvalSet, embedded: &Embedded, texts: &Tensor, row: usize) -> Result<SectionRow> {
    let scores = tch::no_grad(|| embedded.images.matmul(&texts.get(row as i64)).contiguous());
    let scores = Vec::<f32>::try_from(scores)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let rank = 1 + order.iter().position(|&index| index == row).unwrap_or(order.len());
    let figure = |index: usize| {
        let sample = &embedded.samples[index];
        let image = thumbnail(&image_of(set, sample)?, SMALL);
        Ok(Figure { image, caption: caption(sample), is_framed: index == row })
    };
    Ok(SectionRow {
        label: caption(&embedded.samples[row]),
        note: format!("rank {rank}"),
        figures: order.into_iter().take(FOUND).map(figure).collect::<Result<_>>()?,
    })
}

fn explain(pipeline: &ClipPipeline, set: &EvalSet, sample: &EvalSample) -> Result<SectionRow> {
    let image = image_of(set, sample)?;
    let caption = caption(sample);
    let relevance = relevance(pipeline, &image, &caption)?;
    let crop = pipeline.image.processor.resize(&image)?;
    let heat = heat_map::draw(&relevance, &crop, LARGE);
    let figure = |image, caption| Figure { image, caption, is_framed: false };
    Ok(SectionRow {
        note: format!("cosine {:.2}", relevance.similarity),
        figures: vec![
            figure(imageops::resize(&crop, LARGE, LARGE, FilterType::Triangle), caption.clone()),
            figure(heat, format!("heat map for {caption}")),
        ],
        label: caption,
    })
}

fn image_of(set: &EvalSet, sample: &EvalSample) -> Result<RgbImage> {
    Ok(set.sample(sample.index)?.image()?.decode(set.background)?)
}

fn caption(sample: &EvalSample) -> String {
    sample.caption.clone().unwrap_or_default()
}
