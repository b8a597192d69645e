//! The pictures of an evaluation: images with their questions and answers.

use crate::{QuestionAnswers, Result, VqaPipeline, answer_attention};
use mm_data::html::thumbnail;
use mm_image::draw_strip;
use mm_train::{EvalSet, Figure, Section, SectionRow};

/// Questions that are shown.
const SHOWN: usize = 12;
/// Side of the pictures in pixels.
const SIDE: u32 = 160;
/// Side of a heat map in pixels.
const MAP: u32 = 96;

/// Answered questions with the attention of the answers, spread evenly over the set.
///
/// # Errors
/// An image cannot be read again.
pub(crate) fn draw(
    pipeline: &VqaPipeline,
    set: &EvalSet,
    answered: &[QuestionAnswers],
) -> Result<Vec<Section>> {
    let shown = SHOWN.min(answered.len());
    let row = |place: usize| -> Result<SectionRow> {
        let question = &answered[(2 * place + 1) * answered.len() / (2 * shown)];
        let image = set.sample(question.index)?.image()?.decode(set.background)?;
        let attention = answer_attention(pipeline, &image, &question.question.text)?;
        let strip = draw_strip(&pipeline.parts.processor.resize(&image)?, &attention.heat_maps(), MAP);
        let best = question.answers.first().map_or("", |answer| &answer.answer);
        let figure = |image, caption: String| Figure { image, caption, is_framed: false };
        let answers = question.answers.iter().take(3);
        let answers = answers.map(|it| format!("{} {:.1} %", it.answer, 100.0 * it.probability));
        let right = question.question.answers.first().map_or("unknown", String::as_str);
        Ok(SectionRow {
            label: format!("{} {best}", question.question.text),
            note: format!("{}; the given answer: {right}", answers.collect::<Vec<_>>().join(", ")),
            figures: vec![
                figure(thumbnail(&image, SIDE), question.question.text.clone()),
                figure(strip, format!("attention over the image for the answer {best}")),
            ],
        })
    };
    Ok(vec![Section {
        title: "Questions".to_owned(),
        text: "Questions spread evenly over the set, with the model's answer and the most probable ones. \
               Beside each image: where the model looks, by layer and rolled out over all layers."
            .to_owned(),
        rows: (0..shown).map(row).collect::<Result<_>>()?,
    }])
}
