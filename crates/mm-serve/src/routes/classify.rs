//! `POST /v1/classify`: zero-shot classification.

use super::check_text;
use super::embeddings::resize;
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::clip::{ClipJob, LabelSet};
use crate::limits::Limits;
use crate::response::json;
use crate::upload::{ImageSource, decode, one_or_many};
use crate::worker::reply;
use axum::extract::{Request, State};
use axum::response::Response;
use mm_clip::{Probability, Templates};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyRequest {
    model: String,
    image: Option<ImageSource>,
    images: Option<Vec<ImageSource>>,
    labels: Vec<String>,
    templates: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Classification<'a> {
    model: &'a str,
    probabilities: Probability,
    results: Vec<ImageLabels<'a>>,
}

#[derive(Serialize)]
struct ImageLabels<'a> {
    /// The most probable first.
    labels: Vec<Label<'a>>,
}

#[derive(Serialize)]
struct Label<'a> {
    label: &'a str,
    probability: f32,
}

/// Classifies images by labels.
pub async fn classify(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (request, _memory) = parse::<ClassifyRequest>(&app, request).await?;
    let worker = app.clip(&request.model)?;
    let info = worker.info()?;
    let set = label_set(request.labels, request.templates, &app.limits)?;
    let uploads = one_or_many(request.image, request.images, &app.limits)?;
    let images = decode(&app, uploads, Some(resize(&info.processor))).await?;
    let (reply, rows) = reply();
    worker.submit(ClipJob::Classify { images, labels: set.clone(), reply })?;
    let rows = rows.wait().await?;
    let results = rows.iter().map(|row| ImageLabels { labels: ranked(&set.labels, row) }).collect();
    let classification = Classification { model: &request.model, probabilities: info.probability, results };
    Ok(json(&classification))
}

fn ranked<'a>(labels: &'a [String], probabilities: &[f32]) -> Vec<Label<'a>> {
    let labels = labels.iter().zip(probabilities);
    let mut labels: Vec<Label> = labels.map(|(label, &probability)| Label { label, probability }).collect();
    labels.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    labels
}

/// The checked labels and templates.
fn label_set(labels: Vec<String>, templates: Option<Vec<String>>, limits: &Limits) -> ApiResult<LabelSet> {
    if labels.is_empty() {
        return Err(ApiError::invalid("labels", "there is no label"));
    }
    let mut seen = HashSet::new();
    for (index, label) in labels.iter().enumerate() {
        let param = format!("labels[{index}]");
        check_text(label, &param, limits)?;
        if label.trim().is_empty() {
            return Err(ApiError::invalid(&param, "the label is empty"));
        }
        if !seen.insert(label) {
            return Err(ApiError::invalid(&param, format!("the label {label:?} is given twice")));
        }
    }
    let templates = match templates {
        None => Templates::default(),
        Some(templates) => {
            check_lengths(&templates, &labels, limits)?;
            Templates::new(templates).map_err(|error| ApiError::invalid("templates", error.to_string()))?
        }
    };
    let prompts = labels.len().saturating_mul(templates.fill("").len());
    if prompts > limits.prompts {
        let message = format!("labels times templates are {prompts}, more than {}", limits.prompts);
        return Err(ApiError::invalid("labels", message));
    }
    Ok(LabelSet { labels, templates })
}

/// Checks the length of each template with the longest of `labels` in place of every `{}`, of which there may
/// be many.
fn check_lengths(templates: &[String], labels: &[String], limits: &Limits) -> ApiResult<()> {
    let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    for (index, template) in templates.iter().enumerate() {
        let places = template.matches("{}").count();
        let count = template.chars().count() + places * longest - 2 * places;
        if count > limits.text_chars {
            let most = limits.text_chars;
            let message = format!("with the longest label it has {count} characters, more than {most}");
            return Err(ApiError::invalid(&format!("templates[{index}]"), message));
        }
    }
    Ok(())
}
