//! Server-sent events (the `text/event-stream` of the HTML standard, section 9.2).

use crate::api_error::ApiError;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Frame;
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events that wait for a slow reader.
const WAITING: usize = 4;

/// The sending end of a stream of events.
#[derive(Debug)]
pub struct EventSender(mpsc::Sender<Bytes>);

/// The body of the answer.
struct EventBody(mpsc::Receiver<Bytes>);

/// The reader has closed the connection.
#[derive(Debug)]
pub struct Gone;

/// An answer of events, and the end that sends them; the stream ends where that is dropped.
pub fn events() -> (EventSender, Response) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut response = Response::new(Body::new(EventBody(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (EventSender(sender), response)
}

impl EventSender {
    /// Sends `value` as JSON.
    ///
    /// # Errors
    /// The reader is gone.
    pub async fn send(&self, value: &impl Serialize) -> Result<(), Gone> {
        let text = serde_json::to_string(value).unwrap_or_else(|error| {
            ApiError::internal(&error).body().to_string() // numbers that JSON does not have
        });
        self.send_data(&text).await
    }

    /// Sends an error, in the form of other answers' errors.
    ///
    /// # Errors
    /// The reader is gone.
    pub async fn send_error(&self, error: &ApiError) -> Result<(), Gone> {
        self.send(&error.body()).await
    }

    /// Sends the mark of a complete stream, as OpenAI's API has it.
    ///
    /// # Errors
    /// The reader is gone.
    pub async fn send_done(&self) -> Result<(), Gone> {
        self.send_data("[DONE]").await
    }

    /// Runs `sending`, which sends events to `self`, at most for `limit`; an error event ends a longer one.
    /// It is dropped where the reader is gone.
    pub async fn send_within(&self, limit: Duration, sending: impl Future<Output = Result<(), Gone>>) {
        let is_late = tokio::select! {
            sent = timeout(limit, sending) => sent.is_err(),
            () = self.0.closed() => false,
        };
        // The reader may be gone by then.
        if is_late {
            let message = format!("the answer took more than {} seconds", limit.as_secs());
            let _ = self.send_error(&ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)).await;
        }
    }

    async fn send_data(&self, data: &str) -> Result<(), Gone> {
        self.0.send(Bytes::from(format!("data: {data}\n\n"))).await.map_err(|_| Gone)
    }
}

impl HttpBody for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
