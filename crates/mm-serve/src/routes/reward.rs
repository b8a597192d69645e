//! `POST /v1/reward`: scores of images.

use super::check_text;
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::reward::RewardJob;
use crate::response::json;
use crate::upload::{ImageSource, decode, many};
use crate::worker::reply;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRequest {
    model: String,
    images: Vec<ImageSource>,
    prompt: Option<String>,
    prompts: Option<Vec<String>>,
}

/// Scores images, each with its prompt or all with one.
pub async fn score(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (request, _memory) = parse::<RewardRequest>(&app, request).await?;
    let worker = app.reward(&request.model)?;
    let count = request.images.len();
    let uploads = many(request.images, "images", &app.limits)?;
    let prompts = match (request.prompt, request.prompts) {
        (Some(prompt), None) => vec![prompt; count],
        (None, Some(prompts)) if prompts.len() == count => prompts,
        (None, Some(prompts)) => {
            let message = format!("{count} images with {} prompts: each image has one", prompts.len());
            return Err(ApiError::invalid("prompts", message));
        }
        (None, None) if !worker.info()?.reads_prompt => vec![String::new(); count],
        _ => return Err(ApiError::invalid("prompt", "give either `prompt` or `prompts`")),
    };
    prompts.iter().try_for_each(|prompt| check_text(prompt, "prompt", &app.limits))?;
    let images = decode(&app, uploads, None).await?;
    let (reply, scores) = reply();
    worker.submit(RewardJob { images, prompts, reply })?;
    Ok(json(&json!({ "model": request.model, "scores": scores.wait().await? })))
}
