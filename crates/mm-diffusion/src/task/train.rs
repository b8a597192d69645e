//! The training task.

use super::config::{DiffusionRunConfig, InputConfig, ObjectiveConfig};
use super::denoising::Denoising;
use super::evaluate::evaluate;
use super::init;
use super::item::{DiffusionBatch, DiffusionItem};
use crate::objective::Level;
use crate::pipeline::{Denoiser, DiffusionPipeline, Family, PipelineOptions};
use crate::schedulers::NoiseSchedule;
use crate::sd3::Sd3Transformer;
use crate::unet::UNet;
use mm_core::OpenOptions;
use mm_core::lora::{Lora, record_linears};
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_image::Augment;
use mm_text::Tokenizer;
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use rand::RngExt;
use std::f64::consts::TAU;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains the denoiser of a pipeline.
pub struct DiffusionTask {
    vs: VarStore,
    /// The text encoders and the autoencoder of a pipeline that is fine-tuned.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: DiffusionPipeline,
    objective: ObjectiveConfig,
    /// Of the scheduler, where the objective is of a diffusion process.
    schedule: Option<NoiseSchedule>,
    preprocess: Map<DiffusionItem>,
}

impl DiffusionTask {
    fn build(config: &DiffusionRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        let (built, linears) = record_linears(|| init::build(config, context, &vs));
        let (pipeline, frozen) = built?;
        let lora = config
            .lora
            .as_ref()
            .map(|lora| {
                let names = match &pipeline.denoiser {
                    Denoiser::UNet(_) => UNet::LAYOUT.names,
                    Denoiser::Transformer(_) => Sd3Transformer::LAYOUT.names,
                };
                Lora::attach(lora, &linears, names, &vs)
            })
            .transpose()?;
        let schedule = match config.objective {
            ObjectiveConfig::Flow(_) => None,
            ObjectiveConfig::Ddpm(_) => Some(pipeline.scheduler.noise_schedule()?),
        };
        let preprocess = preprocess(config, &pipeline);
        let (base, objective) = (config.model.from.clone(), config.objective.clone());
        Ok(Self { vs, frozen, lora, base, pipeline, objective, schedule, preprocess })
    }

    fn denoising(&self) -> Denoising<'_> {
        Denoising { pipeline: &self.pipeline, objective: &self.objective, schedule: self.schedule.as_ref() }
    }
}

impl Task for DiffusionTask {
    const NAME: &'static str = "diffusion";
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: true };
    type Config = DiffusionRunConfig;
    type Item = DiffusionItem;
    type Batch = DiffusionBatch;
    type Model = DiffusionPipeline;

    fn new(config: &DiffusionRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    fn preprocess(&self) -> Map<DiffusionItem> {
        self.preprocess.clone()
    }

    fn collate(&self, items: Vec<DiffusionItem>) -> Result<DiffusionBatch> {
        Ok(self.denoising().batch(items)?)
    }

    fn loss(&self, batch: &DiffusionBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        let total = self.denoising().losses(batch)?.mean(Kind::Float);
        let cut_prompts = Tensor::from(batch.cut_prompts).to_device(self.vs.device());
        Ok(Loss { total, parts: vec![("cut_prompts", cut_prompts)] })
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        !name.contains("embed")
    }

    fn is_hidden_matrix(&self, name: &str) -> bool {
        name.contains("blocks.") || name.contains("encoder.layers.")
    }

    fn model(&self) -> &DiffusionPipeline {
        &self.pipeline
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(lora) = &self.lora else {
            let variables = [&self.vs, &self.frozen].into_iter().flat_map(|vs| vs.variables()).collect();
            return Ok(self.pipeline.save(variables, folder)?);
        };
        let mut variables = lora.merged_variables(&self.vs);
        variables.extend(self.frozen.variables());
        self.pipeline.save(variables, folder)?;
        Ok(lora.save_beside_merged(folder, self.base.as_deref())?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a pipeline.
            Some(lora) => Ok(lora.save_config(folder, self.base.as_deref())?),
            None if self.pipeline.family == Family::Pixel => Ok(self.pipeline.save_description(folder)?),
            // Without the frozen parts it would not open either.
            None => Ok(()),
        }
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<DiffusionPipeline> {
        let options = PipelineOptions { open: options.clone(), ..PipelineOptions::default() };
        Ok(DiffusionPipeline::open(name, &options)?)
    }

    fn evaluate(
        pipeline: &DiffusionPipeline,
        config: &DiffusionRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate(pipeline, config, set, context)?)
    }

    fn describe_batch(&self, batch: &DiffusionBatch) -> String {
        format!("images {:?}, tokens {:?}", batch.clean.size(), batch.tokens.input_ids.size())
    }
}

/// Decodes and resizes the image, encodes one prompt, and draws what is random.
pub(super) fn preprocess(config: &DiffusionRunConfig, pipeline: &DiffusionPipeline) -> Map<DiffusionItem> {
    let InputConfig { caption_dropout, image_dropout, canonical_share } = config.input;
    let background = config.data.background;
    let side = pipeline.denoiser.sample_size() * pipeline.reduction();
    let tokenizer: Arc<Tokenizer> = Arc::clone(&pipeline.text.first.tokenizer);
    // The whole height or width, cut from the middle: a caption is about all of it.
    let whole = Augment { scale: [1.0, 1.0], ..Augment::default() };
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let caption = sample.draw_caption(canonical_share, rng).map(str::to_owned);
        let (drops_caption, drops_image) =
            (rng.random::<f64>() < caption_dropout, rng.random::<f64>() < image_dropout);
        let level = Level { uniform: rng.random(), normal: standard_normal(rng) };
        let noise_seed = rng.random();
        let mut image = |image: &mm_data::SampleImage| {
            let image = image.decode(background)?;
            match image.dimensions() == (side as u32, side as u32) {
                true => Ok::<_, mm_data::Error>(image),
                false => Ok(whole.apply(&image, side as u32, rng)),
            }
        };
        let (target, source, prompt) = match &sample.instruction {
            Some(instruction) => {
                let [before, after] = sample.image_pair()?;
                (image(after)?, Some(image(before)?), instruction.clone())
            }
            None => {
                let missing = || mm_data::Error::bad(Fault::NoCaption, "no caption");
                (image(sample.image()?)?, None, caption.ok_or_else(missing)?)
            }
        };
        let prompt = if drops_caption { String::new() } else { prompt };
        let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let (token_ids, is_cut) = tokenizer.encode_and_tell(&prompt).map_err(unreadable)?;
        let source = source.filter(|_| !drops_image);
        Ok(DiffusionItem { image: target, source, prompt, token_ids, is_cut, noise_seed, level })
    })
}

/// A number by the Box-Muller transform (1958).
fn standard_normal(rng: &mut SampleRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (TAU * rng.random::<f64>()).cos()
}
