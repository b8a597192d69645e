//! The initial captioner of a run: from a checkpoint, or new with an image tower from one.

use crate::SpecialTokens;
use crate::folder::{CaptionerFolder, Description};
use crate::run_config::CaptionRunConfig;
use crate::{CaptionPipeline, Captioner, CaptionerVariant, Error, Result};
use mm_clip::{ImageTowerCheckpoint, run_tokenizer};
use mm_core::nn::take_frozen;
use mm_core::seed;
use mm_train::TaskContext;
use mm_vision::ImageProcessor;
use std::sync::Arc;
use tch::nn::VarStore;

/// Builds the captioner of `config` on `vs`, and moves a frozen image tower into a store of its own.
///
/// # Errors
/// A checkpoint or the tokenizer cannot be opened, or does not fit.
pub(crate) fn build(
    config: &CaptionRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<(CaptionPipeline, VarStore)> {
    seed::set(config.run.seed, "init", 0);
    let mut pipeline = match &config.model.from {
        Some(from) => from_checkpoint(from, config, context, vs)?,
        None => new(config, context, vs)?,
    };
    if let Some(generation) = &config.generate {
        pipeline.generation = generation.clone();
    }
    let root = format!("{}.", pipeline.description.model.image_root());
    let frozen = take_frozen(vs, |name| config.model.freeze_image && name.starts_with(&root));
    Ok((pipeline, frozen))
}

/// The captioner of the checkpoint `from`; of the run's own checkpoint if that is missing.
fn from_checkpoint(
    from: &str,
    config: &CaptionRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<CaptionPipeline> {
    let mut folder = context.open_base(from, CaptionerFolder::open, CaptionerFolder::open_last_step)?;
    folder.description.model.set_gradient_checkpointing(config.train.gradient_checkpointing);
    CaptionPipeline::load(&folder, vs)
}

/// A new captioner, with the image tower of `model.image_from` where that is set.
fn new(config: &CaptionRunConfig, context: &TaskContext, vs: &VarStore) -> Result<CaptionPipeline> {
    let tower = config.model.image_from.as_deref().map(ImageTowerCheckpoint::open).transpose()?;
    let image = tower.as_ref().map(ImageTowerCheckpoint::config).transpose()?;
    let missing = || Error::Model("[model] has no image tower or no decoder".to_owned());
    let mut model = config.model.captioner(image).ok_or_else(missing)?;
    let captions = context.captions_by_sample("captions read for the tokenizer").flatten();
    let max_length = model.decoder.max_length() as usize;
    let tokenizer = run_tokenizer(config.tokenizer.as_ref(), context, captions, max_length)?;
    if config.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.vocab_size.is_some()) {
        model.decoder.set_vocab_size(tokenizer.vocab_size() as i64);
    }
    model.decoder.check_tokenizer(&tokenizer)?;
    model.set_gradient_checkpointing(config.train.gradient_checkpointing);
    let processor = match &tower {
        Some(tower) => tower.processor()?,
        None => squashed(model.image.image_size() as u32),
    };
    let start = match model.variant {
        CaptionerVariant::Prefix(_) => None,
        CaptionerVariant::Blip | CaptionerVariant::EncoderDecoder => {
            Some(tokenizer.bos_id().unwrap_or(tokenizer.eos_id()))
        }
    };
    let tokens = SpecialTokens { start, end: tokenizer.eos_id(), pad: tokenizer.pad_id() };
    let captioner = Captioner::new(&vs.root(), &model)?;
    if let Some(tower) = tower {
        let has_projection = matches!(model.variant, CaptionerVariant::Prefix(_));
        tower.fill(vs, model.image_root(), has_projection)?;
    }
    Ok(CaptionPipeline {
        captioner,
        description: Description { model, tokens },
        tokenizer: Arc::new(tokenizer),
        processor,
        generation: mm_text::generate::GenerationConfig::default(),
        device: vs.device(),
    })
}

/// The whole image, whatever its ratio: a caption is about all of it.
fn squashed(size: u32) -> ImageProcessor {
    ImageProcessor::default_blip(size)
}
