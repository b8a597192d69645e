//! `/v1/search` and `/v1/indexes`: images of an index by texts, images and items.

use super::embeddings::{resize, tokenize};
use super::{check_range, check_text, path};
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::clip::ClipJob;
use crate::response::{json, with_type};
use crate::upload::{ImageSource, Upload, check_count, decode};
use crate::worker::reply;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use mm_search::{Error, Filter, Hit, Index, QueryPart, SearchOptions, combine};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path as StdPath;
use std::sync::Arc;
use std::time::Instant;

/// Results of a search that names no number.
const DEFAULT_RESULTS: u64 = 10;

/// The request of a search.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    index: String,
    queries: Vec<QueryInput>,
    k: Option<u64>,
    offset: Option<u64>,
    filter: Option<String>,
    diverse: Option<f64>,
}

/// A part of a query: one of text, image and item.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryInput {
    text: Option<String>,
    image: Option<ImageSource>,
    id: Option<u64>,
    weight: Option<f64>,
}

#[derive(Serialize)]
struct SearchAnswer {
    results: Vec<SearchResult>,
    /// The items that were searched: those that fulfil the filter.
    total: usize,
    seconds: f64,
}

#[derive(Serialize)]
struct SearchResult {
    id: u64,
    score: f32,
    key: String,
    metadata: Value,
}

/// `GET /v1/indexes`
pub async fn list(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let mut indexes = Vec::new();
    for (name, served) in &app.indexes {
        let index = served.opened()?;
        indexes.push(json!({
            "id": name, "model": served.model, "rows": index.len(), "dim": index.description().dim,
        }));
    }
    Ok(json(&json!({ "object": "list", "data": indexes })))
}

/// `POST /v1/search`
pub async fn search(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let start = Instant::now();
    let (request, _memory) = parse::<SearchRequest>(&app, request).await?;
    let served = app.index(&request.index)?;
    let index = served.opened()?;
    let most = app.limits.results as u64;
    let k = request.k.unwrap_or(DEFAULT_RESULTS);
    check_range(Some(k), "k", 1, most)?;
    let offset = request.offset.unwrap_or(0);
    check_range(Some(offset), "offset", 0, most - k)?;
    check_range(request.diverse, "diverse", 0.0, 1.0)?;
    let filter = request.filter.filter(|filter| !filter.trim().is_empty());
    if let Some(filter) = &filter {
        check_text(filter, "filter", &app.limits)?;
    }
    let parts = embed(&app, &served.model, &index, request.queries).await?;
    let (offset, diverse) = (offset as usize, request.diverse.map(|share| share as f32));
    let served = served.clone();
    let find = move || -> mm_search::Result<(Vec<SearchResult>, usize)> {
        let index = served.refreshed(index)?;
        let query = combine(&parts)?;
        let among = filter.as_deref().map(Filter::parse).transpose()?;
        let among = among.map(|filter| index.matching(&filter)).transpose()?;
        let total = among.as_ref().map_or(index.len(), mm_search::IdSet::len);
        let options = SearchOptions { k: offset + k as usize, among, ..SearchOptions::default() };
        let hits = match diverse.filter(|&share| share > 0.0) {
            Some(diversity) => index.search_diverse(&query, &options, diversity)?,
            None => index.search(&[query], &options)?.pop().unwrap_or_default(),
        };
        Ok((results(&index, hits.into_iter().skip(offset))?, total))
    };
    let (results, total) = blocking(find).await?;
    Ok(json(&SearchAnswer { results, total, seconds: start.elapsed().as_secs_f64() }))
}

/// `GET /v1/indexes/{index}/items/{id}/image`: the thumbnail, a JPEG.
pub async fn image(
    State(app): State<Arc<App>>,
    parts: Result<Path<(String, String)>, PathRejection>,
) -> ApiResult<Response> {
    let (name, id) = path(parts)?;
    let (index, id) = item(&app, &name, &id)?;
    let thumbnail = blocking(move || index.thumbnail(id)).await?;
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("the index has no image of the item {id}"));
    Ok(with_type("image/jpeg", thumbnail.ok_or_else(missing)?))
}

/// `GET /v1/indexes/{index}/items/{id}/similar?k=N`: the items that are most similar to one.
pub async fn similar(
    State(app): State<Arc<App>>,
    uri: Uri,
    parts: Result<Path<(String, String)>, PathRejection>,
) -> ApiResult<Response> {
    let start = Instant::now();
    let (name, id) = path(parts)?;
    let (index, id) = item(&app, &name, &id)?;
    let given = uri.query().unwrap_or_default().split('&').find_map(|field| field.strip_prefix("k="));
    let k = match given {
        Some(text) => text.parse().map_err(|_| ApiError::invalid("k", format!("{text:?} is no number")))?,
        None => DEFAULT_RESULTS,
    };
    check_range(Some(k), "k", 1, app.limits.results as u64)?;
    let find = move || {
        let options = SearchOptions { k: k as usize, ..SearchOptions::default() };
        let hits = index.similar(id, &options)?;
        Ok((results(&index, hits.into_iter())?, index.len().saturating_sub(1)))
    };
    let (results, total) = blocking(find).await?;
    Ok(json(&SearchAnswer { results, total, seconds: start.elapsed().as_secs_f64() }))
}

/// The unit rows of the parts of a query.
async fn embed(app: &App, model: &str, index: &Index, queries: Vec<QueryInput>) -> ApiResult<Vec<QueryPart>> {
    let (mut texts, mut text_weights) = (Vec::new(), Vec::new());
    let (mut uploads, mut image_weights, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for (place, query) in queries.into_iter().enumerate() {
        let param = format!("queries[{place}]");
        let weight = query.weight.unwrap_or(1.0) as f32;
        match (query.text, query.image, query.id) {
            (Some(text), None, None) => {
                check_text(&text, &param, &app.limits)?;
                texts.push(text);
                text_weights.push(weight);
            }
            (None, Some(source), None) => {
                uploads.push(Upload { param, source });
                image_weights.push(weight);
            }
            (None, None, Some(id)) => {
                let row = index.row(id).ok_or_else(|| no_item(id).with_param(&param))?;
                parts.push(QueryPart { row, weight });
            }
            _ => return Err(ApiError::invalid(&param, "give one of `text`, `image` and `id`")),
        }
    }
    check_range(Some(texts.len()), "queries", 0, app.limits.texts)?;
    if !uploads.is_empty() {
        check_count(uploads.len(), "queries", &app.limits)?;
    }
    if texts.is_empty() && uploads.is_empty() {
        return Ok(parts);
    }
    let worker = app.clip(model)?;
    let info = worker.info()?;
    let texts = tokenize(&info.tokenizer, texts, "queries").await?;
    let images = decode(app, uploads, Some(resize(&info.processor))).await?;
    let (reply, rows) = reply();
    worker.submit(ClipJob::Embed { texts, images, reply })?;
    let weights = text_weights.into_iter().chain(image_weights);
    let rows = rows.wait().await?.into_iter().zip(weights);
    parts.extend(rows.map(|(row, weight)| QueryPart { row, weight }));
    Ok(parts)
}

/// The index and the id of an item of a path.
fn item(app: &App, index: &str, id: &str) -> ApiResult<(Arc<Index>, u64)> {
    let index = app.index(index)?.opened()?;
    let wrong = || ApiError::invalid("id", format!("{id:?} is no number"));
    let id = id.parse().map_err(|_| wrong())?;
    index.row(id).ok_or_else(|| no_item(id))?;
    Ok((index, id))
}

fn no_item(id: u64) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("the index has no item {id}"))
}

/// The items of `hits`, without those that another process has just deleted.
fn results(index: &Index, hits: impl Iterator<Item = Hit>) -> mm_search::Result<Vec<SearchResult>> {
    let result = |hit: Hit| match index.item(hit.id) {
        Ok(item) => {
            let key = without_folders(item.key);
            Some(Ok(SearchResult { id: hit.id, score: hit.score, key, metadata: item.metadata }))
        }
        Err(Error::Query(_)) => None,
        Err(error) => Some(Err(error)),
    };
    hits.filter_map(result).collect()
}

/// The key of an item of a folder is the path of its file, and an absolute one describes this machine.
fn without_folders(key: String) -> String {
    let path = StdPath::new(&key);
    match path.file_name() {
        Some(name) if path.is_absolute() || path.starts_with("..") => name.to_string_lossy().into_owned(),
        _ => key,
    }
}

/// The result of work that reads files, on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> mm_search::Result<T> + Send + 'static,
) -> ApiResult<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))?;
    done.map_err(|error| match error {
        Error::Query(_) => ApiError::invalid("queries", error.to_string()),
        Error::Filter { .. } => ApiError::invalid("filter", error.to_string()),
        error => ApiError::internal(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_no_path_of_the_machine() {
        let shown = |key: &str| without_folders(key.to_owned());
        assert_eq!(shown("/home/ann/photos/cat.jpg"), "cat.jpg");
        assert_eq!(shown("../photos/cat.jpg"), "cat.jpg");
        assert_eq!(shown("photos/cat.jpg"), "photos/cat.jpg");
        assert_eq!(shown("00001"), "00001");
    }
}
