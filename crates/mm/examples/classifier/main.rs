//! A task in a crate of its own: an image tower and a linear head that learn the labels of a data set.
//!
//!     cargo run --release -p mm --example classifier -- train crates/mm/examples/classifier/emoji.toml
//!     cargo run --release -p mm --example classifier -- eval runs/emoji-classifier --report groups.html
//!
//! Everything but this file is `mm`'s: resume, ranks, logs, `--check`, the page. `docs/extending.md` walks
//! through it.

use mm_core::nn::Linear;
use mm_core::{OpenOptions, checkpoint, upload};
use mm_data::{Fault, Item, Map, Sample};
use mm_image::RgbImage;
use mm_train::{
    DataConfig, Error, EvalConfig, EvalContext, EvalSet, Evaluation, Loss, Metric, Result, RunConfig, Shared,
    Task, TaskConfig, TaskContext, TrainConfig, gather,
};
use mm_vision::{ImageProcessor, ImageTower, ImageTowerConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn main() -> ExitCode {
    mm::main_with::<Classifier>()
}

/// The whole TOML: the shared tables and `[model]`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    run: RunConfig,
    model: ImageTowerConfig,
    data: DataConfig,
    train: TrainConfig,
    #[serde(default)]
    eval: EvalConfig,
}

impl TaskConfig for Config {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }
}

/// What `config.json` of a saved model holds.
#[derive(Clone, Serialize, Deserialize)]
struct Description {
    tower: ImageTowerConfig,
    labels: Vec<String>,
}

struct Model {
    description: Description,
    tower: Box<dyn ImageTower>,
    head: Linear,
    processor: ImageProcessor,
    vs: VarStore,
}

struct Classifier {
    model: Model,
    background: [u8; 3],
}

/// A resized image and the number of its label.
struct LabeledImage {
    image: RgbImage,
    label: i64,
}

impl Item for LabeledImage {
    fn bytes(&self) -> usize {
        self.image.bytes()
    }
}

impl Model {
    fn new(description: Description, device: Device) -> Result<Self> {
        let vs = VarStore::new(device);
        let tower = description.tower.build(&(vs.root() / "vision_model")).map_err(Error::task)?;
        let classes = description.labels.len() as i64;
        let head = Linear::new(&(vs.root() / "classifier"), tower.output_width(), classes, 0.02);
        let processor = ImageProcessor::default_clip(description.tower.image_size() as u32);
        Ok(Self { description, tower, head, processor, vs })
    }

    /// Logits `[B, classes]` and labels `[B]`.
    fn forward(&self, items: &[LabeledImage], train: bool) -> Result<(Tensor, Tensor)> {
        let images: Vec<RgbImage> = items.iter().map(|item| item.image.clone()).collect();
        let pixel_values = self.processor.normalize_batch(&images).map_err(Error::task)?;
        let pixel_values = upload(&pixel_values, self.vs.device());
        let labels: Vec<i64> = items.iter().map(|item| item.label).collect();
        let logits = self.head.forward(&self.tower.forward(&pixel_values, train));
        Ok((logits, Tensor::from_slice(&labels).to_device(self.vs.device())))
    }

    fn preprocess(&self, background: [u8; 3]) -> Map<LabeledImage> {
        let (processor, labels) = (self.processor.clone(), self.description.labels.clone());
        Arc::new(move |sample: &Sample, _: &mut mm_data::SampleRng| {
            let label = sample.label.as_ref().and_then(|label| labels.binary_search(label).ok());
            let label = label.ok_or_else(|| mm_data::Error::bad(Fault::Text, "no known label"))? as i64;
            let image = processor.resize(&sample.image()?.decode(background)?);
            let image = image.map_err(|error| mm_data::Error::bad(Fault::Image, error.to_string()))?;
            Ok(LabeledImage { image, label })
        })
    }
}

impl Task for Classifier {
    const NAME: &'static str = "classifier";
    type Config = Config;
    type Item = LabeledImage;
    type Batch = (Tensor, Tensor);
    type Model = Model;

    fn new(config: &Config, context: &TaskContext) -> Result<Self> {
        let samples = (0..context.dataset.len()).filter_map(|index| context.dataset.sample(index).ok());
        let labels: BTreeSet<String> = samples.filter_map(|sample| sample.label).collect();
        let description = Description { tower: config.model.clone(), labels: labels.into_iter().collect() };
        mm_core::seed::set(config.run.seed, "init", 0);
        let model = Model::new(description, context.device)?;
        Ok(Self { model, background: config.data.background })
    }

    fn variables(&self) -> &VarStore {
        &self.model.vs
    }

    fn preprocess(&self) -> Map<LabeledImage> {
        self.model.preprocess(self.background)
    }

    fn collate(&self, items: Vec<LabeledImage>) -> Result<(Tensor, Tensor)> {
        self.model.forward(&items, true)
    }

    fn loss(&self, (logits, labels): &(Tensor, Tensor)) -> Result<Loss> {
        let accuracy = logits.argmax(-1, false).eq_tensor(labels).mean(Kind::Float);
        Ok(Loss { total: logits.cross_entropy_for_logits(labels), parts: vec![("accuracy", accuracy)] })
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        checkpoint::save(&self.model.vs, &folder.join("model.safetensors"), |name| vec![name.to_owned()])?;
        self.describe_checkpoint(folder)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.model.description).map_err(Error::task)?;
        std::fs::write(folder.join("config.json"), json).map_err(Error::task)
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<Model> {
        let folder = Path::new(name);
        let json = std::fs::read_to_string(folder.join("config.json")).map_err(Error::task)?;
        let description = serde_json::from_str(&json).map_err(Error::task)?;
        let model = Model::new(description, options.resolve_device()?)?;
        checkpoint::load(&model.vs, &folder.join("model.safetensors"), |name| vec![name.to_owned()])?;
        Ok(model)
    }

    fn evaluate(model: &Model, config: &Config, set: &EvalSet, context: &EvalContext) -> Result<Evaluation> {
        let (mut correct, mut counted) = (0.0, 0);
        let map = model.preprocess(config.data.background);
        let read = set.for_each_batch(context, map, |items, _| {
            let (logits, labels) = tch::no_grad(|| model.forward(&items, false))?;
            correct += logits.argmax(-1, false).eq_tensor(&labels).sum(Kind::Float).double_value(&[]);
            counted += items.len();
            Ok(())
        })?;
        let all = gather(context.group, &[(correct, counted)])?; // of every rank
        let samples: usize = all.iter().map(|(_, counted)| counted).sum();
        let accuracy = all.iter().map(|(correct, _)| correct).sum::<f64>() / samples as f64;
        Ok(Evaluation {
            set: set.name.clone(),
            samples,
            bad_samples: read.bad.len(),
            metrics: vec![Metric::headline("accuracy", accuracy)],
            credit: set.credit().to_owned(),
            ..Evaluation::default()
        })
    }
}
