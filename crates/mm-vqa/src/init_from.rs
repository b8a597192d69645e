//! The initial model of a run: from a checkpoint, or new with an image tower from one.

use crate::folder::{ClassifierConfig, VqaConfig, VqaFolder, VqaParts};
use crate::run_config::VqaRunConfig;
use crate::training_questions::TrainingQuestions;
use crate::{Answers, AnswersConfig, Error, Result, VqaModel, VqaPipeline, VqaProcessor};
use mm_clip::{ImageTowerCheckpoint, run_tokenizer};
use mm_core::nn::take_frozen;
use mm_core::seed;
use mm_text::generate::GenerationConfig;
use mm_text::read_glove;
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
    let root = pipeline.config.image_root().map(|root| format!("{root}."));
    let is_of_image = |name: &str| root.as_ref().is_some_and(|root| name.starts_with(root));
    let frozen = take_frozen(vs, |name| config.model.freeze_image && is_of_image(name));
    Ok((pipeline, frozen))
}

/// The model of the checkpoint `from`; of the run's own checkpoint if that is missing.
fn from_checkpoint(
    from: &str,
    config: &VqaRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<VqaPipeline> {
    let mut folder = context.open_base(from, VqaFolder::open, VqaFolder::open_last_step)?;
    folder.config.set_gradient_checkpointing(config.train.gradient_checkpointing);
    let questions = TrainingQuestions::read(context);
    let answers = config.answers.map(|config| Answers::most_frequent(questions.answer_counts(), config));
    let answers = answers.transpose()?;
    let mut pipeline = match (&mut folder.config, &answers) {
        (VqaConfig::Vilt(vilt), Some(answers)) => {
            vilt.answers = answers.all().to_vec();
            VqaPipeline::load_with_new_classifier(&mut folder, vs)?
        }
        (VqaConfig::CoAttention(_), Some(_)) => {
            let problem = "the checkpoint that `model.from` names has its answers: remove [answers]";
            return Err(Error::Model(problem.to_owned()));
        }
        _ => VqaPipeline::load(&folder, vs)?,
    };
    if let VqaConfig::Blip(_) = pipeline.config
        && pipeline.parts.answers.is_none()
    {
        // The list that evaluations rank.
        let counts = questions.answer_counts();
        let answers = answers.map_or_else(|| Answers::most_frequent(counts, AnswersConfig::ALL), Ok)?;
        pipeline.parts.answers = Some(Arc::new(answers));
    }
    pipeline.parts.baselines = Some(Arc::new(questions.baselines()));
    Ok(pipeline)
}

/// A new model, with the image tower of `model.image_from` where that is set.
fn new(config: &VqaRunConfig, context: &TaskContext, vs: &VarStore) -> Result<VqaPipeline> {
    let tower = config.model.image_from.as_deref().map(ImageTowerCheckpoint::open).transpose()?;
    let image = tower.as_ref().map(ImageTowerCheckpoint::config).transpose()?;
    // Answers, baselines and tokenizer of a resumed run are the checkpoint's: questions are not read again.
    let own =
        context.checkpoint.map(|checkpoint| VqaFolder::open_last_step(checkpoint)?.parts()).transpose()?;
    let questions = match own {
        Some(_) => TrainingQuestions::default(),
        None => TrainingQuestions::read(context),
    };
    let answers = match own.as_ref().and_then(|own| own.answers.clone()) {
        Some(answers) => answers,
        None => {
            let config = config.answers.unwrap_or_default();
            Arc::new(Answers::most_frequent(questions.answer_counts(), config)?)
        }
    };
    let baselines = own.and_then(|own| own.baselines).unwrap_or_else(|| Arc::new(questions.baselines()));
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
    let (image_root, glove) = (model.image.root(), config.model.glove.clone());
    let config = VqaConfig::CoAttention(ClassifierConfig {
        model,
        answers: answers.all().to_vec(),
        scores: config.loss.kind,
    });
    let model = VqaModel::new(&vs.root(), &config)?;
    if let Some(tower) = tower {
        tower.fill(vs, image_root, false)?;
    }
    if let (Some(glove), VqaModel::CoAttention(model), None) = (&glove, &model, context.checkpoint) {
        let report = read_glove(glove, &tokenizer, model.word_embedding())?;
        let (found, missing, words) = (report.found, report.missing, report.words);
        tracing::info!("{}: vectors of {found} words of {words}, {missing} have none", glove.display());
    }
    let parts = VqaParts {
        tokenizer: Arc::new(tokenizer),
        processor: VqaProcessor::Fixed(processor),
        answers: Some(answers),
        generation: GenerationConfig::default(),
        baselines: Some(baselines),
    };
    Ok(VqaPipeline { model, config, parts, device: vs.device() })
}
