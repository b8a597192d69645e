//! The pictures of an evaluation: images with prompts and answers.

use super::conversation::Reference;
use super::evaluate::EvalAnswer;
use crate::Result;
use mm_data::html::thumbnail;
use mm_train::{EvalSet, Figure, Section, SectionRow};

/// Conversations that are shown.
const SHOWN: usize = 12;
/// Images of one conversation that are shown.
const IMAGES: usize = 4;
/// Side of the pictures in pixels.
const SIDE: u32 = 160;

/// Conversations spread evenly over the set, with the model's answers.
///
/// # Errors
/// An image cannot be read again.
pub(crate) fn draw(set: &EvalSet, answers: &[EvalAnswer]) -> Result<Vec<Section>> {
    let shown = SHOWN.min(answers.len());
    let row = |place: usize| -> Result<SectionRow> {
        let answer = &answers[(2 * place + 1) * answers.len() / (2 * shown)];
        let sample = set.sample(answer.index)?;
        let figure = |image: &mm_data::SampleImage| -> Result<Figure> {
            let image = thumbnail(&image.decode(set.background)?, SIDE);
            Ok(Figure { image, caption: answer.prompt.clone(), is_framed: false })
        };
        let right = match &answer.reference {
            Reference::Question(question) => question.answers.join(", "),
            Reference::Chat | Reference::Document(_) | Reference::Captions(_) => answer.right.clone(),
        };
        let cut = if answer.finished { "" } else { " (cut at max_new_tokens)" };
        let blind = answer.blind_answer.as_ref();
        let blind = blind.map_or(String::new(), |blind| format!("; about a blank image: {blind}"));
        Ok(SectionRow {
            label: format!("{} {}", answer.prompt, answer.answer),
            note: format!("the given answer: {right}{blind}{cut}"),
            figures: sample.images.iter().take(IMAGES).map(figure).collect::<Result<_>>()?,
        })
    };
    Ok(vec![Section {
        title: "Conversations".to_owned(),
        text: "Conversations spread evenly over the set: the last prompt and the model's answer to it."
            .to_owned(),
        rows: (0..shown).map(row).collect::<Result<_>>()?,
    }])
}
