//! Answers in JSON, and pictures as data URLs.

use crate::api_error::{ApiError, ApiResult};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mm_image::{RgbImage, write_png_with_text};
use serde::Serialize;

/// An answer of `value` as JSON.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => with_type("application/json", Body::from(text)),
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

/// An answer with a content type.
pub fn with_type(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The PNG of a picture, encoded on a thread for blocking work.
pub async fn png(picture: RgbImage) -> ApiResult<Vec<u8>> {
    let encoded = tokio::task::spawn_blocking(move || write_png_with_text(&picture, &[])).await;
    let encoded = encoded.map_err(|error| ApiError::internal(&error))?;
    encoded.map_err(|error| ApiError::internal(&error))
}

/// The PNG of a picture as a data URL.
pub async fn data_url(picture: RgbImage) -> ApiResult<String> {
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png(picture).await?)))
}
