//! What happens around every handler: origins, keys, time limits, counts, headers.

use crate::api_error::ApiError;
use crate::app::App;
use crate::routes::{ROUTES, Route};
use crate::same_origin::SameOrigin;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The router of all routes of a server that listens on `address`.
pub fn router(app: &Arc<App>, address: SocketAddr) -> Router {
    let same_origin = SameOrigin::new(address, app.keys.is_some());
    let mut router = Router::new();
    for route in &ROUTES {
        let layer = from_fn_with_state((Arc::clone(app), route, same_origin), around);
        router = router.route(route.path, (route.handler)().route_layer(layer));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(no_sniffing))
        .layer(DefaultBodyLimit::disable()) // body.rs has the limit
        .with_state(Arc::clone(app))
}

/// Checks the origin and the key, bounds the time, and counts the request.
async fn around(
    State((app, route, same_origin)): State<(Arc<App>, &'static Route, SameOrigin)>,
    request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let in_flight = app.metrics.begin();
    let allowed = same_origin.check(request.uri().path(), request.headers());
    let response = match allowed.and_then(|()| check_key(&app, route, &request)) {
        Ok(()) => {
            let seconds = app.limits.request_seconds;
            let response = timeout(Duration::from_secs(seconds), next.run(request)).await;
            response.unwrap_or_else(|_| {
                let message = format!("the answer took more than {seconds} seconds");
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, message).into_response()
            })
        }
        Err(error) => error.into_response(),
    };
    drop(in_flight);
    app.metrics.record(route.path, response.status().as_u16(), begin.elapsed());
    response
}

fn check_key(app: &App, route: &Route, request: &Request) -> Result<(), ApiError> {
    match &app.keys {
        Some(keys) if route.needs_key => {
            keys.check(request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes))
        }
        _ => Ok(()),
    }
}

/// Content types are as they say: an upload that comes back is never a script.
async fn no_sniffing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is no such path: GET /openapi.json lists them")
}

async fn not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "the path has another method: GET /openapi.json lists them")
}
