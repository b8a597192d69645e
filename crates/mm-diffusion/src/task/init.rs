//! The initial pipeline of a run: from a checkpoint, or a new transformer in pixels or latents.

use super::config::{DiffusionRunConfig, ObjectiveConfig};
use super::latents;
use crate::pipeline::{Denoiser, DiffusionPipeline, Family};
use crate::schedulers::SchedulerConfig;
use crate::sd3::Sd3Transformer;
use crate::text::{ClipTextEncoder, TextEncoders, TextRules};
use crate::trainable;
use crate::{Error, Result};
use mm_clip::run_tokenizer;
use mm_core::seed;
use mm_data::Sample;
use mm_train::TaskContext;
use serde_json::json;
use tch::nn::VarStore;

/// Samples whose texts a tokenizer is trained on: a drawn data set has no end.
const TOKENIZER_SAMPLES: usize = 5_000;

/// Builds the pipeline of `config` on `vs`, and moves what does not train into a store of its own.
pub(super) fn build(
    config: &DiffusionRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<(DiffusionPipeline, VarStore)> {
    seed::set(config.run.seed, "init", 0);
    let Some(from) = &config.model.from else {
        let pipeline = new(config, context, vs)?;
        return Ok((pipeline, trainable::take_autoencoder(vs)));
    };
    let trains_token = config.textual_inversion.is_some();
    let (mut pipeline, frozen) =
        trainable::open(from, context, vs, trains_token, config.train.gradient_checkpointing)?;
    match (&config.objective, pipeline.family) {
        (ObjectiveConfig::Flow(_), Family::Sd3 | Family::Pixel) => {}
        (ObjectiveConfig::Ddpm(ddpm), Family::Sd | Family::Sdxl | Family::Pix2Pix) => {
            if ddpm.rescale_betas_zero_snr {
                pipeline.scheduler.set("rescale_betas_zero_snr", true)?;
            }
        }
        (ObjectiveConfig::Flow(_), _) => {
            return Err(Error::Model(format!(
                "{from} has a noise schedule: set `objective.kind = \"ddpm\"`"
            )));
        }
        (ObjectiveConfig::Ddpm(_), _) => {
            return Err(Error::Model(format!("{from} is a flow: set `objective.kind = \"flow\"`")));
        }
    }
    Ok((pipeline, frozen))
}

fn new(config: &DiffusionRunConfig, context: &TaskContext, vs: &VarStore) -> Result<DiffusionPipeline> {
    let missing = || Error::Model("[model] has no transformer or no text encoder".to_owned());
    let ObjectiveConfig::Flow(flow) = &config.objective else {
        return Err(Error::Model("a new transformer learns a flow".to_owned()));
    };
    let mut transformer = config.model.transformer_for_text().ok_or_else(missing)?;
    transformer.gradient_checkpointing = config.train.gradient_checkpointing;
    let mut text = config.model.text.clone().ok_or_else(missing)?;
    let checkpoint = context.checkpoint;
    let vae = config.model.vae.as_ref();
    let vae =
        vae.map(|vae| latents::autoencoder(vae, config, checkpoint, &**context.dataset, vs)).transpose()?;
    let tokenizer_folder = context.checkpoint.map(|checkpoint| checkpoint.join("tokenizer"));
    let context = TaskContext { checkpoint: tokenizer_folder.as_deref(), ..*context };
    let samples = context.dataset.len().min(TOKENIZER_SAMPLES);
    let texts = (0..samples).flat_map(|index| {
        context.progress.report("texts read for the tokenizer", index as u64 + 1, samples as u64);
        let Sample { captions, instruction, .. } = context.dataset.sample(index).unwrap_or_default();
        captions.into_iter().chain(instruction).collect::<Vec<_>>()
    });
    let length = text.max_position_embeddings as usize;
    let tokenizer = run_tokenizer(config.tokenizer.as_ref(), &context, texts, length)?;
    text.vocab_size = tokenizer.vocab_size() as i64;
    text.eos_token_id = i64::from(tokenizer.eos_id());
    let first = ClipTextEncoder::new(vs, "text_encoder", &text, tokenizer)?;
    let denoiser = Sd3Transformer::new(&(vs.root() / "transformer"), &transformer)?;
    let scheduler = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": flow.shift,
    });
    let pipeline = DiffusionPipeline {
        family: Family::Pixel,
        prediction: flow.prediction,
        denoiser: Denoiser::Transformer(Box::new(denoiser)),
        vae,
        text: TextEncoders::new(TextRules::Masked, first, None, None),
        scheduler: SchedulerConfig::new(scheduler)?,
        device: vs.device(),
        loras: Vec::new(),
        embeddings: Vec::new(),
        has_safety_checker: false,
        safety_checker: None,
    };
    pipeline.check()?;
    Ok(pipeline)
}
