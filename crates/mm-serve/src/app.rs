//! The state that all requests share.

use crate::Result;
use crate::api_error::{ApiError, ApiResult};
use crate::config::{ModelConfig, ServeConfig, Task};
use crate::families::caption::{self, CaptionWorker};
use crate::families::clip::{self, ClipWorker};
use crate::families::diffusion::{self, DiffusionWorker};
use crate::families::reward::{self, RewardWorker};
use crate::families::vqa::{self, VqaWorker};
use crate::indexes::ServedIndex;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::memory_budget::MemoryBudget;
use crate::metrics::{BatchSizes, Metrics, ModelMetrics};
use crate::worker::{Opened, Worker};
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// The models, the limits, and the counts of requests.
#[derive(Debug)]
pub struct App {
    /// The models by name.
    pub models: BTreeMap<String, Model>,
    /// The indexes by name.
    pub indexes: BTreeMap<String, ServedIndex>,
    /// The limits of requests.
    pub limits: Limits,
    /// The keys; without them every request is let in.
    pub keys: Option<Keys>,
    /// The memory of all requests.
    pub memory: MemoryBudget,
    /// The counts of requests.
    pub metrics: Metrics,
    /// The start in seconds since 1970.
    pub created: u64,
}

/// A model on its thread.
#[derive(Debug)]
pub enum Model {
    /// See [`Task::Clip`].
    Clip(ClipWorker),
    /// See [`Task::Caption`].
    Caption(CaptionWorker),
    /// See [`Task::Vqa`].
    Vqa(VqaWorker),
    /// See [`Task::Diffusion`].
    Diffusion(DiffusionWorker),
    /// See [`Task::Reward`].
    Reward(RewardWorker),
}

impl App {
    /// Starts the threads of the models and those that open the indexes, which report to `opened`.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(
        config: &ServeConfig,
        keys: Option<Keys>,
        opened: &Opened,
    ) -> Result<(Self, Vec<JoinHandle<()>>)> {
        let (mut models, mut threads) = (BTreeMap::new(), Vec::new());
        for (name, config) in &config.models {
            let (model, thread) = Model::start(name, config, opened)?;
            models.insert(name.clone(), model);
            threads.push(thread);
        }
        let mut indexes = BTreeMap::new();
        for (name, index) in &config.indexes {
            let model = config.models.get(&index.model).map_or("", ModelConfig::source);
            let (index, thread) = ServedIndex::open(name, index, model, opened)?;
            indexes.insert(name.clone(), index);
            threads.push(thread);
        }
        let limits = config.limits.clone();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (memory, metrics) = (MemoryBudget::new(limits.memory_mb), Metrics::default());
        Ok((Self { models, indexes, limits, keys, memory, metrics, created }, threads))
    }

    /// Whether all models and indexes are opened.
    pub fn is_ready(&self) -> bool {
        self.models.values().all(Model::is_ready) && self.indexes.values().all(|index| index.opened().is_ok())
    }

    /// The index `name`.
    ///
    /// # Errors
    /// 404: there is no such index.
    pub fn index(&self, name: &str) -> ApiResult<&ServedIndex> {
        self.indexes.get(name).ok_or_else(|| {
            let message = format!("there is no index {name:?}: GET /v1/indexes lists them");
            ApiError::new(StatusCode::NOT_FOUND, message).with_code("index_not_found").with_param("index")
        })
    }

    /// The CLIP `name`.
    ///
    /// # Errors
    /// 404: there is no such model; 400: it does something else.
    pub fn clip(&self, name: &str) -> ApiResult<&ClipWorker> {
        match self.model(name)? {
            Model::Clip(worker) => Ok(worker),
            other => Err(self.other_task(name, other, Task::Clip)),
        }
    }

    /// The captioner `name`.
    ///
    /// # Errors
    /// As [`App::clip`].
    pub fn captioner(&self, name: &str) -> ApiResult<&CaptionWorker> {
        match self.model(name)? {
            Model::Caption(worker) => Ok(worker),
            other => Err(self.other_task(name, other, Task::Caption)),
        }
    }

    /// The model `name`, which answers questions.
    ///
    /// # Errors
    /// As [`App::clip`].
    pub fn vqa(&self, name: &str) -> ApiResult<&VqaWorker> {
        match self.model(name)? {
            Model::Vqa(worker) => Ok(worker),
            other => Err(self.other_task(name, other, Task::Vqa)),
        }
    }

    /// The diffusion model `name`.
    ///
    /// # Errors
    /// As [`App::clip`].
    pub fn diffusion(&self, name: &str) -> ApiResult<&DiffusionWorker> {
        match self.model(name)? {
            Model::Diffusion(worker) => Ok(worker),
            other => Err(self.other_task(name, other, Task::Diffusion)),
        }
    }

    /// The reward `name`.
    ///
    /// # Errors
    /// As [`App::clip`].
    pub fn reward(&self, name: &str) -> ApiResult<&RewardWorker> {
        match self.model(name)? {
            Model::Reward(worker) => Ok(worker),
            other => Err(self.other_task(name, other, Task::Reward)),
        }
    }

    fn model(&self, name: &str) -> ApiResult<&Model> {
        self.models.get(name).ok_or_else(|| {
            let message = format!("there is no model {name:?}: GET /v1/models lists them");
            ApiError::new(StatusCode::NOT_FOUND, message).with_code("model_not_found").with_param("model")
        })
    }

    fn other_task(&self, name: &str, model: &Model, needed: Task) -> ApiError {
        let fitting: Vec<&str> = self
            .models
            .iter()
            .filter(|(_, model)| model.task() == needed)
            .map(|(name, _)| name.as_str())
            .collect();
        let (task, needed) = (model.task().name(), needed.name());
        let fitting = if fitting.is_empty() { "none".to_owned() } else { fitting.join(", ") };
        let message =
            format!("the task of the model {name} is {task}; models whose task is {needed}: {fitting}");
        ApiError::invalid("model", message)
    }

    /// The metrics in Prometheus' text format.
    pub fn metrics_text(&self) -> String {
        self.metrics.text(self.models.iter().map(|(name, model)| {
            let (queued, batches) = model.load();
            ModelMetrics { name, queued, batches }
        }))
    }
}

impl Model {
    fn start(name: &str, config: &ModelConfig, opened: &Opened) -> Result<(Self, JoinHandle<()>)> {
        Ok(match config.task {
            Task::Clip => {
                let (worker, thread) = Worker::start(name, config, opened, clip::run)?;
                (Self::Clip(worker), thread)
            }
            Task::Caption => {
                let (worker, thread) = Worker::start(name, config, opened, caption::run)?;
                (Self::Caption(worker), thread)
            }
            Task::Vqa => {
                let (worker, thread) = Worker::start(name, config, opened, vqa::run)?;
                (Self::Vqa(worker), thread)
            }
            Task::Diffusion => {
                let (worker, thread) = Worker::start(name, config, opened, diffusion::run)?;
                (Self::Diffusion(worker), thread)
            }
            Task::Reward => {
                let (worker, thread) = Worker::start(name, config, opened, reward::run)?;
                (Self::Reward(worker), thread)
            }
        })
    }

    /// What it does.
    pub fn task(&self) -> Task {
        match self {
            Self::Clip(_) => Task::Clip,
            Self::Caption(_) => Task::Caption,
            Self::Vqa(_) => Task::Vqa,
            Self::Diffusion(_) => Task::Diffusion,
            Self::Reward(_) => Task::Reward,
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Clip(worker) => worker.info().is_ok(),
            Self::Caption(worker) => worker.info().is_ok(),
            Self::Vqa(worker) => worker.info().is_ok(),
            Self::Diffusion(worker) => worker.info().is_ok(),
            Self::Reward(worker) => worker.info().is_ok(),
        }
    }

    /// The jobs that wait, and the sizes of the batches.
    fn load(&self) -> (usize, &BatchSizes) {
        match self {
            Self::Clip(worker) => (worker.depth(), worker.batches()),
            Self::Caption(worker) => (worker.depth(), worker.batches()),
            Self::Vqa(worker) => (worker.depth(), worker.batches()),
            Self::Diffusion(worker) => (worker.depth(), worker.batches()),
            Self::Reward(worker) => (worker.depth(), worker.batches()),
        }
    }
}
