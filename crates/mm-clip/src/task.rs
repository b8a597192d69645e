use crate::cached_text_features::CachedTextFeatures;
use crate::encoder::unit_rows;
use crate::folder::{CheckpointFormat, ModelFolder};
use crate::grad_cache;
use crate::init_from::{InitFrom, set_vocabulary};
use crate::layer_groups::group_of;
use crate::{
    ClipConfig, ClipPipeline, ClipRunConfig, Embedded, EvalReport, EvalSet, Lock, Result, Templates,
    TokenizerConfig,
};
use mm_core::checkpoint::StoredType;
use mm_core::{seed, upload};
use mm_data::{Dataset, DatasetConfig, Fault, Loader, LoaderConfig, Position, Rank};
use mm_dist::{Contrastive, ProcessGroup};
use mm_image::RgbImage;
use mm_text::{TokenBatch, Tokenizer, train_bpe};
use mm_train::{Loss, Metric, MicroBatch, Task};
use mm_vision::ImageTowerConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Training a CLIP: images and captions in, the contrastive loss out.
pub struct ClipTask {
    vs: VarStore,
    bundle: ClipPipeline,
    /// What the finished model is saved in.
    form: CheckpointFormat,
    loader: Loader<ClipItem>,
    inputs: Inputs,
    cached_text_features: Option<CachedTextFeatures>,
    image_lock: Option<Lock>,
    group: ProcessGroup,
    contrastive: Contrastive,
    /// Samples of this process that are embedded with a graph at once; none: all.
    grad_cache_chunk: Option<i64>,
    layer_decay: f64,
    eval_sets: Vec<EvalSet>,
    templates: Templates,
    eval_batch_size: usize,
}

/// What the loader is made from, anew whenever the place in the data changes.
struct Inputs {
    source: Arc<dyn Dataset>,
    loader: LoaderConfig,
    split: Rank,
    map: mm_data::Map<ClipItem>,
    /// Where bad samples are written to, once the run has a folder.
    bad_samples: Option<PathBuf>,
}

/// An image and a caption, ready to be batched.
struct ClipItem {
    image: RgbImage,
    token_ids: Vec<u32>,
    /// Whether the caption was longer than the tower reads.
    is_cut: bool,
}

impl mm_data::Item for ClipItem {
    fn bytes(&self) -> usize {
        self.image.bytes() + 4 * self.token_ids.len()
    }
}

/// Paired images and texts on the model's device.
pub struct ClipBatch {
    /// `[B, 3, S, S]`.
    pub pixel_values: Tensor,
    /// B texts.
    pub texts: TextInput,
    /// The share of texts that were longer than the tower reads, and were cut.
    pub cut_captions: f64,
}

/// The texts of a batch.
pub enum TextInput {
    /// As tokens.
    Tokens(TokenBatch),
    /// As the outputs of a locked tower, `[B, W]`.
    Pooled(Tensor),
}

impl ClipBatch {
    /// The same samples, `count` in a batch.
    pub(crate) fn chunks(&self, count: i64) -> Vec<Self> {
        let all = self.pixel_values.size()[0];
        let chunk = |start: i64| {
            let part = |x: &Tensor| x.narrow(0, start, count.min(all - start));
            let texts = match &self.texts {
                TextInput::Tokens(tokens) => TextInput::Tokens(TokenBatch {
                    input_ids: part(&tokens.input_ids),
                    attention_mask: part(&tokens.attention_mask),
                }),
                TextInput::Pooled(pooled) => TextInput::Pooled(part(pooled)),
            };
            Self { pixel_values: part(&self.pixel_values), texts, cut_captions: self.cut_captions }
        };
        (0..all).step_by(count as usize).map(chunk).collect()
    }
}

impl ClipTask {
    /// Opens the data and the checkpoints for one of the processes of `group`, which computes on `device`,
    /// trains or opens the tokenizer, and makes the model: as the checkpoints have it, and where they have
    /// nothing, with the initial weights that the run's seed gives.
    ///
    /// # Errors
    /// Data, checkpoint or tokenizer cannot be opened, the model cannot be built, or no form of folder could
    /// hold it in the end.
    pub fn new(config: &ClipRunConfig, device: Device, group: &ProcessGroup) -> Result<Self> {
        Self::resumed(config, device, group, None)
    }

    /// As [`ClipTask::new`], for a run that goes on from `checkpoint`: what the run began from need not be
    /// there any more, and a tokenizer that was trained is not trained again.
    ///
    /// # Errors
    /// As [`ClipTask::new`].
    pub fn resumed(
        config: &ClipRunConfig,
        device: Device,
        group: &ProcessGroup,
        checkpoint: Option<&Path>,
    ) -> Result<Self> {
        let source: Arc<dyn Dataset> = Arc::from(config.data.train.open()?);
        let count = format!("{} samples", source.len());
        group.assert_same_on_all_ranks("training data", &count, |main, own| {
            format!("its {own} instead of {main}")
        })?;
        let mut start = InitFrom::open(&config.model, checkpoint)?;
        let tokenizer = match (start.tokenizer(config.tokenizer.as_ref())?, &config.tokenizer) {
            (None, Some(own)) => tokenizer(own, &mut start.config, source.as_ref(), checkpoint)?,
            (found, _) => found.ok_or_else(|| crate::Error::Model("[tokenizer] is missing".to_owned()))?,
        };
        let (processor, model_config) = (start.processor()?, start.config.clone());
        let has_batch_norm =
            !matches!(model_config.image, ImageTowerConfig::Vit(_)) && config.model.lock_image.is_none();
        if config.train.grad_cache_chunk.is_some() && has_batch_norm {
            let reason = "a ResNet's batch norm needs the whole batch at once: use a ViT, or leave it out";
            return Err(crate::Error::Model(format!("train.grad_cache_chunk: {reason}")));
        }

        let vs = VarStore::new(device);
        seed::set(config.run.seed, "init", 0);
        start.config.set_gradient_checkpointing(config.train.gradient_checkpointing);
        let clip = start.build(&vs)?;
        let open = |(name, set): (&String, &DatasetConfig)| {
            EvalSet::open(name, set, config.data.background, config.data.max_bad_samples)
        };
        let eval_sets = config.data.eval.iter().map(open).collect::<Result<Vec<_>>>()?;
        let templates =
            config.eval.templates.as_deref().map_or_else(|| Ok(Templates::default()), Templates::read)?;
        let bundle = ClipPipeline::new(clip, model_config, Arc::new(tokenizer), processor, vs.device());
        let form = bundle.format()?; // before the first step: what cannot be saved is not worth training
        if form != CheckpointFormat::Hf {
            tracing::info!("the model will be saved in {form}, as transformers has no words for all of it");
        }
        let cached_text_features = match config.model.lock_text.is_some_and(Lock::holds_tower) {
            true => CachedTextFeatures::new(&bundle.text, source.as_ref(), group)?,
            false => None,
        };
        let split = Rank { index: group.rank(), world: group.world() };
        let inputs = Inputs::new(config, &bundle, source, split)?;
        let loader = inputs.loader_from(Position::default())?;
        Ok(Self {
            vs,
            bundle,
            form,
            loader,
            inputs,
            cached_text_features,
            image_lock: config.model.lock_image,
            group: group.clone(),
            contrastive: Contrastive::new(group, config.loss),
            grad_cache_chunk: config.train.grad_cache_chunk.map(|chunk| chunk as i64),
            layer_decay: config.train.layer_decay,
            eval_sets,
            templates,
            eval_batch_size: config.eval.batch_size,
        })
    }

    /// The model's evaluation on every set of the config.
    ///
    /// # Errors
    /// A set cannot be read or embedded.
    pub fn reports(&self) -> Result<Vec<EvalReport>> {
        self.eval_sets
            .iter()
            .map(|set| {
                let ClipPipeline { image, text, .. } = &self.bundle;
                let embedded = Embedded::embed_set(
                    image,
                    Some(text),
                    set,
                    self.eval_batch_size,
                    &self.group,
                    &mut |_| {},
                )?;
                EvalReport::evaluate(
                    &set.name,
                    &self.bundle,
                    &embedded,
                    &self.templates,
                    self.eval_batch_size,
                )
            })
            .collect()
    }

    /// Unit rows `[B, D]` of a batch's images and texts.
    fn embed(&self, batch: &ClipBatch) -> [Tensor; 2] {
        let ClipPipeline { image, text, .. } = &self.bundle;
        let pooled = match self.image_lock {
            Some(lock) if lock.holds_tower() => {
                tch::no_grad(|| image.encoder.pool(&batch.pixel_values, false))
            }
            lock => image.encoder.pool(&batch.pixel_values, lock.is_none()),
        };
        let image_embeds = unit_rows(&image.encoder.project(pooled));
        let text_embeds = match &batch.texts {
            TextInput::Tokens(tokens) => text.encoder.encode(tokens),
            TextInput::Pooled(pooled) => unit_rows(&text.encoder.project(pooled.shallow_clone())),
        };
        [image_embeds, text_embeds]
    }

    /// The loss of unit rows `[B, D]` of images and texts.
    fn compare(
        &self,
        [image_embeds, text_embeds]: &[Tensor; 2],
        cut_captions: f64,
    ) -> mm_train::Result<Loss> {
        let head = &self.bundle.head;
        let total = head.loss(&self.contrastive, image_embeds, text_embeds)?;
        let logit_scale = head.logit_scale().detach().exp().mean(Kind::Float);
        let parts = vec![("logit_scale", logit_scale), ("cut_captions", Tensor::from(cut_captions))];
        Ok(Loss { total, parts })
    }
}

/// The tokenizer of the config. A trained one sets the text tower's vocabulary.
fn tokenizer(
    config: &TokenizerConfig,
    model: &mut ClipConfig,
    source: &dyn Dataset,
    checkpoint: Option<&Path>,
) -> Result<Tokenizer> {
    let context_length = model.text.context_length() as usize;
    let saved = checkpoint.filter(|checkpoint| ModelFolder::is_described_checkpoint(checkpoint));
    let tokenizer = match (&config.from, config.vocab_size, saved) {
        (Some(from), _, Some(saved)) if !from.exists() => {
            tracing::warn!(
                "{} is gone: the run goes on with the tokenizer in {}",
                from.display(),
                saved.display()
            );
            Tokenizer::from_dir(saved)?.with_context_length(context_length)?
        }
        (Some(from), _, _) => Tokenizer::from_dir(from)?.with_context_length(context_length)?,
        (None, Some(_), Some(saved)) => {
            let tokenizer = Tokenizer::from_dir(saved)?.with_context_length(context_length)?;
            set_vocabulary(&mut model.text, &tokenizer);
            tokenizer
        }
        (None, Some(_), None) if source.stream().is_some() => {
            let reason =
                "is a stream, which is read once: a tokenizer cannot be trained on its captions first";
            let problem = format!("`{}` {reason}; name one with [tokenizer] from = \"DIR\"", source.name());
            return Err(crate::Error::Model(problem));
        }
        (None, Some(vocab_size), None) => {
            let clean = config.text_clean.unwrap_or_default();
            // A sample that cannot be read here cannot be read in training either, where it is counted.
            let captions: Vec<String> = (0..source.len())
                .filter_map(|index| source.sample(index).ok())
                .flat_map(|sample| sample.captions)
                .map(|caption| clean.clean(&caption).into_owned())
                .collect();
            let tokenizer = train_bpe(captions.into_iter(), vocab_size, context_length)?;
            set_vocabulary(&mut model.text, &tokenizer);
            tokenizer
        }
        (None, None, _) => return Err(crate::Error::Model("[tokenizer] is missing".to_owned())),
    };
    model.text.check_tokenizer(&tokenizer)?;
    model.text.check_largest_id(&tokenizer)?;
    match config.text_clean {
        Some(clean) => Ok(tokenizer.with_text_clean(clean)?),
        None => Ok(tokenizer),
    }
}

impl Inputs {
    fn new(
        config: &ClipRunConfig,
        bundle: &ClipPipeline,
        source: Arc<dyn Dataset>,
        split: Rank,
    ) -> Result<Self> {
        let (data, train) = (&config.data, &config.train);
        let loader = LoaderConfig {
            batch_size: train.batch_size / train.accumulate,
            workers: data.workers,
            prefetch: data.prefetch,
            prefetch_bytes: data.prefetch_bytes,
            shuffle_window: data.shuffle_window,
            resample: data.resample,
            seed: seed::derive(config.run.seed, "data", 0),
            max_bad_samples: data.max_bad_samples,
            ..LoaderConfig::default()
        };
        let (augment, background, canonical_share) =
            (data.augment.clone(), data.background, data.canonical_share);
        let fast_decode = data.fast_decode;
        let size = bundle.config.image.image_size() as u32;
        let tokenizer = Arc::clone(&bundle.text.tokenizer);
        let map = Arc::new(move |sample: &mm_data::Sample, rng: &mut mm_data::SampleRng| {
            let caption = draw_caption(&sample.captions, canonical_share, rng)
                .ok_or_else(|| mm_data::Error::bad(Fault::NoCaption, "no caption"))?;
            let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
            let (token_ids, is_cut) = tokenizer.encode_and_tell(caption).map_err(unreadable)?;
            let image = match fast_decode {
                true => sample.image()?.augmented(&augment, background, size, rng)?,
                false => augment.apply(&sample.image()?.decode(background)?, size, rng),
            };
            Ok(ClipItem { image, token_ids, is_cut })
        });
        Ok(Self { source, loader, split, map, bad_samples: None })
    }

    fn loader_from(&self, position: Position) -> Result<Loader<ClipItem>> {
        let (source, config) = (Arc::clone(&self.source), self.loader.clone());
        let mut loader = Loader::new(source, config, self.split, self.map.clone(), position)?;
        if let Some(path) = &self.bad_samples {
            loader.log_bad_samples(path)?;
        }
        Ok(loader)
    }
}

/// The canonical caption with probability `canonical_share`, else one of all.
fn draw_caption<'a>(
    captions: &'a [String],
    canonical_share: f64,
    rng: &mut mm_data::SampleRng,
) -> Option<&'a str> {
    use rand::RngExt;
    let (canonical, any) = (rng.random::<f64>() < canonical_share, rng.random::<f64>());
    let index = if canonical { 0 } else { (any * captions.len() as f64) as usize };
    captions.get(index).map(String::as_str)
}

impl Task for ClipTask {
    type Batch = ClipBatch;

    fn variables(&self) -> &VarStore {
        &self.vs
    }

    fn next_batch(&mut self) -> mm_train::Result<ClipBatch> {
        let batch = self.loader.next_batch().map_err(crate::Error::from)?;
        let cut_captions =
            batch.items.iter().filter(|pair| pair.is_cut).count() as f64 / batch.items.len() as f64;
        let (images, rows): (Vec<_>, Vec<_>) =
            batch.items.into_iter().map(|pair| (pair.image, pair.token_ids)).unzip();
        let (image, text) = (&self.bundle.image, &self.bundle.text);
        let pixel_values = image.processor.normalize_batch(&images).map_err(crate::Error::from)?;
        let device = self.vs.device();
        let texts = match self.cached_text_features.as_ref().and_then(|texts| texts.pooled(&rows)) {
            Some(pooled) => TextInput::Pooled(pooled),
            None => TextInput::Tokens(text.tokenizer.collate(&rows, text.padding).to_device(device)),
        };
        Ok(ClipBatch { pixel_values: upload(&pixel_values, device), texts, cut_captions })
    }

    fn loss(&self, batch: &ClipBatch) -> mm_train::Result<Loss> {
        self.compare(&self.embed(batch), batch.cut_captions)
    }

    fn backward(&self, batch: &ClipBatch, micro_batch: &MicroBatch) -> mm_train::Result<Loss> {
        match self.grad_cache_chunk {
            Some(chunk) if chunk < batch.pixel_values.size()[0] => {
                let compare = |rows: &[Tensor; 2]| self.compare(rows, batch.cut_captions);
                grad_cache::backward(batch, chunk, micro_batch, |chunk| self.embed(chunk), compare)
            }
            _ => micro_batch.forward_backward(|| self.loss(batch)),
        }
    }

    fn after_step(&mut self) {
        self.bundle.head.clamp_logit_scale();
    }

    fn lr_multiplier(&self, name: &str) -> f64 {
        group_of(name, &self.bundle.config).map_or(1.0, |group| self.layer_decay.powi(group.behind as i32))
    }

    fn evaluate(&mut self) -> mm_train::Result<Vec<Metric>> {
        let metrics = self.reports()?.iter().flat_map(EvalReport::metrics).collect::<Vec<_>>();
        Ok(metrics.into_iter().map(|(name, value)| Metric { name, value }).collect())
    }

    fn position(&self) -> serde_json::Value {
        serde_json::to_value(self.loader.position()).expect("a position of plain values is JSON")
    }

    fn set_run_dir(&mut self, folder: &Path) -> mm_train::Result<()> {
        // Appending to one file from several machines would lose lines.
        let path = folder.join(match self.group.rank() {
            0 => "bad_samples.jsonl".to_owned(),
            rank => format!("bad_samples.rank-{rank}.jsonl"),
        });
        self.loader.log_bad_samples(&path).map_err(crate::Error::from)?;
        self.inputs.bad_samples = Some(path);
        Ok(())
    }

    fn restore(&mut self, positions: Vec<serde_json::Value>) -> mm_train::Result<()> {
        let saved = positions.into_iter().map(serde_json::from_value).collect::<std::result::Result<_, _>>();
        let position = Position::resumed(saved.map_err(mm_train::Error::task)?, self.inputs.split);
        self.loader = self.inputs.loader_from(position)?;
        Ok(())
    }

    fn data_wait(&self) -> f64 {
        self.loader.data_wait().as_secs_f64()
    }

    fn save_model(&self, folder: &Path) -> mm_train::Result<()> {
        Ok(self.bundle.save(&self.vs, folder, self.form, StoredType::F32)?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> mm_train::Result<()> {
        Ok(self.bundle.save_description(folder)?)
    }
}
