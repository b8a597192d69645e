use crate::{
    Bundle, Clip, ClipConfig, ClipRunConfig, Embedded, EvalReport, EvalSet, ModelConfig, Result, Templates,
    TokenizerConfig,
};
use mm_core::{seed, upload};
use mm_data::image::RgbImage;
use mm_data::{Loader, LoaderConfig, Position, Source, SourceConfig, decode};
use mm_text::{TextTowerConfig, TokenBatch, Tokenizer, train_bpe};
use mm_train::{Loss, Metric, Task};
use mm_vision::{ImageProcessor, ImageTowerConfig, VitForm};
use std::path::Path;
use std::sync::Arc;
use tch::Tensor;
use tch::nn::VarStore;

/// Training a CLIP: images and captions in, the contrastive loss out.
pub struct ClipTask {
    vs: VarStore,
    bundle: Bundle,
    loader: Loader<Item>,
    inputs: Inputs,
    eval_sets: Vec<EvalSet>,
    templates: Templates,
    eval_batch_size: usize,
}

/// What the loader is made from, anew whenever the place in the data changes.
struct Inputs {
    source: Arc<dyn Source>,
    loader: LoaderConfig,
    map: mm_data::Map<Item>,
}

/// An image and a caption, ready to be batched.
pub struct Item {
    image: RgbImage,
    token_ids: Vec<u32>,
}

/// Paired images and texts on the model's device.
pub struct ClipBatch {
    /// `[B, 3, S, S]`.
    pub pixel_values: Tensor,
    /// B texts.
    pub tokens: TokenBatch,
}

impl ClipTask {
    /// Opens the data, trains or opens the tokenizer, and makes the model with the initial weights that the run's seed gives.
    ///
    /// # Errors
    /// Data or tokenizer cannot be opened, or the model cannot be built.
    pub fn new(config: &ClipRunConfig) -> Result<Self> {
        let ModelConfig::Clip(model) = &config.model;
        let source: Arc<dyn Source> = Arc::from(config.data.train.open()?);
        let mut model_config = model.clone();
        let tokenizer = Arc::new(tokenizer(&config.tokenizer, &mut model_config, source.as_ref())?);
        let size = model_config.image.image_size() as u32;
        let processor = match &model_config.image {
            ImageTowerConfig::Vit(vit) if vit.form == VitForm::Siglip => ImageProcessor::default_siglip(size),
            _ => ImageProcessor::default_clip(size),
        };

        let vs = VarStore::new(config.run.device.resolve()?);
        seed::set(config.run.seed, "init", 0);
        let clip = Clip::new(&vs.root(), &model_config)?;

        let open = |(name, set): (&String, &SourceConfig)| {
            EvalSet::open(name, set, config.data.background, config.data.max_bad_samples)
        };
        let eval_sets = config.data.eval.iter().map(open).collect::<Result<Vec<_>>>()?;
        let templates = config.eval.templates.as_deref().map_or_else(|| Ok(Templates::default()), Templates::read)?;
        let device = vs.device();
        let bundle = Bundle { model: clip, config: model_config, tokenizer, processor, device };
        let inputs = Inputs::new(config, &bundle, source)?;
        let loader = inputs.loader_from(Position::default())?;
        Ok(Self { vs, bundle, loader, inputs, eval_sets, templates, eval_batch_size: config.eval.batch_size })
    }

    /// The model's evaluation on every set of the config.
    ///
    /// # Errors
    /// A set cannot be read or embedded.
    pub fn reports(&self) -> Result<Vec<EvalReport>> {
        self.eval_sets
            .iter()
            .map(|set| {
                let embedded = Embedded::read(&self.bundle, set, self.eval_batch_size, &mut |_| {})?;
                EvalReport::new(&set.name, &self.bundle, &embedded, &self.templates, self.eval_batch_size)
            })
            .collect()
    }
}

/// The tokenizer of the config. A trained one sets the text tower's vocabulary.
fn tokenizer(config: &TokenizerConfig, model: &mut ClipConfig, source: &dyn Source) -> Result<Tokenizer> {
    let context_length = model.text.context_length() as usize;
    let tokenizer = match config {
        TokenizerConfig::From { from } => Tokenizer::from_dir(from)?.with_context_length(context_length)?,
        TokenizerConfig::Train { vocab_size } => {
            // A sample that cannot be read here cannot be read in training either, where it is counted.
            let captions: Vec<String> = (0..source.len())
                .filter_map(|index| source.sample(index).ok())
                .flat_map(|sample| sample.captions)
                .collect();
            let tokenizer = train_bpe(captions.into_iter(), *vocab_size, context_length)?;
            match &mut model.text {
                TextTowerConfig::Clip(text) => {
                    text.vocab_size = tokenizer.vocab_size() as i64;
                    text.eos_token_id = i64::from(tokenizer.eos_id());
                }
                TextTowerConfig::Bert(text) => text.vocab_size = tokenizer.vocab_size() as i64,
            }
            tokenizer
        }
    };
    model.text.check_tokenizer(&tokenizer)?;
    Ok(tokenizer)
}

impl Inputs {
    fn new(config: &ClipRunConfig, bundle: &Bundle, source: Arc<dyn Source>) -> Result<Self> {
        let (data, train) = (&config.data, &config.train);
        let loader = LoaderConfig {
            batch_size: train.batch_size / train.accumulate,
            workers: data.workers,
            prefetch: data.prefetch,
            shuffle: true,
            seed: seed::derive(config.run.seed, "data", 0),
            max_bad_samples: data.max_bad_samples,
            drop_last: true,
        };
        let (augment, background, canonical_share) = (data.augment.clone(), data.background, data.canonical_share);
        let size = bundle.config.image.image_size() as u32;
        let tokenizer = Arc::clone(&bundle.tokenizer);
        let map = Arc::new(move |sample: &mm_data::Sample, rng: &mut mm_data::SampleRng| {
            let image = decode(&sample.image.read()?, background)?;
            let caption = draw_caption(&sample.captions, canonical_share, rng)
                .ok_or_else(|| mm_data::Error::Sample(format!("{}: no caption", sample.key)))?;
            let token_ids = tokenizer.encode(caption).map_err(|error| mm_data::Error::Sample(error.to_string()))?;
            Ok(Item { image: augment.apply(&image, size, rng), token_ids })
        });
        Ok(Self { source, loader, map })
    }

    fn loader_from(&self, position: Position) -> Result<Loader<Item>> {
        Ok(Loader::new(Arc::clone(&self.source), self.loader.clone(), self.map.clone(), position)?)
    }
}

/// The canonical caption with probability `canonical_share`, else one of all.
fn draw_caption<'a>(captions: &'a [String], canonical_share: f64, rng: &mut mm_data::SampleRng) -> Option<&'a str> {
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
        let (images, rows): (Vec<_>, Vec<_>) = batch.items.into_iter().map(|item| (item.image, item.token_ids)).unzip();
        let pixel_values = self.bundle.processor.normalize_batch(&images).map_err(crate::Error::from)?;
        let tokens = self.bundle.tokenizer.collate(&rows, self.bundle.config.text.padding());
        let device = self.vs.device();
        Ok(ClipBatch { pixel_values: upload(&pixel_values, device), tokens: tokens.to_device(device) })
    }

    fn loss(&self, batch: &ClipBatch) -> mm_train::Result<Loss> {
        let model = &self.bundle.model;
        let image_embeds = model.encode_image(&batch.pixel_values, true);
        let text_embeds = model.encode_text(&batch.tokens);
        let total = model.loss(&image_embeds, &text_embeds);
        Ok(Loss { total, parts: vec![("logit_scale", model.logit_scale().detach().exp().mean(tch::Kind::Float))] })
    }

    fn after_step(&mut self) {
        self.bundle.model.clamp_logit_scale();
    }

    fn evaluate(&mut self) -> mm_train::Result<Vec<Metric>> {
        let metrics = self.reports()?.iter().flat_map(EvalReport::metrics).collect::<Vec<_>>();
        Ok(metrics.into_iter().map(|(name, value)| Metric { name, value }).collect())
    }

    fn position(&self) -> serde_json::Value {
        serde_json::to_value(self.loader.position()).expect("a position of plain values is JSON")
    }

    fn restore(&mut self, position: serde_json::Value) -> mm_train::Result<()> {
        let position: Position = serde_json::from_value(position).map_err(mm_train::Error::task)?;
        self.loader = self.inputs.loader_from(position)?;
        Ok(())
    }

    fn seconds_waiting(&self) -> f64 {
        self.loader.time_waiting().as_secs_f64()
    }

    fn save_model(&self, folder: &Path) -> mm_train::Result<()> {
        Ok(self.bundle.save(&self.vs, folder)?)
    }
}
