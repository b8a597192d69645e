//! CLIPs: embeddings, classification by labels, heat maps.

use super::{check_finite, split};
use crate::api_error::{ApiError, ApiResult};
use crate::config::ModelConfig;
use crate::queue::Job;
use crate::recent::Recent;
use crate::upload::Decoded;
use crate::worker::{Reply, Worker, WorkerThread};
use mm_clip::{ClipPipeline, Probability, Templates, ZeroShot, heat_map, relevance};
use mm_core::Precision;
use mm_dist::ProcessGroup;
use mm_image::RgbImage;
use mm_search::to_vectors;
use mm_text::Tokenizer;
use mm_vision::ImageProcessor;
use std::sync::Arc;
use tch::Tensor;

/// Sets of labels whose embeddings are kept.
const CLASSIFIERS: usize = 32;

/// The side of a heat map in pixels, as `mm attention` has it.
const HEAT_MAP_SIDE: u32 = 448;

/// A CLIP on its thread.
pub type ClipWorker = Worker<ClipJob, ClipInfo>;

/// What requests are prepared by.
#[derive(Debug)]
pub struct ClipInfo {
    /// From texts to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// From images to those that the model reads.
    pub processor: ImageProcessor,
    /// The width of an embedding.
    pub width: usize,
    /// The meaning of a label's probability.
    pub probability: Probability,
    /// The precision: a heat map needs f32.
    pub precision: Precision,
}

/// A request to a CLIP.
#[derive(Debug)]
pub enum ClipJob {
    /// Unit rows of texts and of images.
    Embed {
        /// The tokens of each text.
        texts: Vec<Vec<u32>>,
        /// Images of the model's size.
        images: Vec<Decoded>,
        /// The rows, first those of the texts.
        reply: Reply<Vec<Vec<f32>>>,
    },
    /// The probabilities of labels for images.
    Classify {
        /// Images of the model's size.
        images: Vec<Decoded>,
        /// The labels, in prompts that are made of the templates.
        labels: LabelSet,
        /// For each image the probabilities in the order of the labels.
        reply: Reply<Vec<Vec<f32>>>,
    },
    /// The heat map of an image for a text.
    HeatMap {
        /// The image, of any size.
        image: Decoded,
        /// The text.
        text: String,
        /// The picture.
        reply: Reply<RgbImage>,
    },
}

/// Labels and the templates of their prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet {
    /// The labels.
    pub labels: Vec<String>,
    /// The templates.
    pub templates: Templates,
}

impl Job for ClipJob {
    fn items(&self) -> usize {
        match self {
            Self::Embed { texts, images, .. } => texts.len() + images.len(),
            Self::Classify { images, .. } => images.len(),
            Self::HeatMap { .. } => 1,
        }
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Self::Embed { reply, .. } | Self::Classify { reply, .. } => reply.is_cancelled(),
            Self::HeatMap { reply, .. } => reply.is_cancelled(),
        }
    }
}

/// Opens the CLIP and runs its jobs.
///
/// # Errors
/// It cannot be opened.
pub fn run(config: &ModelConfig, worker: WorkerThread<ClipJob, ClipInfo>) -> Result<(), String> {
    let opened = ClipPipeline::open(config.source(), &config.open_options());
    let pipeline = opened.map_err(|error| error.to_string())?;
    worker.ready(ClipInfo {
        tokenizer: Arc::clone(&pipeline.text.tokenizer),
        processor: pipeline.image.processor.clone(),
        width: pipeline.text.encoder.output_width() as usize,
        probability: pipeline.head.probability(),
        precision: config.precision,
    });
    let mut model = Model { pipeline, batch_size: config.batch_size, classifiers: Recent::new(CLASSIFIERS) };
    worker.run(|jobs| model.run(jobs));
    Ok(())
}

struct Model {
    pipeline: ClipPipeline,
    batch_size: usize,
    classifiers: Recent<LabelSet, ZeroShot>,
}

/// A job on images and texts that go through the towers with those of the other jobs.
enum Embedding {
    Embed { texts: usize, images: usize, reply: Reply<Vec<Vec<f32>>> },
    Classify { images: usize, labels: LabelSet, reply: Reply<Vec<Vec<f32>>> },
}

impl Model {
    /// Runs a batch: all texts through the text tower, all images through the image tower.
    fn run(&mut self, jobs: Vec<ClipJob>) {
        let (mut texts, mut images) = (Vec::new(), Vec::new());
        let (mut embeddings, mut heat_maps) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                ClipJob::Embed { texts: own, images: own_images, reply } => {
                    embeddings.push(Embedding::Embed { texts: own.len(), images: own_images.len(), reply });
                    texts.extend(own);
                    images.extend(own_images);
                }
                ClipJob::Classify { images: own, labels, reply } => {
                    embeddings.push(Embedding::Classify { images: own.len(), labels, reply });
                    images.extend(own);
                }
                ClipJob::HeatMap { image, text, reply } => heat_maps.push((image, text, reply)),
            }
        }
        let (images, _memory) = split(images);
        let texts = self.embed_texts(&texts);
        let images = self.embed_images(&images);
        self.reply(embeddings, texts, images);
        for (image, text, reply) in heat_maps {
            reply.send(self.heat_map(&image.image, &text));
        }
    }

    /// Gives each job its rows of the whole batch's.
    fn reply(&mut self, jobs: Vec<Embedding>, texts: ApiResult<Rows>, images: ApiResult<Rows>) {
        let (mut text, mut image) = (0, 0);
        for job in jobs {
            match job {
                Embedding::Embed { texts: own, images: own_images, reply } => {
                    let rows = || {
                        let mut rows = of_job(&texts, text, own)?;
                        rows.extend(of_job(&images, image, own_images)?);
                        Ok(rows)
                    };
                    reply.send(rows());
                    text += own;
                    image += own_images;
                }
                Embedding::Classify { images: own, labels, reply } => {
                    let rows = of_job(&images, image, own);
                    reply.send(rows.and_then(|rows| self.classify(labels, &rows)));
                    image += own;
                }
            }
        }
    }

    /// Unit rows of texts.
    fn embed_texts(&self, texts: &[Vec<u32>]) -> ApiResult<Rows> {
        let embeds = self.pipeline.text.embed_tokens(texts, self.batch_size, &ProcessGroup::alone());
        rows_of(&embeds.map_err(|error| ApiError::internal(&error))?)
    }

    /// Unit rows of images.
    fn embed_images(&self, images: &[RgbImage]) -> ApiResult<Rows> {
        let mut rows = Vec::with_capacity(images.len());
        for batch in images.chunks(self.batch_size) {
            let embeds = self.pipeline.image.embed_resized(batch);
            rows.extend(rows_of(&embeds.map_err(|error| ApiError::internal(&error))?)?);
        }
        Ok(rows)
    }

    /// The probabilities of labels for images with these `rows`.
    fn classify(&mut self, labels: LabelSet, rows: &[Vec<f32>]) -> ApiResult<Vec<Vec<f32>>> {
        let (pipeline, batch_size) = (&self.pipeline, self.batch_size);
        let classifier = self.classifiers.get_or_insert(labels, |set| {
            ZeroShot::new(pipeline, set.labels.clone(), &set.templates, batch_size).map_err(text_error)
        })?;
        let flat = rows.concat();
        let images = Tensor::from_slice(&flat).f_view([rows.len() as i64, -1]);
        let images = images.map_err(|error| ApiError::internal(&error))?;
        rows_of(&classifier.probabilities(pipeline, &images))
    }

    fn heat_map(&self, image: &RgbImage, text: &str) -> ApiResult<RgbImage> {
        let relevance = relevance(&self.pipeline, image, text).map_err(text_error)?;
        let crop = self.pipeline.image.processor.resize(image);
        let crop = crop.map_err(|error| ApiError::internal(&error))?;
        Ok(heat_map::draw(&relevance, &crop, HEAT_MAP_SIDE))
    }
}

/// A row for each input.
type Rows = Vec<Vec<f32>>;

/// The rows of a job, which begin at `first`.
fn of_job(rows: &ApiResult<Rows>, first: usize, count: usize) -> ApiResult<Rows> {
    if count == 0 {
        return Ok(Vec::new()); // the other tower's error is not this job's
    }
    let rows = rows.as_ref().map_err(Clone::clone)?.get(first..first + count);
    let rows = rows.ok_or_else(|| ApiError::internal(&"a batch has fewer rows than inputs"))?;
    rows.iter().try_for_each(|row| check_finite(row))?;
    Ok(rows.to_vec())
}

/// The rows of a matrix `[N, D]`.
fn rows_of(matrix: &Tensor) -> ApiResult<Rows> {
    to_vectors(matrix).map_err(|error| ApiError::internal(&error))
}

/// An error of texts is the request's fault; any other is the model's.
fn text_error(error: mm_clip::Error) -> ApiError {
    match error {
        mm_clip::Error::Evaluation(_) | mm_clip::Error::Text(mm_text::Error::Tokenizer(_)) => {
            ApiError::unprocessable("labels", error.to_string())
        }
        error => ApiError::internal(&error),
    }
}
