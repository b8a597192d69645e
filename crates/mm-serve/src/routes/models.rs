//! `GET /v1/models`: the models, in the form of OpenAI's API.

use crate::app::{App, Model};
use crate::response::json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Lists the models with what they do.
pub async fn list(State(app): State<Arc<App>>) -> Response {
    let model = |(name, model): (&String, &Model)| {
        json!({
            "id": name, "object": "model", "created": app.created, "owned_by": "mm", "task": model.task(),
        })
    };
    let models: Vec<Value> = app.models.iter().map(model).collect();
    json(&json!({ "object": "list", "data": models }))
}
