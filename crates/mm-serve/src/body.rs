//! The bodies of requests, read within limits of size, memory and time.

use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::form::Form;
use crate::memory_budget::Reserved;
use axum::RequestExt;
use axum::body::{Body, HttpBody};
use axum::extract::{Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a body that is parsed on its thread: more take as long as a hand-over to another one.
const INLINE: usize = 1 << 16;

/// Parses the body of `request`, JSON or a multipart form with the same fields, as a `T`. The memory of the
/// body is reserved as long as the second value lives.
///
/// # Errors
/// 400, 408, 413, 415 or 429, as the documentation of the API says.
pub async fn parse<T>(app: &App, request: Request) -> ApiResult<(T, Reserved)>
where
    T: DeserializeOwned + Send + 'static,
{
    let kind = Kind::of(request.headers())?;
    let (parts, body) = request.into_parts();
    let (bytes, reserved) = read(app, &parts.headers, body).await?;
    let parsed = match kind {
        Kind::Json if bytes.len() <= INLINE => from_json(&bytes),
        Kind::Json => {
            let parsed = tokio::task::spawn_blocking(move || from_json(&bytes)).await;
            parsed.unwrap_or_else(|error| Err(ApiError::internal(&error)))
        }
        Kind::Multipart => {
            let request = Request::from_parts(parts, Body::from(bytes));
            let wrong = |error: &dyn std::fmt::Display| ApiError::invalid("body", error.to_string());
            let parts: Multipart = request.extract().await.map_err(|error| wrong(&error))?;
            Form::read(parts).await?.parse()
        }
    };
    Ok((parsed?, reserved))
}

enum Kind {
    Json,
    Multipart,
}

impl Kind {
    fn of(headers: &HeaderMap) -> ApiResult<Self> {
        let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(Self::Json);
        }
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            return Ok(Self::Multipart);
        }
        let message = "the content type must be application/json or multipart/form-data";
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
    }
}

/// Reads the whole body.
async fn read(app: &App, headers: &HeaderMap, mut body: Body) -> ApiResult<(Vec<u8>, Reserved)> {
    let limit = app.limits.body_mb << 20;
    let too_large = || {
        let message = format!("the body has more than {} MiB: send less", app.limits.body_mb);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large());
    }
    let idle = Duration::from_secs(app.limits.read_seconds);
    let (mut bytes, mut reserved) = (Vec::new(), app.memory.reserve(0)?);
    while let Some(frame) =
        timeout(idle, poll_fn(|context| Pin::new(&mut body).poll_frame(context))).await.map_err(|_| {
            let message = format!("no byte of the body came for {} seconds", app.limits.read_seconds);
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
        })?
    {
        let frame = frame.map_err(|_| ApiError::invalid("body", "the body ends before its last byte"))?;
        let Ok(data) = frame.into_data() else { continue }; // trailers
        if bytes.len() + data.len() > limit {
            return Err(too_large());
        }
        // What comes is reserved, not what is announced: an idle upload holds no memory.
        reserved.merge(app.memory.reserve(data.len())?);
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, reserved))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = from_fields(&mut json)?;
    json.end().map_err(|error| ApiError::invalid("body", format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// Parses the fields of a request, with the field of an error in its `param`.
pub fn from_fields<'de, T, D>(fields: D) -> ApiResult<T>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de>,
    D::Error: std::fmt::Display,
{
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        match path.as_str() {
            "." | "?" => ApiError::invalid("body", message),
            path => ApiError::invalid(path, format!("`{path}`: {message}")),
        }
    })
}
