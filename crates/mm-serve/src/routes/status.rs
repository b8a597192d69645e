//! Health, metrics, and the OpenAPI document.

use crate::app::App;
use crate::openapi;
use crate::response::{json, with_type};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;

/// `GET /healthz`: 200 once all models are opened.
pub async fn healthz(State(app): State<Arc<App>>) -> Response {
    if app.is_ready() {
        return json(&json!({ "status": "ok" }));
    }
    let mut response = json(&json!({ "status": "loading" }));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// `GET /metrics`: Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    with_type("text/plain; version=0.0.4; charset=utf-8", app.metrics_text())
}

/// `GET /openapi.json`
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    json(&openapi::document(&app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeConfig;

    #[test]
    fn a_server_whose_models_are_not_opened_is_loading() {
        let toml = "[models.none]\ntask = 'clip'\nfrom = './nowhere'";
        let config: ServeConfig = toml::from_str(toml).unwrap();
        let (opened, mut outcome) = tokio::sync::mpsc::unbounded_channel();
        let (app, threads) = App::start(&config, None, &opened).unwrap();
        let app = Arc::new(app);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let response = runtime.block_on(healthz(State(Arc::clone(&app))));
        assert_eq!(response.status(), 503);
        assert_eq!(app.clip("none").unwrap().info().unwrap_err().status, 503);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let error = runtime.block_on(outcome.recv()).unwrap().unwrap_err().to_string();
        assert!(error.starts_with("cannot open [models.none]: "), "{error}");
    }
}
