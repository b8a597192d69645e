//! The web page: files of `page/`, in the program.

use crate::api_error::{ApiError, ApiResult};
use crate::response::with_type;
use crate::routes::path;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

// `FILES: &[(&str, &[u8])]`, the names and the bytes; see build.rs.
include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Scripts and styles of the page alone, and pictures that it holds itself.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// The page itself.
pub async fn index() -> ApiResult<Response> {
    file("index.html")
}

/// One of its files.
pub async fn asset(name: Result<Path<String>, PathRejection>) -> ApiResult<Response> {
    file(&path(name)?)
}

fn file(name: &str) -> ApiResult<Response> {
    let found = FILES.iter().find(|(known, _)| *known == name);
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("the page has no file {name:?}"));
    let &(_, bytes) = found.ok_or_else(missing)?;
    let mut response = with_type(content_type(name), bytes);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Names have no version: another one of the program has other files under them.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}
