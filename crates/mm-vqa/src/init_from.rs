//! The initial model of a run: from a checkpoint, or new with an image tower from one.

use crate::folder::{Description, VqaFolder};
use crate::run_config::VqaRunConfig;
use crate::training_questions::TrainingQuestions;
use crate::{Answers, Error, Result, VqaModel, VqaModelConfig, VqaPipeline};
use mm_clip::{ImageTowerCheckpoint, run_tokenizer};
use mm_core::nn::take_frozen;
use mm_core::seed;
use mm_train::TaskContext;
use mm_vision::ImageProcessor;
use std::sync::Arc;
use tch::nn::VarStore;

/// Builds the model of `config` on `vs`, and moves a frozen image tower into a store of its own.
///
/// # Errors
/// A checkpoint or the tokenizer cannot be opened, or does not fit.
pub(crate) fn build(
    config: &VqaRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<(VqaPipeline, VarStore)> {
    seed::set(config.run.seed, "init", 0);
    let pipeline = match &config.model.from {
        Some(from) => from_checkpoint(from, config, context, vs)?,
        None => new(config, context, vs)?,
    };
    let root = format!("{}.", pipeline.description.model.image_root());
    let frozen = take_frozen(vs, |name| config.model.freeze_image && name.starts_with(&root));
    Ok((pipeline, frozen))
}

/// The model of the checkpoint `from`; of the run's own checkpoint if that is missing.
fn from_checkpoint(
    from: &str,
    config: &VqaRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<VqaPipeline> {
    let mut folder = match (VqaFolder::open(from), context.checkpoint) {
        (Err(error), Some(checkpoint)) if mm_core::hub::resolve(from).is_err() => {
            let Ok(own) = VqaFolder::open_last_step(checkpoint) else { return Err(error) };
            tracing::warn!(
                "{from} is missing: the run continues with the weights in {}",
                checkpoint.display()
            );
            own
        }
        (folder, _) => folder?,
    };
    folder.description.model.set_gradient_checkpointing(config.train.gradient_checkpointing);
    VqaPipeline::load(&folder, vs)
}

/// A new model, with the image tower of `model.image_from` where that is set.
fn new(config: &VqaRunConfig, context: &TaskContext, vs: &VarStore) -> Result<VqaPipeline> {
    let tower = config.model.image_from.as_deref().map(ImageTowerCheckpoint::open).transpose()?;
    let image = tower.as_ref().map(ImageTowerCheckpoint::config).transpose()?;
    let (questions, answers, baselines) = match context.checkpoint {
        Some(checkpoint) => {
            let folder = VqaFolder::open_last_step(checkpoint)?;
            (TrainingQuestions::default(), folder.description.answers.clone(), folder.baselines()?)
        }
        None => {
            let questions = TrainingQuestions::read(context);
            let config = config.answers.unwrap_or_default();
            let answers = Arc::new(Answers::most_frequent(questions.answer_counts(), config)?);
            let baselines = Some(questions.baselines());
            (questions, answers, baselines)
        }
    };
    let length = config.input.max_question_tokens;
    let tokenizer = run_tokenizer(config.tokenizer.as_ref(), context, questions.texts(), length)?;
    let missing = || Error::Model("[model] has no image tower, question encoder or fusion".to_owned());
    let mut model = config.model.co_attention(image, answers.len() as i64).ok_or_else(missing)?;
    model.question.set_vocabulary(&tokenizer);
    model.set_gradient_checkpointing(config.train.gradient_checkpointing);
    let processor = match &tower {
        Some(tower) => tower.processor()?,
        // The whole image, whatever its ratio: a question may be about any part.
        None => ImageProcessor::default_blip(model.image.image_size() as u32),
    };
    let description =
        Description { model: VqaModelConfig::CoAttention(model), answers, scores: config.loss.kind };
    let vqa = VqaModel::new(&vs.root(), &description.model)?;
    if let Some(tower) = tower {
        tower.fill(vs, description.model.image_root(), false)?;
    }
    Ok(VqaPipeline {
        model: vqa,
        description,
        tokenizer: Arc::new(tokenizer),
        processor,
        baselines,
        device: vs.device(),
    })
}
