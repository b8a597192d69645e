//! The pictures of an evaluation: images with their captions.

use crate::evaluate::EvalCaption;
use crate::metrics::CaptionMetrics;
use crate::metrics::scenes::SceneScore;
use crate::{CaptionPipeline, Result, word_attention};
use mm_data::html::thumbnail;
use mm_image::{WordAttention, draw_strip};
use mm_train::{EvalSet, Figure, Section, SectionRow};

/// Images that are shown.
const SHOWN: usize = 12;
/// Side of the pictures in pixels.
const SIDE: u32 = 160;

/// Images whose attention is shown, and the side of a heat map in pixels.
const EXPLAINED: usize = 4;
const MAP: u32 = 96;

/// Captioned pictures, spread evenly over the set.
///
/// # Errors
/// An image cannot be read again, or its caption cannot be decoded.
pub(crate) fn draw(
    pipeline: &CaptionPipeline,
    prompt: &str,
    set: &EvalSet,
    captions: &[EvalCaption],
    measured: &CaptionMetrics,
    scenes: &[SceneScore],
) -> Result<Vec<Section>> {
    let shown = SHOWN.min(captions.len());
    let row = |place: usize| -> Result<SectionRow> {
        let index = (2 * place + 1) * captions.len() / (2 * shown);
        let caption = &captions[index];
        let image = set.sample(caption.index)?.image()?.decode(set.background)?;
        let mut figures = vec![Figure {
            image: thumbnail(&image, SIDE),
            caption: caption.caption.clone(),
            is_framed: false,
        }];
        if place < EXPLAINED && pipeline.description.model.prefix_length() == 0 {
            let words = word_attention(pipeline, &image, prompt, &caption.tokens)?;
            let maps: Vec<_> = words.iter().map(WordAttention::heat_map).collect();
            figures.push(Figure {
                image: draw_strip(&pipeline.processor.resize(&image)?, &maps, MAP),
                caption: format!("attention over the image for each word of: {}", caption.caption),
                is_framed: false,
            });
        }
        let cider_d = measured.per_image[index].scores.get("cider_d").unwrap_or(0.0);
        let verdict = match scenes.get(index) {
            Some(score) if score.is_faithful() => "; true",
            Some(_) => "; false",
            None => "",
        };
        let reference = caption.references.first().map_or("", String::as_str);
        Ok(SectionRow {
            label: caption.caption.clone(),
            note: format!("CIDEr-D {cider_d:.2}{verdict}; reference: {reference}"),
            figures,
        })
    };
    Ok(vec![Section {
        title: "Captions".to_owned(),
        text:
            "Images spread evenly over the set, with the model's captions. Beside the first ones: where the \
               decoder looks for each word."
                .to_owned(),
        rows: (0..shown).map(row).collect::<Result<_>>()?,
    }])
}
