//! `POST /v1/caption`: captions of images.

use super::{check_range, check_text};
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::events::{EventSender, Gone, events};
use crate::families::caption::CaptionJob;
use crate::response::json;
use crate::upload::{ImageSource, Resize, decode, one_or_many};
use crate::worker::{Pending, reply};
use axum::extract::{Request, State};
use axum::response::Response;
use mm_text::generate::GenerationConfig;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// The most new tokens that a request may have; decoders have fewer positions.
pub const MAX_TOKENS: u64 = 4096;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionRequest {
    model: String,
    image: Option<ImageSource>,
    images: Option<Vec<ImageSource>>,
    prompt: Option<String>,
    max_tokens: Option<u64>,
    num_beams: Option<u64>,
    stream: Option<bool>,
}

/// Captions images.
pub async fn caption(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (request, _memory) = parse::<CaptionRequest>(&app, request).await?;
    let worker = app.captioner(&request.model)?;
    let info = worker.info()?;
    check_range(request.max_tokens, "max_tokens", 1, MAX_TOKENS)?;
    check_range(request.num_beams, "num_beams", 1, app.limits.beams as u64)?;
    let prompt = request.prompt.unwrap_or_default();
    check_text(&prompt, "prompt", &app.limits)?;
    let generation = over(&info.generation, request.max_tokens, request.num_beams)?;
    let uploads = one_or_many(request.image, request.images, &app.limits)?;
    let is_streamed = request.stream == Some(true);
    if is_streamed {
        check_streamable(&generation, uploads.len())?;
    }
    let processor = info.processor.clone();
    let resize: Resize = Arc::new(move |image| processor.resize(image).map_err(|error| error.to_string()));
    let images = decode(&app, uploads, Some(resize)).await?;
    let (reply, captions) = reply();
    let (pieces, received) = mpsc::unbounded_channel();
    let pieces = is_streamed.then_some(pieces);
    worker.submit(CaptionJob { images, prompt, generation, pieces, reply })?;
    if is_streamed {
        return stream(&app, received, captions).await;
    }
    Ok(json(&json!({ "model": request.model, "captions": captions.wait().await? })))
}

/// Answers with the pieces of a caption as events.
async fn stream(
    app: &App,
    mut pieces: UnboundedReceiver<String>,
    captions: Pending<Vec<String>>,
) -> ApiResult<Response> {
    let (sender, response) = events();
    // A request that fails before its first piece has a status of its own.
    let Some(first) = pieces.recv().await else {
        captions.wait().await?;
        let _ = sender.send_done().await; // a reader that is gone has no use for it
        return Ok(response);
    };
    let seconds = Duration::from_secs(app.limits.request_seconds);
    tokio::spawn(async move {
        // What is dropped at the end cancels the job.
        sender.send_within(seconds, send(&sender, (first, pieces), captions)).await;
    });
    Ok(response)
}

/// Sends the pieces, then the mark of the end.
async fn send(
    to: &EventSender,
    (first, mut pieces): (String, UnboundedReceiver<String>),
    captions: Pending<Vec<String>>,
) -> Result<(), Gone> {
    let mut next = Some(first);
    while let Some(text) = next {
        to.send(&json!({ "text": text })).await?;
        next = pieces.recv().await;
    }
    match captions.wait().await {
        Ok(_) => to.send_done().await,
        Err(error) => to.send_error(&error).await,
    }
}

/// Checks that the caption can be given in pieces.
fn check_streamable(generation: &GenerationConfig, images: usize) -> ApiResult<()> {
    if images != 1 {
        return Err(ApiError::invalid("stream", "a stream is the caption of one image: leave `stream` out"));
    }
    if generation.num_beams > 1 {
        let message = format!(
            "a caption of {} beams is known at its end only: set `num_beams` to 1, or leave `stream` out",
            generation.num_beams
        );
        return Err(ApiError::invalid("stream", message));
    }
    Ok(())
}

/// The model's `defaults` with what is given in their place; one caption an image.
fn over(
    defaults: &GenerationConfig,
    max_tokens: Option<u64>,
    num_beams: Option<u64>,
) -> ApiResult<GenerationConfig> {
    let max_new_tokens = max_tokens.map_or(defaults.max_new_tokens, |count| count as usize);
    let generation = GenerationConfig {
        max_new_tokens,
        min_new_tokens: defaults.min_new_tokens.min(max_new_tokens),
        num_beams: num_beams.map_or(defaults.num_beams, |count| count as usize),
        num_return_sequences: 1,
        ..defaults.clone()
    };
    generation.validate().map_err(|error| ApiError::invalid("max_tokens", error.to_string()))?;
    Ok(generation)
}
