//! `POST /v1/generate` and `POST /v1/edit`: images from texts, and edits of images.

use super::{check_range, check_text};
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::events::{EventSender, Gone, events};
use crate::families::diffusion::{DiffusionJob, Drawn, Step};
use crate::memory_budget::Reserved;
use crate::response::{data_url, json};
use crate::upload::{ImageSource, Upload, decode_single};
use crate::worker::{Pending, reply};
use axum::extract::{Request, State};
use axum::response::Response;
use mm_diffusion::{Edit, EditKind, GenerateOptions, ImageRequest, Settings};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Steps that wait to be sent; more are left out.
const WAITING_STEPS: usize = 2;

/// How images are made.
#[derive(Debug)]
struct Sampling {
    model: String,
    negative_prompt: Option<String>,
    width: Option<i64>,
    height: Option<i64>,
    steps: Option<u64>,
    guidance_scale: Option<f64>,
    seed: Option<u64>,
    n: Option<u64>,
    stream: bool,
}

/// A request for images from a text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateRequest {
    model: String,
    prompt: String,
    negative_prompt: Option<String>,
    width: Option<i64>,
    height: Option<i64>,
    steps: Option<u64>,
    guidance_scale: Option<f64>,
    seed: Option<u64>,
    n: Option<u64>,
    stream: Option<bool>,
}

/// A request for an edit of an image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditRequest {
    model: String,
    image: ImageSource,
    prompt: Option<String>,
    instruction: Option<String>,
    mask: Option<ImageSource>,
    strength: Option<f64>,
    image_guidance_scale: Option<f64>,
    negative_prompt: Option<String>,
    width: Option<i64>,
    height: Option<i64>,
    steps: Option<u64>,
    guidance_scale: Option<f64>,
    seed: Option<u64>,
    n: Option<u64>,
    stream: Option<bool>,
}

#[derive(Serialize)]
struct Images {
    model: String,
    /// PNGs as data URLs.
    images: Vec<String>,
    seeds: Vec<u64>,
    /// For each image, whether the safety checker found it unsafe; it is black then.
    #[serde(skip_serializing_if = "Option::is_none")]
    flagged: Option<Vec<bool>>,
    settings: Settings,
}

/// Makes images from a text.
pub async fn generate(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (request, _memory) = parse::<GenerateRequest>(&app, request).await?;
    let GenerateRequest { model, prompt, negative_prompt, width, height, steps, .. } = request;
    let GenerateRequest { guidance_scale, seed, n, stream, .. } = request;
    let stream = stream.unwrap_or(false);
    let sampling = Sampling { model, negative_prompt, width, height, steps, guidance_scale, seed, n, stream };
    let options = sampling.options(&app)?;
    let requests = sampling.requests(&app, &prompt, "prompt")?;
    draw(app, sampling, requests, options, None).await
}

/// Edits an image.
pub async fn edit(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (request, _memory) = parse::<EditRequest>(&app, request).await?;
    let EditRequest { model, negative_prompt, width, height, steps, .. } = request;
    let EditRequest { guidance_scale, seed, n, stream, image_guidance_scale, strength, .. } = request;
    let stream = stream.unwrap_or(false);
    let sampling = Sampling { model, negative_prompt, width, height, steps, guidance_scale, seed, n, stream };
    check_range(strength, "strength", 0.0, 1.0)?;
    check_range(image_guidance_scale, "image_guidance_scale", 0.0, 1000.0)?;
    let (prompt, param) = match (request.prompt, request.instruction) {
        (Some(prompt), None) => (prompt, "prompt"),
        (None, Some(instruction)) => (instruction, "instruction"),
        _ => return Err(ApiError::invalid("prompt", "give either `prompt` or `instruction`")),
    };
    if param == "instruction" && (request.mask.is_some() || strength.is_some()) {
        let message = "an instruction goes without `mask` and `strength`: give a `prompt` with these";
        return Err(ApiError::invalid("instruction", message));
    }
    let options = sampling.options(&app)?;
    let options = GenerateOptions {
        image_guidance_scale: image_guidance_scale.unwrap_or(options.image_guidance_scale),
        ..options
    };
    let requests = sampling.requests(&app, &prompt, param)?;
    let image = Upload { param: "image".to_owned(), source: request.image };
    let image = decode_single(&app, image, None).await?;
    let mut memory = vec![image.memory];
    let kind = match (request.mask, strength) {
        (Some(source), strength) => {
            let mask = decode_single(&app, Upload { param: "mask".to_owned(), source }, None).await?;
            memory.push(mask.memory);
            EditKind::Inpaint { mask: mask.image, strength: strength.unwrap_or(1.0) }
        }
        (None, Some(strength)) => EditKind::ImageToImage { strength, exact_steps: false },
        (None, None) => EditKind::Instruct,
    };
    let edit = Edit { image: image.image, kind };
    draw(app, sampling, requests, options, Some((edit, memory))).await
}

impl Sampling {
    /// The options of the pipeline.
    fn options(&self, app: &App) -> ApiResult<GenerateOptions> {
        let limits = &app.limits;
        check_range(self.width, "width", 1, limits.side)?;
        check_range(self.height, "height", 1, limits.side)?;
        check_range(self.steps, "steps", 1, limits.steps as u64)?;
        check_range(self.guidance_scale, "guidance_scale", 0.0, 1000.0)?;
        Ok(GenerateOptions {
            width: self.width,
            height: self.height,
            steps: self.steps.map(|steps| steps as usize),
            guidance_scale: self.guidance_scale,
            ..GenerateOptions::default()
        })
    }

    /// The images, with the seeds `seed`, `seed + 1`, ...
    fn requests(&self, app: &App, prompt: &str, param: &str) -> ApiResult<Vec<ImageRequest>> {
        let count = self.n.unwrap_or(1);
        check_range(Some(count), "n", 1, app.limits.generated as u64)?;
        check_text(prompt, param, &app.limits)?;
        check_text(self.negative_prompt.as_deref().unwrap_or_default(), "negative_prompt", &app.limits)?;
        // JavaScript's numbers hold 53 bits.
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(()) >> 32);
        let request = |index| ImageRequest {
            prompt: prompt.to_owned(),
            negative_prompt: self.negative_prompt.clone(),
            seed: seed.wrapping_add(index),
        };
        Ok((0..count).map(request).collect())
    }
}

/// Runs the request and answers with its images, or with a stream of its steps and then its images.
async fn draw(
    app: Arc<App>,
    sampling: Sampling,
    requests: Vec<ImageRequest>,
    options: GenerateOptions,
    edit: Option<(Edit, Vec<Reserved>)>,
) -> ApiResult<Response> {
    let worker = app.diffusion(&sampling.model)?;
    worker.info()?;
    let seeds = requests.iter().map(|request| request.seed).collect();
    let (reply, drawn) = reply();
    let (steps, mut step) = mpsc::channel(WAITING_STEPS);
    let steps = sampling.stream.then_some(steps);
    let most_side = app.limits.side;
    worker.submit(DiffusionJob { requests, options, edit, most_side, steps, reply })?;
    if !sampling.stream {
        return Ok(json(&images(sampling.model, seeds, drawn.wait().await?).await?));
    }
    // A request that fails before its first step has a status of its own.
    let Some(first) = step.recv().await else {
        let images = images(sampling.model, seeds, drawn.wait().await?).await?;
        return Ok(json(&images));
    };
    let (sender, response) = events();
    let seconds = Duration::from_secs(app.limits.request_seconds);
    tokio::spawn(async move {
        // What is dropped at the end cancels the job.
        let sending = send(&sender, sampling.model, seeds, (first, step), drawn);
        sender.send_within(seconds, sending).await;
    });
    Ok(response)
}

/// Sends the steps, then the images.
async fn send(
    to: &EventSender,
    model: String,
    seeds: Vec<u64>,
    (first, mut steps): (Step, mpsc::Receiver<Step>),
    drawn: Pending<Drawn>,
) -> Result<(), Gone> {
    let mut next = Some(first);
    while let Some(Step { step, steps: all, preview }) = next {
        let mut event = json!({ "step": step, "steps": all });
        if let Some(preview) = preview {
            match data_url(preview).await {
                Ok(url) => event["preview"] = url.into(),
                Err(error) => return to.send_error(&error).await,
            }
        }
        to.send(&event).await?;
        next = steps.recv().await;
    }
    let made = async { images(model, seeds, drawn.wait().await?).await };
    match made.await {
        Ok(images) => {
            to.send(&images).await?;
            to.send_done().await
        }
        Err(error) => to.send_error(&error).await,
    }
}

/// The answer of a request.
async fn images(model: String, seeds: Vec<u64>, Drawn { images, settings }: Drawn) -> ApiResult<Images> {
    let flagged = images.iter().map(|image| image.is_flagged).collect();
    let mut urls = Vec::with_capacity(images.len());
    for image in images {
        urls.push(data_url(image.picture).await?);
    }
    Ok(Images { model, images: urls, seeds, flagged, settings })
}
