//! The pictures of an evaluation's page.

use super::config::DiffusionRunConfig;
use super::samples::{Made, Prompt, generate_options};
use crate::Result;
use crate::pipeline::{DiffusionPipeline, ImageRequest, enlarged};
use mm_image::{WordAttention, draw_strip};
use mm_train::{Figure, Section, SectionRow};

/// Prompts whose images are shown.
const SHOWN: usize = 24;

/// Prompts whose attention is shown, and the side of a heat map in pixels.
const EXPLAINED: usize = 6;
const MAP: u32 = 96;

/// The images of each guidance scale, and the attention of the first ones to the words of their prompts.
///
/// # Errors
/// An image cannot be made again.
pub(super) fn sections(
    pipeline: &DiffusionPipeline,
    config: &DiffusionRunConfig,
    prompts: &[Prompt],
    columns: &[(f64, &[Made])],
) -> Result<Vec<Section>> {
    let mut sections = vec![images(prompts, columns)];
    let explained: Vec<(usize, &Prompt)> =
        prompts.iter().enumerate().filter(|(_, prompt)| prompt.edit.is_none()).take(EXPLAINED).collect();
    let Some(&(guidance, _)) = columns.first().filter(|_| !explained.is_empty()) else {
        return Ok(sections);
    };
    let row = |(index, prompt): (usize, &Prompt)| -> Result<SectionRow> {
        let request = ImageRequest { prompt: prompt.text.clone(), negative_prompt: None, seed: index as u64 };
        let options = generate_options(config, guidance);
        let (made, words) = pipeline.generate_with_attention(&request, None, &options, &mut |_| Ok(()))?;
        let maps: Vec<_> = words.iter().map(WordAttention::heat_map).collect();
        let figure = Figure {
            image: draw_strip(&enlarged(&made.picture), &maps, MAP),
            caption: "the image, and its attention to each word".to_owned(),
            is_framed: false,
        };
        Ok(SectionRow { label: prompt.text.clone(), note: String::new(), figures: vec![figure] })
    };
    sections.push(Section {
        title: "Attention to the words".to_owned(),
        text:
            "How much each part of an image attends to each word of its prompt: the mean over heads, layers \
               and steps, from blue (least) to red (most)."
                .to_owned(),
        rows: explained.into_iter().map(row).collect::<Result<_>>()?,
    });
    Ok(sections)
}

/// The images of the first prompts, one for each guidance scale.
fn images(prompts: &[Prompt], columns: &[(f64, &[Made])]) -> Section {
    let row = |(index, prompt): (usize, &Prompt)| {
        let mut figures = Vec::new();
        if let Some([before, _]) = &prompt.edit {
            figures.push(Figure { image: enlarged(before), caption: "before".to_owned(), is_framed: false });
        }
        let mut notes = Vec::new();
        for (guidance, made) in columns {
            if let Some(made) = made.iter().find(|made| made.index == index) {
                let verdict = made.judged.verdict.map(|verdict| verdict.all_right());
                notes.extend(
                    verdict.map(|right| format!("{guidance}: {}", if right { "right" } else { "wrong" })),
                );
                figures.push(Figure {
                    image: enlarged(&made.picture),
                    caption: format!("guidance {guidance}"),
                    is_framed: verdict == Some(true),
                });
            }
        }
        SectionRow { label: prompt.text.clone(), note: notes.join(", "), figures }
    };
    // Each process made its share of the images.
    let is_own = |index: usize| columns.iter().any(|(_, made)| made.iter().any(|made| made.index == index));
    let own = prompts.iter().enumerate().filter(|&(index, _)| is_own(index));
    Section {
        title: "Generated images".to_owned(),
        text:
            "One image a prompt and guidance scale, each with the prompt's number as its seed. Framed: the \
               judge finds it right."
                .to_owned(),
        rows: own.take(SHOWN).map(row).collect(),
    }
}
