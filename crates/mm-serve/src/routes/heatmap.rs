//! `POST /v1/heatmap`: the parts of an image that contribute to its similarity with a text.

use super::check_text;
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::clip::ClipJob;
use crate::response::{png, with_type};
use crate::upload::{ImageSource, Upload, decode_single};
use crate::worker::reply;
use axum::extract::{Request, State};
use axum::response::Response;
use mm_core::Precision;
use serde::Deserialize;
use std::sync::Arc;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeatmapRequest {
    model: String,
    image: ImageSource,
    text: String,
}

/// Draws the heat map, a PNG.
pub async fn draw(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (HeatmapRequest { model, image, text }, _memory) = parse(&app, request).await?;
    let worker = app.clip(&model)?;
    if worker.info()?.precision != Precision::F32 {
        let message = "a heat map needs gradients, and the model is served in another precision than f32";
        return Err(ApiError::invalid("model", message));
    }
    check_text(&text, "text", &app.limits)?;
    let upload = Upload { param: "image".to_owned(), source: image };
    let image = decode_single(&app, upload, None).await?;
    let (reply, picture) = reply();
    worker.submit(ClipJob::HeatMap { image, text, reply })?;
    Ok(with_type("image/png", png(picture.wait().await?).await?))
}
