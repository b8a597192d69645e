//! The initial captioner of a run: from a checkpoint, or new with an image tower from one.

use crate::folder::{CaptionerFolder, Description, SpecialTokens};
use crate::run_config::CaptionRunConfig;
use crate::timm::TimmResNet;
use crate::{CaptionPipeline, Captioner, CaptionerConfig, CaptionerVariant, Error, Result};
use mm_clip::{ModelFolder, TokenizerConfig, train_tokenizer};
use mm_core::nn::take_frozen;
use mm_core::seed;
use mm_text::Tokenizer;
use mm_train::TaskContext;
use mm_vision::{ImageProcessor, ImageTowerConfig};
use std::sync::Arc;
use tch::Tensor;
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
    let mut folder = match (CaptionerFolder::open(from), context.checkpoint) {
        (Err(error), Some(checkpoint)) if mm_core::hub::resolve(from).is_err() => {
            let Ok(own) = CaptionerFolder::open_last_step(checkpoint) else { return Err(error) };
            tracing::warn!(
                "{from} is missing: the run continues with the weights in {}",
                checkpoint.display()
            );
            own
        }
        (folder, _) => folder?,
    };
    folder.description.model.set_gradient_checkpointing(config.train.gradient_checkpointing);
    CaptionPipeline::load(&folder, vs)
}

/// A new captioner, with the image tower of `model.image_from` where that is set.
fn new(config: &CaptionRunConfig, context: &TaskContext, vs: &VarStore) -> Result<CaptionPipeline> {
    let tower = config.model.image_from.as_deref().map(Tower::open).transpose()?;
    let image = tower.as_ref().map(Tower::config).transpose()?;
    let missing = || Error::Model("[model] has no image tower or no decoder".to_owned());
    let mut model = config.model.captioner(image).ok_or_else(missing)?;
    let tokenizer = tokenizer(config, context, model.decoder.max_length() as usize)?;
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
        tower.fill(&model, vs)?;
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

/// The checkpoint of an image tower.
enum Tower {
    /// Of a CLIP, or a tower alone.
    Clip(Box<ModelFolder>),
    Timm(Box<TimmResNet>),
}

impl Tower {
    fn open(model: &str) -> Result<Self> {
        Ok(match TimmResNet::open(model)? {
            Some(resnet) => Self::Timm(Box::new(resnet)),
            None => Self::Clip(Box::new(ModelFolder::open(model)?)),
        })
    }

    fn config(&self) -> Result<ImageTowerConfig> {
        Ok(match self {
            Self::Clip(folder) => folder.image()?.0,
            Self::Timm(resnet) => resnet.config.clone(),
        })
    }

    fn processor(&self) -> Result<ImageProcessor> {
        Ok(match self {
            Self::Clip(folder) => folder.processor()?,
            Self::Timm(resnet) => resnet.processor.clone(),
        })
    }

    /// Copies the weights to the variables of `vs`, of which the tower has a part.
    fn fill(self, model: &CaptionerConfig, vs: &VarStore) -> Result<()> {
        let own = format!("{}.", model.image_root());
        let below = |name: &str| name.strip_prefix(&own).map(str::to_owned);
        match self {
            Self::Timm(resnet) => {
                let variables = vs.variables().into_iter();
                resnet.fill(variables.filter_map(|(name, tensor)| Some((below(&name)?, tensor))).collect())
            }
            Self::Clip(mut folder) => {
                let has_projection = matches!(model.variant, CaptionerVariant::Prefix(_));
                if !has_projection {
                    folder
                        .weights
                        .retain(|name| !name.starts_with("visual_projection") && name != "visual.proj");
                }
                let root = model.image.root();
                let renamed = |(name, variable): (String, Tensor)| {
                    if let Some(rest) = below(&name) {
                        return Some((format!("{root}.{rest}"), variable));
                    }
                    (has_projection && name.starts_with("visual_projection.")).then_some((name, variable))
                };
                let variables = vs.variables().into_iter().filter_map(renamed).collect();
                Ok(folder.fill_variables(variables, None)?)
            }
        }
    }
}

/// The tokenizer that `[tokenizer]` names or trains; of a resumed run, the checkpoint's.
fn tokenizer(config: &CaptionRunConfig, context: &TaskContext, max_length: usize) -> Result<Tokenizer> {
    let TokenizerConfig { from, vocab_size, text_clean } = config.tokenizer.clone().unwrap_or_default();
    let tokenizer = match (from, vocab_size, context.checkpoint) {
        (_, Some(_), Some(checkpoint)) => Tokenizer::for_decoder(checkpoint)?,
        (Some(from), _, Some(checkpoint)) if !from.exists() => {
            let (from, shown) = (from.display(), checkpoint.display());
            tracing::warn!("{from} is missing: the run continues with the tokenizer in {shown}");
            Tokenizer::for_decoder(checkpoint)?
        }
        (Some(from), _, _) => Tokenizer::for_decoder(&from)?,
        (None, Some(vocab_size), None) => {
            train_tokenizer(context, text_clean.unwrap_or_default(), vocab_size, max_length)?
        }
        (None, None, _) => return Err(Error::Model("[tokenizer] is missing".to_owned())),
    };
    Ok(match text_clean {
        Some(clean) => tokenizer.with_text_clean(clean)?,
        None => tokenizer,
    })
}
