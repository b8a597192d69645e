//! `POST /v1/caption`: captions of images.

use super::{check_range, check_text};
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::caption::CaptionJob;
use crate::response::json;
use crate::upload::{ImageSource, Resize, decode, one_or_many};
use crate::worker::reply;
use axum::extract::{Request, State};
use axum::response::Response;
use mm_text::generate::GenerationConfig;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

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
    if request.stream == Some(true) {
        return Err(ApiError::invalid("stream", "captions are not streamed yet: leave `stream` out"));
    }
    let worker = app.captioner(&request.model)?;
    let facts = worker.facts()?;
    check_range(request.max_tokens, "max_tokens", 1, MAX_TOKENS)?;
    check_range(request.num_beams, "num_beams", 1, app.limits.beams as u64)?;
    let prompt = request.prompt.unwrap_or_default();
    check_text(&prompt, "prompt", &app.limits)?;
    let generation = over(&facts.generation, request.max_tokens, request.num_beams)?;
    let uploads = one_or_many(request.image, request.images, &app.limits)?;
    let processor = facts.processor.clone();
    let resize: Resize = Arc::new(move |image| processor.resize(image).map_err(|error| error.to_string()));
    let images = decode(&app, uploads, Some(resize)).await?;
    let (reply, captions) = reply();
    worker.submit(CaptionJob { images, prompt, generation, reply })?;
    Ok(json(&json!({ "model": request.model, "captions": captions.wait().await? })))
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
