//! One page about a run that people look at: how the loss fell, what the model finds, where it looks.

mod chart;
mod html;

use crate::{ClipPipeline, Embedded, Error, EvalReport, EvalSet, Relevance, Result, heat_map, relevance};
use chart::Curve;
use mm_core::checkpoint::write_atomically;
use mm_data::html::{data_url, thumbnail};
use mm_image::RgbImage;
use std::path::Path;
use tch::Tensor;

/// What a report is made of.
pub struct Report<'a> {
    /// The run's name.
    pub title: &'a str,
    /// The text of the run's `metrics.jsonl`.
    pub metrics: &'a str,
    /// What the model reached.
    pub evaluation: &'a EvalReport,
    /// The set that it was evaluated on.
    pub set: &'a EvalSet,
    /// The set, embedded.
    pub embedded: &'a Embedded,
    /// Whose pictures are shown, and under which licence.
    pub credit: &'a str,
}

/// Texts whose best images are shown.
const TEXTS: usize = 20;
/// Images that are shown for each text.
const FOUND: usize = 5;
/// Images whose heat map is shown.
const HEAT_MAPS: usize = 6;

/// A text and the images found for it.
struct Search {
    text: String,
    /// Picture, its own caption, whether it is the one that belongs to the text.
    found: Vec<(String, String, bool)>,
    /// Place of the image that belongs to the text, from 1.
    rank: usize,
}

/// An image, and what of it speaks for its caption.
struct HeatMap {
    caption: String,
    similarity: f64,
    picture: String,
    heat: String,
}

/// Writes `report` as one HTML file with everything in it.
///
/// # Errors
/// The set has no captions, a heat map cannot be made, or the file cannot be written.
pub fn write_report(report: &Report, bundle: &ClipPipeline, file: &Path) -> Result<()> {
    let texts = report.embedded.texts.as_ref();
    let texts = texts.ok_or_else(|| Error::Evaluation("a report needs a set with captions".to_owned()))?;
    let count = report.embedded.samples.len();
    let searches = spread(count, TEXTS).map(|row| search(report, texts, row)).collect::<Result<Vec<_>>>()?;
    let heat_maps =
        spread(count, HEAT_MAPS).map(|row| explain(bundle, report, row)).collect::<Result<Vec<_>>>()?;
    let curves = Curve::read_all(report.metrics);
    let page = html::page(report, &curves, &searches, &heat_maps);
    write_atomically(file, |to| {
        std::fs::write(to, page).map_err(|source| mm_core::Error::io("write", file, source))
    })?;
    Ok(())
}

/// `wanted` numbers below `count`, evenly spread: the same for each run, and none chosen for its looks.
fn spread(count: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(count);
    (0..wanted).map(move |index| (2 * index + 1) * count / (2 * wanted))
}

fn search(report: &Report, texts: &Tensor, row: usize) -> Result<Search> {
    let embedded = report.embedded;
    let scores = tch::no_grad(|| embedded.images.matmul(&texts.get(row as i64)).contiguous());
    let scores = Vec::<f32>::try_from(scores)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let rank = 1 + order.iter().position(|&index| index == row).unwrap_or(order.len());
    let found = order.into_iter().take(FOUND).map(|index| {
        let sample = &embedded.samples[index];
        let image = report.set.image(sample.index)?;
        Ok((picture(&image, 72), sample.caption.clone().unwrap_or_default(), index == row))
    });
    let found = found.collect::<Result<_>>()?;
    Ok(Search { text: embedded.samples[row].caption.clone().unwrap_or_default(), found, rank })
}

fn explain(bundle: &ClipPipeline, report: &Report, row: usize) -> Result<HeatMap> {
    let sample = &report.embedded.samples[row];
    let image = report.set.image(sample.index)?;
    let caption = sample.caption.clone().unwrap_or_default();
    let relevance: Relevance = relevance(bundle, &image, &caption)?;
    let crop = bundle.image.processor.resize(&image)?;
    let heat = heat_map::draw(&relevance, &crop, 160);
    Ok(HeatMap {
        caption,
        similarity: relevance.similarity,
        picture: picture(&crop, 160),
        heat: data_url(&heat),
    })
}

/// The image as a data URL, its longer side at most `side` pixels.
fn picture(image: &RgbImage, side: u32) -> String {
    data_url(&thumbnail(image, side))
}
