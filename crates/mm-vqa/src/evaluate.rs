//! Evaluation: answers to a set's questions, measured against the given ones.

use crate::run_config::VqaRunConfig;
use crate::{QuestionAnswers, Result, SetAnswerer, VqaPipeline, report, sections};
use mm_train::{EvalContext, EvalSet, Evaluation, gather};

/// Answers that are kept of each question.
const TOP: usize = 5;

/// Measures `pipeline` on `set`.
///
/// # Errors
/// The set cannot be read, questions cannot be answered, or another process is lost.
pub(crate) fn evaluate(
    pipeline: &VqaPipeline,
    config: &VqaRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let blind = config.input.blind;
    let mode = config.answering.mode(pipeline);
    let answerer = SetAnswerer { pipeline, mode, top: TOP, blind, blind_baseline: !blind };
    let mut own = Vec::new();
    let read = answerer.answer_set(set, context, |answers| {
        own.extend(answers);
        Ok(())
    })?;
    let mut answered: Vec<QuestionAnswers> = gather(context.group, &own)?;
    // The sort is stable: the questions of an image stay in order.
    answered.sort_by_key(|question| question.index);
    let mut evaluation =
        report::measure(&set.name, &answered, pipeline.parts.baselines.as_deref(), &config.metrics)?;
    if context.wants_sections {
        evaluation.sections = sections::draw(pipeline, set, &answered)?;
    }
    Ok(Evaluation { bad_samples: read.bad.len(), credit: set.credit().to_owned(), ..evaluation })
}
