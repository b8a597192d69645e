//! Diffusion models: images from texts, and edits of images.

use crate::api_error::{ApiError, ApiResult};
use crate::config::ModelConfig;
use crate::memory_budget::Reserved;
use crate::queue::Job;
use crate::worker::{Reply, Worker, WorkerThread};
use mm_diffusion::{
    DiffusionPipeline, Edit, Error, GenerateOptions, GeneratedImage, ImageRequest, PipelineOptions, Settings,
    StepProgress,
};
use mm_image::RgbImage;
use tokio::sync::mpsc;

/// Pixels that are computed together: small images leave a processor idle, large ones fill the memory.
const PIXELS_AT_ONCE: i64 = 512 * 512;

/// Images that are computed together at most.
const IMAGES_AT_ONCE: usize = 8;

/// Previews of images whose latents must be decoded, which may take longer than a step.
const DECODED_PREVIEWS: usize = 4;

/// A diffusion model on its thread. Nothing about it is needed to prepare requests.
pub type DiffusionWorker = Worker<DiffusionJob, ()>;

/// A request for images.
#[derive(Debug)]
pub struct DiffusionJob {
    /// The images, each with its prompt and seed.
    pub requests: Vec<ImageRequest>,
    /// How they are generated.
    pub options: GenerateOptions,
    /// The image that they are made from, with its share of the memory.
    pub edit: Option<(Edit, Vec<Reserved>)>,
    /// The longest side in pixels of an image.
    pub most_side: i64,
    /// Where the steps are reported. One that is not taken in time is left out.
    pub steps: Option<mpsc::Sender<Step>>,
    /// The images.
    pub reply: Reply<Drawn>,
}

/// A step of a request.
#[derive(Debug)]
pub struct Step {
    /// Steps so far.
    pub step: usize,
    /// All steps of the request.
    pub steps: usize,
    /// What the model expects of the first image.
    pub preview: Option<RgbImage>,
}

/// Images with the settings that they were made with.
#[derive(Debug)]
pub struct Drawn {
    /// The images.
    pub images: Vec<GeneratedImage>,
    /// The settings, with every default.
    pub settings: Settings,
}

impl Job for DiffusionJob {
    fn items(&self) -> usize {
        self.requests.len()
    }

    fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }
}

impl DiffusionJob {
    /// The settings of the images.
    fn settings(&self, pipeline: &DiffusionPipeline) -> ApiResult<Settings> {
        let settings = pipeline.settings(&self.options, self.edit.as_ref().map(|(edit, _)| edit));
        let settings = settings.map_err(to_api)?;
        let (width, height) = (settings.width, settings.height);
        if width.max(height) > self.most_side {
            let message =
                format!("{width} x {height} pixels: a side has at most {}; set it smaller", self.most_side);
            return Err(ApiError::unprocessable("width", message));
        }
        Ok(settings)
    }
}

/// Opens the model and runs its jobs.
///
/// # Errors
/// It cannot be opened.
pub fn run(config: &ModelConfig, worker: WorkerThread<DiffusionJob, ()>) -> Result<(), String> {
    let options = PipelineOptions { open: config.open_options(), ..PipelineOptions::default() };
    let pipeline = DiffusionPipeline::open(config.source(), &options).map_err(|error| error.to_string())?;
    worker.ready(());
    worker.run(|jobs| {
        let mut rest = Vec::new();
        for job in jobs {
            match job.settings(&pipeline) {
                Ok(settings) => rest.push((job, settings)),
                Err(error) => job.reply.send(Err(error)),
            }
        }
        while let Some((first, _)) = rest.first() {
            let (group, others) = match first.edit {
                Some(_) => {
                    let others = rest.split_off(1);
                    (rest, others)
                }
                None => {
                    let options = first.options.clone();
                    rest.into_iter().partition(|(job, _)| job.edit.is_none() && job.options == options)
                }
            };
            run_group(&pipeline, config.batch_size, group);
            rest = others;
        }
    });
    Ok(())
}

/// Runs jobs with the same options.
fn run_group(pipeline: &DiffusionPipeline, batch_size: usize, group: Vec<(DiffusionJob, Settings)>) {
    let jobs: Vec<&DiffusionJob> = group.iter().map(|(job, _)| job).collect();
    let Some((first, settings)) = group.first() else { return };
    let fitting = PIXELS_AT_ONCE / (settings.width * settings.height).max(1);
    let at_once = (fitting.max(1) as usize).min(IMAGES_AT_ONCE).min(batch_size);
    let edit = first.edit.as_ref().map(|(edit, _)| edit);
    let run = Run { pipeline, options: &first.options, edit, at_once };
    let results: Vec<ApiResult<Vec<GeneratedImage>>> = match run.images(&jobs) {
        Ok(images) => images.into_iter().map(Ok).collect(),
        Err(error) if jobs.len() == 1 => vec![Err(error)],
        // A prompt that is at fault fails alone.
        Err(_) => jobs.iter().map(|&job| Ok(run.images(&[job])?.remove(0))).collect(),
    };
    for ((job, settings), images) in group.into_iter().zip(results) {
        job.reply.send(images.map(|images| Drawn { images, settings }));
    }
}

/// A run of jobs with the same options.
struct Run<'a> {
    pipeline: &'a DiffusionPipeline,
    options: &'a GenerateOptions,
    edit: Option<&'a Edit>,
    at_once: usize,
}

/// The steps of a job.
struct Progress {
    done: usize,
    /// The batches that the job has images in.
    batches: usize,
}

impl Run<'_> {
    /// The images of each of `jobs`. The run ends at the next step where all jobs are cancelled.
    fn images(&self, jobs: &[&DiffusionJob]) -> ApiResult<Vec<Vec<GeneratedImage>>> {
        let (mut requests, mut owners, mut progress) = (Vec::new(), Vec::new(), Vec::new());
        for (index, job) in jobs.iter().enumerate() {
            let first = requests.len() / self.at_once;
            requests.extend_from_slice(&job.requests);
            owners.resize(requests.len(), index);
            let end = requests.len().div_ceil(self.at_once);
            progress.push(Progress { done: 0, batches: end - first });
        }
        let mut images: Vec<Vec<GeneratedImage>> = jobs.iter().map(|_| Vec::new()).collect();
        for (part, owners) in requests.chunks(self.at_once).zip(owners.chunks(self.at_once)) {
            check_cancelled(jobs).map_err(to_api)?;
            let mut on_step = |step: &StepProgress| {
                check_cancelled(jobs)?;
                for (place, &owner) in owners.iter().enumerate() {
                    if place == 0 || owners[place - 1] != owner {
                        self.report(jobs[owner], &mut progress[owner], step, place)?;
                    }
                }
                Ok(())
            };
            let made = self.pipeline.generate(part, self.edit, self.options, &mut on_step).map_err(to_api)?;
            for (image, &owner) in made.into_iter().zip(owners) {
                images[owner].push(image);
            }
        }
        Ok(images)
    }

    /// Reports a step of a job whose first image of the batch is at `place`.
    fn report(
        &self,
        job: &DiffusionJob,
        progress: &mut Progress,
        step: &StepProgress,
        place: usize,
    ) -> Result<(), Error> {
        let Some(steps) = &job.steps else { return Ok(()) };
        progress.done += 1;
        let is_due = is_preview_due(step) && steps.capacity() > 0;
        let preview = is_due.then(|| self.preview(step, place)).transpose()?;
        let report = Step { step: progress.done, steps: progress.batches * step.calls, preview };
        let _ = steps.try_send(report); // a slow reader gets fewer steps
        Ok(())
    }

    /// The picture of the estimate at `place`, with the safety checker applied.
    fn preview(&self, step: &StepProgress, place: usize) -> Result<RgbImage, Error> {
        let estimate = (step.original)().f_narrow(0, place as i64, 1)?;
        let mut pictures = self.pipeline.pictures(&estimate, self.options)?;
        Ok(pictures.pop().map(|image| image.picture).unwrap_or_default())
    }
}

/// Every step shows pixels; latents are decoded a few times.
fn is_preview_due(step: &StepProgress) -> bool {
    let has_pixels = step.sample.size().get(1) == Some(&3);
    let every = if has_pixels { 1 } else { step.calls.div_ceil(DECODED_PREVIEWS).max(1) };
    step.call < step.calls && step.call.is_multiple_of(every)
}

fn check_cancelled(jobs: &[&DiffusionJob]) -> Result<(), Error> {
    if jobs.iter().all(|job| job.reply.is_cancelled()) {
        return Err(Error::Request("the request was cancelled".to_owned()));
    }
    Ok(())
}

/// An error of what is asked for is the request's fault; any other is the model's.
fn to_api(error: Error) -> ApiError {
    match error {
        Error::Request(_) | Error::Scheduler(_) | Error::Text(mm_text::Error::Tokenizer(_)) => {
            ApiError::unprocessable("prompt", error.to_string())
        }
        error => ApiError::internal(&error),
    }
}
