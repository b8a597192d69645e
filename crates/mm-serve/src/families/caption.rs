//! Captioners.

use super::split;
use crate::api_error::{ApiError, ApiResult};
use crate::config::ModelConfig;
use crate::queue::Job;
use crate::upload::Decoded;
use crate::worker::{Reply, Worker, WorkerThread, compute_together};
use mm_caption::CaptionPipeline;
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;
use mm_vision::ImageProcessor;
use std::ops::ControlFlow;
use tokio::sync::mpsc;

/// A captioner on its thread.
pub type CaptionWorker = Worker<CaptionJob, CaptionInfo>;

/// What requests are prepared by.
#[derive(Debug)]
pub struct CaptionInfo {
    /// From images to those that the model reads.
    pub processor: ImageProcessor,
    /// The model's defaults of generation.
    pub generation: GenerationConfig,
}

/// A request for captions.
#[derive(Debug)]
pub struct CaptionJob {
    /// Images of the model's size.
    pub images: Vec<Decoded>,
    /// The text that captions begin with.
    pub prompt: String,
    /// How captions are generated.
    pub generation: GenerationConfig,
    /// Where the pieces of the caption go while it is generated. The job then has one image, and `generation`
    /// one beam. A caption is a few kilobytes, so that a slow reader need not stop the model.
    pub pieces: Option<mpsc::UnboundedSender<String>>,
    /// The best caption of each image.
    pub reply: Reply<Vec<String>>,
}

impl Job for CaptionJob {
    fn items(&self) -> usize {
        self.images.len()
    }

    fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }
}

/// Opens the captioner and runs its jobs.
///
/// # Errors
/// It cannot be opened.
pub fn run(config: &ModelConfig, worker: WorkerThread<CaptionJob, CaptionInfo>) -> Result<(), String> {
    let opened = CaptionPipeline::open(config.source(), &config.open_options());
    let pipeline = opened.map_err(|error| error.to_string())?;
    let (processor, generation) = (pipeline.processor.clone(), pipeline.generation.clone());
    worker.ready(CaptionInfo { processor, generation });
    worker.run(|jobs| {
        let (streams, mut rest): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.pieces.is_some());
        while let Some(first) = rest.first() {
            let generation = first.generation.clone();
            let (same, others) = rest.into_iter().partition(|job| job.generation == generation);
            run_same(&pipeline, &generation, config.batch_size, same);
            rest = others;
        }
        for job in streams {
            stream(&pipeline, job);
        }
    });
    Ok(())
}

/// Runs a job that streams. It ends at the next token where its request is gone.
fn stream(pipeline: &CaptionPipeline, job: CaptionJob) {
    let CaptionJob { images, prompt, generation, pieces, reply } = job;
    let mut on_piece = |piece: &str| {
        let is_sent = match &pieces {
            Some(pieces) if !piece.is_empty() => pieces.send(piece.to_owned()).is_ok(),
            _ => true,
        };
        if is_sent && !reply.is_cancelled() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let (images, memory) = split(images);
    let caption = pipeline.encode_resized(&images).and_then(|states| {
        drop((images, memory));
        pipeline.caption_stream(&states, &pipeline.prompt(&prompt, 0)?, &generation, &mut on_piece)
    });
    reply.send(caption.map(|caption| vec![caption.caption]).map_err(to_api));
}

/// The images of a job.
struct Images {
    images: Vec<RgbImage>,
    prompt: String,
}

/// Runs jobs with the same settings.
fn run_same(
    pipeline: &CaptionPipeline,
    generation: &GenerationConfig,
    batch_size: usize,
    jobs: Vec<CaptionJob>,
) {
    let (mut inputs, mut replies) = (Vec::new(), Vec::new());
    for CaptionJob { images, prompt, reply, .. } in jobs {
        let (images, memory) = split(images);
        inputs.push(Images { images, prompt });
        replies.push((reply, memory));
    }
    let results = compute_together(&inputs, |inputs| caption(pipeline, generation, batch_size, inputs));
    for ((reply, memory), result) in replies.into_iter().zip(results) {
        drop(memory);
        reply.send(result);
    }
}

/// The captions of each of `inputs`; image i of an input draws by the seed i, whatever the batch.
fn caption(
    pipeline: &CaptionPipeline,
    generation: &GenerationConfig,
    batch_size: usize,
    inputs: &[Images],
) -> ApiResult<Vec<Vec<String>>> {
    let (mut images, mut prompts) = (Vec::new(), Vec::new());
    for input in inputs {
        let seeds = 0..input.images.len() as u64;
        prompts.extend(pipeline.prompts(&input.prompt, seeds).map_err(to_api)?);
        images.extend_from_slice(&input.images);
    }
    let mut captions = Vec::with_capacity(images.len());
    for (images, prompts) in images.chunks(batch_size).zip(prompts.chunks(batch_size)) {
        let states = pipeline.encode_resized(images).map_err(to_api)?;
        let texts = pipeline.generate(&states, prompts, generation).map_err(to_api)?;
        for (prompt, texts) in prompts.iter().zip(texts) {
            let best = pipeline.captions(prompt, texts.get(..1).unwrap_or_default()).map_err(to_api)?;
            captions.extend(best.into_iter().next().map(|caption| caption.caption));
        }
    }
    let mut captions = captions.into_iter();
    Ok(inputs.iter().map(|input| captions.by_ref().take(input.images.len()).collect()).collect())
}

/// An error of the settings or the prompt is the request's fault; any other is the model's.
fn to_api(error: mm_caption::Error) -> ApiError {
    use mm_text::Error as Text;
    match error {
        mm_caption::Error::Text(Text::Generation(_) | Text::Tokenizer(_)) => {
            ApiError::unprocessable("prompt", error.to_string())
        }
        error => ApiError::internal(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_budget::MemoryBudget;
    use crate::worker::reply;
    use mm_core::OpenOptions;

    #[test]
    fn a_stream_ends_where_its_reader_is_gone() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/goldens/caption/blip");
        let pipeline = CaptionPipeline::open(folder, &OpenOptions::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let streamed = |is_read: bool| {
            let image = pipeline.processor.resize(&RgbImage::new(9, 9)).unwrap();
            let images = vec![Decoded { image, memory: MemoryBudget::new(1).reserve(1).unwrap() }];
            let generation = GenerationConfig { min_new_tokens: 20, ..pipeline.generation.clone() };
            let ((pieces, mut reader), (reply, caption)) = (mpsc::unbounded_channel(), reply());
            if !is_read {
                reader.close();
            }
            let prompt = "a red".to_owned();
            stream(&pipeline, CaptionJob { images, prompt, generation, pieces: Some(pieces), reply });
            let read: Vec<String> = std::iter::from_fn(|| reader.blocking_recv()).collect();
            (read.concat(), runtime.block_on(caption.wait()).unwrap().remove(0))
        };
        let (read, whole) = streamed(true);
        assert_eq!(read, whole);
        let (read, cut) = streamed(false);
        assert!(read.is_empty() && cut.len() < whole.len() && whole.starts_with(&cut), "{cut} of {whole}");
    }
}
