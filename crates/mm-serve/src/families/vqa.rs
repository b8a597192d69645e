//! Models that answer questions about images.

use crate::api_error::{ApiError, ApiResult};
use crate::config::ModelConfig;
use crate::queue::Job;
use crate::upload::Decoded;
use crate::worker::{Reply, Worker, WorkerThread, compute_together};
use mm_image::RgbImage;
use mm_vqa::{Answer, AnswerMode, Answerer, VqaPipeline, VqaProcessor};

/// The answers to a question, as many as `mm vqa` gives.
const TOP: usize = 5;

/// A model that answers questions on its thread.
pub type VqaWorker = Worker<VqaJob, VqaInfo>;

/// What requests are prepared by.
#[derive(Debug)]
pub struct VqaInfo {
    /// From images to those that the model reads.
    pub processor: VqaProcessor,
}

/// A question about an image.
#[derive(Debug)]
pub struct VqaJob {
    /// The image, of the model's size.
    pub image: Decoded,
    /// The question.
    pub question: String,
    /// The most probable answers.
    pub reply: Reply<Vec<Answer>>,
}

impl Job for VqaJob {
    fn items(&self) -> usize {
        1
    }

    fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }
}

/// Opens the model and runs its jobs.
///
/// # Errors
/// It cannot be opened.
pub fn run(config: &ModelConfig, worker: WorkerThread<VqaJob, VqaInfo>) -> Result<(), String> {
    let opened = VqaPipeline::open(config.source(), &config.open_options());
    let pipeline = opened.map_err(|error| error.to_string())?;
    let answerer = Answerer::new(&pipeline, &AnswerMode::Default, TOP).map_err(|error| error.to_string())?;
    worker.ready(VqaInfo { processor: pipeline.parts.processor.clone() });
    worker.run(|jobs| {
        let (mut inputs, mut replies) = (Vec::new(), Vec::new());
        for VqaJob { image: Decoded { image, memory }, question, reply } in jobs {
            inputs.push((image, question));
            replies.push((reply, memory));
        }
        let results = compute_together(&inputs, |inputs| answer(&pipeline, &answerer, inputs));
        for ((reply, memory), result) in replies.into_iter().zip(results) {
            drop(memory);
            reply.send(result);
        }
    });
    Ok(())
}

/// The answers to each question about its image.
fn answer(
    pipeline: &VqaPipeline,
    answerer: &Answerer<'_>,
    inputs: &[(RgbImage, String)],
) -> ApiResult<Vec<Vec<Answer>>> {
    let images: Vec<RgbImage> = inputs.iter().map(|(image, _)| image.clone()).collect();
    let questions: Vec<&str> = inputs.iter().map(|(_, question)| question.as_str()).collect();
    let places = (0..inputs.len() as i64).collect();
    let answers = pipeline.questions(&questions, places).and_then(|questions| {
        let states = pipeline.encode_resized(&images)?;
        answerer.answer(&states, &questions)
    });
    answers.map_err(|error| match error {
        mm_vqa::Error::Text(mm_text::Error::Tokenizer(_)) => {
            ApiError::unprocessable("question", error.to_string())
        }
        error => ApiError::internal(&error),
    })
}
