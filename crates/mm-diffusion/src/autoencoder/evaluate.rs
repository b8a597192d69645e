//! Evaluation: how near reconstructions come to their images.

use super::config::AutoencoderRunConfig;
use super::task::{AutoencoderItem, pixel_values, preprocess};
use crate::Result;
use crate::pipeline::{enlarged, to_pictures};
use crate::vae::Vae;
use mm_image::RgbImage;
use mm_sys::inference_mode;
use mm_train::{EvalContext, EvalSet, Evaluation, Figure, Metric, Section, SectionRow, gather};
use tch::{Kind, Tensor};

/// Images that are shown with their reconstructions.
const SHOWN: usize = 24;

/// Measures `vae` on `set`: reconstructions of the mean of the latents.
///
/// # Errors
/// The set cannot be read, or another process is lost.
pub(super) fn evaluate(
    vae: &Vae,
    config: &AutoencoderRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let (mut own, mut shown) = (Vec::new(), Vec::new());
    let read =
        set.for_each_batch(context, preprocess(vae, None, config.data.background), |items, indices| {
            let (measures, found) = inference_mode(|| reconstruct(vae, &items));
            own.extend(measures);
            if context.wants_sections && shown.len() < SHOWN {
                let rows = indices.into_iter().zip(items).zip(to_pictures(&found));
                shown.extend(
                    rows.take(SHOWN - shown.len()).map(|((index, item), found)| row(index, item, found)),
                );
            }
            Ok(())
        })?;
    let all: Vec<Measures> = gather(context.group, &own)?;
    let mean = |of: &dyn Fn(&Measures) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
    let (first, second) = (mean(&|measures| measures.latents[0]), mean(&|measures| measures.latents[1]));
    Ok(Evaluation {
        set: set.name.clone(),
        samples: all.len(),
        bad_samples: read.bad.len(),
        metrics: vec![
            Metric::headline("psnr", mean(&|measures| measures.psnr)),
            Metric::new("l1", mean(&|measures| measures.l1)),
            Metric::new("kl", mean(&|measures| measures.kl)),
            Metric::new("latents_std", (second - first * first).max(0.0).sqrt()),
        ],
        sections: if shown.is_empty() { Vec::new() } else { vec![section(shown)] },
        credit: set.credit().to_owned(),
        ..Evaluation::default()
    })
}

/// What is measured of an image.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Measures {
    /// The peak signal-to-noise ratio in decibels, of pixels from 0 to 1.
    psnr: f64,
    /// The mean absolute error of pixels from -1 to 1.
    l1: f64,
    /// The divergence of the latents from the standard normal distribution, a number of them.
    kl: f64,
    /// The mean of the latents, and that of their squares.
    latents: [f64; 2],
}

/// The least squared error of a pixel that a ratio is taken of: that of a hundredth of a level of 255.
const LEAST: f64 = 1.5e-9;

/// The measures of `items`, and their reconstructions `[B, 3, H, W]`.
fn reconstruct(vae: &Vae, items: &[AutoencoderItem]) -> (Vec<Measures>, Tensor) {
    let pixels = pixel_values(items, vae.device());
    let encoded = vae.encode(&pixels);
    let found = vae.decode(&encoded.mean).clamp(-1.0, 1.0);
    let mean = |x: &Tensor| -> Vec<f64> {
        let means = x.to_kind(Kind::Double).mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double);
        means.try_into().unwrap_or_default()
    };
    let off = &found - &pixels;
    let (squared, absolute) = (mean(&(&off * 0.5).square()), mean(&off.abs()));
    let (first, second) = (mean(&encoded.mean), mean(&encoded.mean.square()));
    let numbers = encoded.mean.size()[1..].iter().product::<i64>() as f64;
    let kl: Vec<f64> = (encoded.kl() / numbers).to_kind(Kind::Double).try_into().unwrap_or_default();
    let measures = |index: usize| Measures {
        psnr: -10.0 * squared[index].max(LEAST).log10(),
        l1: absolute[index],
        kl: kl[index],
        latents: [first[index], second[index]],
    };
    ((0..items.len()).map(measures).collect(), found)
}

fn row(index: usize, item: AutoencoderItem, found: RgbImage) -> SectionRow {
    let figure = |image: RgbImage, caption: &str| Figure {
        image: enlarged(&image),
        caption: caption.to_owned(),
        is_framed: false,
    };
    SectionRow {
        label: format!("image {index}"),
        note: String::new(),
        figures: vec![figure(item.image, "image"), figure(found, "reconstruction")],
    }
}

fn section(rows: Vec<SectionRow>) -> Section {
    Section {
        title: "Reconstructions".to_owned(),
        text: "The first images of the set, and what the decoder makes of the mean of their latents."
            .to_owned(),
        rows,
    }
}
