//! `POST /v1/vqa`: answers to a question about an image.

use super::check_text;
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::vqa::VqaJob;
use crate::response::json;
use crate::upload::{ImageSource, Resize, Upload, decode_single};
use crate::worker::reply;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaRequest {
    model: String,
    image: ImageSource,
    question: String,
}

/// Answers the question.
pub async fn answer(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (VqaRequest { model, image, question }, _memory) = parse(&app, request).await?;
    let worker = app.vqa(&model)?;
    let processor = worker.info()?.processor.clone();
    check_text(&question, "question", &app.limits)?;
    if question.trim().is_empty() {
        return Err(ApiError::invalid("question", "the question is empty"));
    }
    let resize: Resize = Arc::new(move |image| processor.resize(image).map_err(|error| error.to_string()));
    let upload = Upload { param: "image".to_owned(), source: image };
    let image = decode_single(&app, upload, Some(resize)).await?;
    let (reply, answers) = reply();
    worker.submit(VqaJob { image, question, reply })?;
    Ok(json(&json!({ "model": model, "answers": answers.wait().await? })))
}
