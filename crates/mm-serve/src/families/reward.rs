//! Rewards of images.

use super::split;
use crate::api_error::{ApiError, ApiResult};
use crate::config::ModelConfig;
use crate::queue::Job;
use crate::upload::Decoded;
use crate::worker::{Reply, Worker, WorkerThread, compute_together};
use mm_image::RgbImage;
use mm_rlhf::{Error, Reward, RewardSum};

/// A reward on its thread.
pub type RewardWorker = Worker<RewardJob, RewardInfo>;

/// What requests are prepared by.
#[derive(Debug)]
pub struct RewardInfo {
    /// Whether each image needs a prompt.
    pub reads_prompt: bool,
}

/// A request for scores.
#[derive(Debug)]
pub struct RewardJob {
    /// Images of any size.
    pub images: Vec<Decoded>,
    /// The prompt of each image; empty ones for a reward that reads none.
    pub prompts: Vec<String>,
    /// The score of each image.
    pub reply: Reply<Vec<f32>>,
}

impl Job for RewardJob {
    fn items(&self) -> usize {
        self.images.len()
    }

    fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }
}

/// Opens the reward and runs its jobs.
///
/// # Errors
/// It cannot be opened.
pub fn run(config: &ModelConfig, worker: WorkerThread<RewardJob, RewardInfo>) -> Result<(), String> {
    let reward = config.reward()?;
    let reads_prompt = reward.reads_prompt();
    let rewards = RewardSum::open(&[reward], &config.device).map_err(|error| error.to_string())?;
    worker.ready(RewardInfo { reads_prompt });
    worker.run(|jobs| {
        let (mut inputs, mut replies) = (Vec::new(), Vec::new());
        for RewardJob { images, prompts, reply } in jobs {
            let (images, memory) = split(images);
            inputs.push((images, prompts));
            replies.push((reply, memory));
        }
        let results = compute_together(&inputs, |inputs| score(&rewards, config.batch_size, inputs));
        for ((reply, memory), result) in replies.into_iter().zip(results) {
            drop(memory);
            reply.send(result);
        }
    });
    Ok(())
}

/// The scores of each input's images.
fn score(
    rewards: &RewardSum,
    batch_size: usize,
    inputs: &[(Vec<RgbImage>, Vec<String>)],
) -> ApiResult<Vec<Vec<f32>>> {
    let images: Vec<RgbImage> = inputs.iter().flat_map(|(images, _)| images.iter().cloned()).collect();
    let prompts: Vec<&str> =
        inputs.iter().flat_map(|(_, prompts)| prompts.iter().map(String::as_str)).collect();
    let mut scores = Vec::with_capacity(images.len());
    for (images, prompts) in images.chunks(batch_size).zip(prompts.chunks(batch_size)) {
        scores.extend(rewards.score(images, prompts).map_err(to_api)?);
    }
    let mut scores = scores.into_iter();
    Ok(inputs.iter().map(|(images, _)| scores.by_ref().take(images.len()).collect()).collect())
}

/// An error of the prompt is the request's fault; any other is the reward's.
fn to_api(error: Error) -> ApiError {
    match error {
        Error::Request(_) | Error::Text(mm_text::Error::Tokenizer(_)) => {
            ApiError::unprocessable("prompt", error.to_string())
        }
        error => ApiError::internal(&error),
    }
}
