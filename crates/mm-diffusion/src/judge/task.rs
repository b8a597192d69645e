//! `run.task = "scene-reader"`: trains the judge on drawn scenes.

use super::reader::{COLOURS, SHAPES};
use super::{SceneReader, SceneReaderConfig, judge};
use mm_core::checkpoint::{self, TensorLayout};
use mm_core::hf::CONFIG_FILE;
use mm_core::{OpenOptions, seed, write_json};
use mm_data::shapes::{SIDE, Scene};
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_image::RgbImage;
use mm_train::{
    Cell, DataConfig, Error, EvalConfig, EvalContext, EvalSet, Evaluation, Loss, Metric, Result, RunConfig,
    Shared, Table, Task, TaskConfig, TaskContext, TrainConfig, gather,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Kind, Reduction, Tensor};

/// A run with `run.task = "scene-reader"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneReaderRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The network.
    pub model: SceneReaderConfig,
    /// The data sets: scenes with their objects.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
}

impl TaskConfig for SceneReaderRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }
}

/// Trains a [`SceneReader`].
pub struct SceneReaderTask {
    vs: VarStore,
    reader: SceneReader,
    background: [u8; 3],
}

/// A picture with its scene.
pub struct SceneItem {
    picture: RgbImage,
    scene: Arc<Scene>,
}

impl mm_data::Item for SceneItem {
    fn bytes(&self) -> usize {
        self.picture.as_raw().len()
    }
}

/// Pictures and the objects of their cells.
pub struct SceneBatch {
    pixel_values: Tensor,
    /// `[B, cells, cells]`: 1 where an object's center is.
    presence: Tensor,
    /// `[B, cells, cells]`: color and shape, -1 where there is no object.
    colours: Tensor,
    shapes: Tensor,
    /// `[B, cells, cells, 2]`: the center within its cell.
    places: Tensor,
}

fn preprocess(background: [u8; 3]) -> Map<SceneItem> {
    Arc::new(move |sample: &Sample, _: &mut SampleRng| {
        let scene = sample.scene.clone();
        let scene = scene.ok_or_else(|| mm_data::Error::bad(Fault::Other, "no scene graph"))?;
        Ok(SceneItem { picture: sample.image()?.decode(background)?, scene })
    })
}

impl Task for SceneReaderTask {
    const NAME: &'static str = "scene-reader";
    type Config = SceneReaderRunConfig;
    type Item = SceneItem;
    type Batch = SceneBatch;
    type Model = SceneReader;

    fn new(config: &SceneReaderRunConfig, context: &TaskContext) -> Result<Self> {
        seed::set(config.run.seed, "init", 0);
        let vs = VarStore::new(context.device);
        let reader = SceneReader::new(&vs.root(), &config.model)?;
        Ok(Self { vs, reader, background: config.data.background })
    }

    fn variables(&self) -> &VarStore {
        &self.vs
    }

    fn preprocess(&self) -> Map<SceneItem> {
        preprocess(self.background)
    }

    fn collate(&self, items: Vec<SceneItem>) -> Result<SceneBatch> {
        let cells = self.reader.cells() as usize;
        let count = items.len() * cells * cells;
        let (mut presence, mut places) = (vec![0f32; count], vec![0f32; 2 * count]);
        let (mut colours, mut shapes) = (vec![-1i64; count], vec![-1i64; count]);
        for (image, item) in items.iter().enumerate() {
            for object in item.scene.objects() {
                let place = |at: u32| f64::from(at) * cells as f64 / f64::from(SIDE);
                let (x, y) = (place(object.x), place(object.y));
                let index = (image * cells + y as usize) * cells + x as usize;
                presence[index] = 1.0;
                colours[index] = object.colour as i64;
                shapes[index] = object.shape as i64;
                places[2 * index] = x.fract() as f32;
                places[2 * index + 1] = y.fract() as f32;
            }
        }
        let pictures: Vec<RgbImage> = items.into_iter().map(|item| item.picture).collect();
        let grid = [-1, cells as i64, cells as i64];
        let device = self.vs.device();
        Ok(SceneBatch {
            pixel_values: self.reader.pixel_values(&pictures),
            presence: Tensor::from_slice(&presence).view(grid).to_device(device),
            colours: Tensor::from_slice(&colours).view(grid).to_device(device),
            shapes: Tensor::from_slice(&shapes).view(grid).to_device(device),
            places: Tensor::from_slice(&places).view([grid[0], grid[1], grid[2], 2]).to_device(device),
        })
    }

    fn loss(&self, batch: &SceneBatch) -> Result<Loss> {
        let output = self.reader.forward(&batch.pixel_values, true).to_kind(Kind::Float);
        let parts = output.split_with_sizes([1, COLOURS, SHAPES, 2], -1);
        let logits = parts[0].squeeze_dim(-1);
        let presence = logits.binary_cross_entropy_with_logits(
            &batch.presence,
            None::<Tensor>,
            None::<Tensor>,
            Reduction::Mean,
        );
        let class = |logits: &Tensor, labels: &Tensor| {
            let logits = logits.flatten(0, 2);
            logits.cross_entropy_loss(&labels.flatten(0, -1), None::<Tensor>, Reduction::Mean, -1, 0.0)
        };
        let (colours, shapes) = (class(&parts[1], &batch.colours), class(&parts[2], &batch.shapes));
        let off =
            (&parts[3] - &batch.places).square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        let places =
            (off * &batch.presence).sum(Kind::Float) / batch.presence.sum(Kind::Float).clamp_min(1.0);
        // A center is in one cell of many, so that the mean over all cells is small.
        let total = &presence * 10.0 + &colours + &shapes + &places;
        let parts = vec![("presence", presence), ("colour", colours), ("shape", shapes), ("place", places)];
        Ok(Loss { total, parts })
    }

    fn model(&self) -> &SceneReader {
        &self.reader
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        self.describe_checkpoint(folder)?;
        Ok(checkpoint::save(&self.vs, &folder.join("model.safetensors"), TensorLayout::AS_IS.names)?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(CONFIG_FILE), self.reader.config())?)
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<SceneReader> {
        Ok(SceneReader::open(name, options)?)
    }

    fn evaluate(
        reader: &SceneReader,
        config: &SceneReaderRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        let mut own = Vec::new();
        let read = set.for_each_batch(context, preprocess(config.data.background), |items, _| {
            let (pictures, scenes): (Vec<RgbImage>, Vec<Arc<Scene>>) =
                items.into_iter().map(|item| (item.picture, item.scene)).unzip();
            let seen = reader.read(&pictures).map_err(Error::task)?;
            own.extend(scenes.iter().zip(&seen).map(|(scene, seen)| judge(scene, seen)));
            Ok(())
        })?;
        let verdicts = gather(context.group, &own)?;
        let share = |is_right: &dyn Fn(&super::SceneVerdict) -> bool| {
            verdicts.iter().filter(|verdict| is_right(verdict)).count() as f64 / verdicts.len().max(1) as f64
        };
        let all = share(&|verdict| verdict.all_right());
        let row = |name: &str, share: f64| vec![Cell::Text(name.to_owned()), Cell::Share(share)];
        Ok(Evaluation {
            set: set.name.clone(),
            samples: verdicts.len(),
            bad_samples: read.bad.len(),
            metrics: vec![Metric::headline("accuracy", all)],
            tables: vec![Table {
                title: "Real pictures read right".to_owned(),
                columns: vec!["of a picture".to_owned(), "right".to_owned()],
                rows: vec![
                    row("all", all),
                    row("number of objects", share(&|verdict| verdict.count)),
                    row("colors", share(&|verdict| verdict.colours)),
                    row("shapes", share(&|verdict| verdict.shapes)),
                ],
            }],
            credit: set.credit().to_owned(),
            ..Evaluation::default()
        })
    }
}
