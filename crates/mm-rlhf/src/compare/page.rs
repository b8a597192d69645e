//! The pictures of an evaluation's page.

use super::evaluate::{Made, Maker, Prompt};
use crate::Result;
use mm_diffusion::enlarged;
use mm_image::RgbImage;
use mm_train::{Figure, Section, SectionRow};

/// Prompts whose images are shown.
pub(super) const SHOWN: usize = 16;

/// Prompts of the sweep, and the shares of the way from the initial weights to the trained ones, and beyond.
const SWEPT: usize = 6;
const SCALES: [f64; 5] = [0.0, 0.5, 1.0, 1.5, 2.0];

/// The images before and after, and those of weights between and beyond.
///
/// # Errors
/// An image cannot be made.
pub(super) fn sections(
    maker: &Maker,
    prompts: &[Prompt],
    (before, after): (&[Made], &[Made]),
) -> Result<Vec<Section>> {
    let text = |index: usize| {
        prompts.iter().find(|prompt| prompt.index == index).map_or("", |prompt| prompt.text.as_str())
    };
    let row = |(before, after): (&Made, &Made)| {
        let each = [("before", before), ("after", after)].into_iter();
        let figures = each.flat_map(|(name, made)| {
            let scored = made.pictures.iter().zip(made.scores.reward());
            scored.map(move |(picture, reward)| figure(picture, format!("{name}: {reward:.2}")))
        });
        SectionRow { label: text(before.index).to_owned(), note: String::new(), figures: figures.collect() }
    };
    let grid = Section {
        title: "Before and after".to_owned(),
        text: "Images of held-out prompts by the initial model and by the policy, from the same noise, each \
               with its reward."
            .to_owned(),
        rows: before.iter().zip(after).take(SHOWN).map(row).collect(),
    };
    let swept: Vec<&Prompt> = after
        .iter()
        .take(SWEPT)
        .filter_map(|made| prompts.iter().find(|prompt| prompt.index == made.index))
        .collect();
    let mut rows: Vec<SectionRow> = swept
        .iter()
        .map(|prompt| SectionRow { label: prompt.text.clone(), ..SectionRow::default() })
        .collect();
    for scale in SCALES {
        let made =
            maker.baseline.reference.scaled(scale, || maker.make(&swept, "sweep", &mut |_, _| Ok(())))?;
        for (row, made) in rows.iter_mut().zip(&made) {
            let picture = made.pictures.first().zip(made.scores.reward().first());
            let shown = |(picture, reward)| figure(picture, format!("{scale}: {reward:.2}"));
            row.figures.extend(picture.map(shown));
        }
    }
    let sweep = Section {
        title: "From the initial weights to the trained ones, and beyond".to_owned(),
        text: "0 is the initial model, 1 the policy: the scale of its adapters, where it has any. Where \
               images fall apart soon after 1, the reward was raised too far."
            .to_owned(),
        rows,
    };
    Ok(vec![grid, sweep])
}

fn figure(picture: &RgbImage, caption: String) -> Figure {
    Figure { image: enlarged(picture), caption, is_framed: false }
}
