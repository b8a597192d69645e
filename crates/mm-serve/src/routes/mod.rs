//! The routes: a row of the table for each, which the router and the OpenAPI document are both made of.

pub mod caption;
mod classify;
mod embeddings;
mod heatmap;
mod images;
mod models;
mod reward;
mod search;
mod status;
mod vqa;

use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::limits::Limits;
use crate::openapi::{operations, search_operations};
use crate::page;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::routing::{MethodRouter, get, post};
use serde_json::Value;
use std::sync::Arc;

/// The state of every handler.
pub type Handler = MethodRouter<Arc<App>>;

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The path, in axum's form, which is also OpenAPI's.
    pub path: &'static str,
    /// The method in lower case, as OpenAPI has it.
    pub method: &'static str,
    /// Whether a request needs a key where the server has keys.
    pub needs_key: bool,
    /// The handler.
    pub handler: fn() -> Handler,
    /// The operation of the OpenAPI document.
    pub operation: fn(&App) -> Value,
}

/// A GET that is open to all.
const fn open(path: &'static str, handler: fn() -> Handler, operation: fn(&App) -> Value) -> Route {
    Route { path, method: "get", needs_key: false, handler, operation }
}

/// A GET that needs a key.
const fn read(path: &'static str, handler: fn() -> Handler, operation: fn(&App) -> Value) -> Route {
    Route { path, method: "get", needs_key: true, handler, operation }
}

/// A POST, which needs a key.
const fn call(path: &'static str, handler: fn() -> Handler, operation: fn(&App) -> Value) -> Route {
    Route { path, method: "post", needs_key: true, handler, operation }
}

/// All routes.
pub const ROUTES: [Route; 18] = [
    open("/", || get(page::index), operations::index),
    open("/page/{file}", || get(page::asset), operations::asset),
    open("/healthz", || get(status::healthz), operations::healthz),
    read("/metrics", || get(status::metrics), operations::metrics),
    read("/openapi.json", || get(status::openapi), operations::openapi),
    read("/v1/models", || get(models::list), operations::models),
    call("/v1/embeddings", || post(embeddings::embed), operations::embeddings),
    call("/v1/classify", || post(classify::classify), operations::classify),
    call("/v1/heatmap", || post(heatmap::draw), operations::heatmap),
    call("/v1/caption", || post(caption::caption), operations::caption),
    call("/v1/vqa", || post(vqa::answer), operations::vqa),
    call("/v1/generate", || post(images::generate), operations::generate),
    call("/v1/edit", || post(images::edit), operations::edit),
    call("/v1/reward", || post(reward::score), operations::reward),
    read("/v1/indexes", || get(search::list), search_operations::indexes),
    call("/v1/search", || post(search::search), search_operations::search),
    read("/v1/indexes/{index}/items/{id}/image", || get(search::image), search_operations::image),
    read("/v1/indexes/{index}/items/{id}/similar", || get(search::similar), search_operations::similar),
];

/// The parts of a path, as an error of this API where they are not UTF-8.
pub fn path<T>(parts: Result<Path<T>, PathRejection>) -> ApiResult<T> {
    parts.map(|Path(parts)| parts).map_err(|error| ApiError::invalid("path", error.body_text()))
}

/// Checks the length of a text.
///
/// # Errors
/// 400: it is longer than the limit.
fn check_text(text: &str, param: &str, limits: &Limits) -> ApiResult<()> {
    let count = text.chars().count();
    if count <= limits.text_chars {
        return Ok(());
    }
    let message = format!("the text has {count} characters, more than {}", limits.text_chars);
    Err(ApiError::invalid(param, message))
}

/// Checks a number that has a range.
///
/// # Errors
/// 400: it is outside.
fn check_range<T: PartialOrd + std::fmt::Display>(
    value: Option<T>,
    param: &str,
    least: T,
    most: T,
) -> ApiResult<()> {
    match value {
        Some(value) if !(least <= value && value <= most) => {
            let message = format!("`{param}` is {value}: it must be from {least} to {most}");
            Err(ApiError::invalid(param, message))
        }
        _ => Ok(()),
    }
}
