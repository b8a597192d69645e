//! An HTTP API and a web page over the models of this workspace.
//!
//! The API has the form of OpenAI's where that has one (`/v1/models`, `/v1/embeddings`, errors, streams), and
//! follows the commands of `mm` elsewhere: `/v1/classify`, `/v1/caption`, `/v1/generate`, ...
//! `docs/serving.md` shows every route; `GET /openapi.json` describes them for programs.
//!
//! ```no_run
//! use mm_serve::{ServeConfig, Server};
//! use std::path::Path;
//!
//! let config = ServeConfig::read(Path::new("models.toml"))?;
//! let server = Server::bind(&config, ([127, 0, 0, 1], 8080).into(), None)?;
//! println!("http://{}", server.address());
//! server.run(|| println!("all models are opened"))?;
//! # Ok::<(), mm_serve::Error>(())
//! ```
//!
//! # The way of a request
//!
//! 1. A connection is a task of a small tokio runtime; it has no thread of its own, and ends where it makes
//!    no progress. A middleware checks the origin and the key, bounds the time and counts the request.
//! 2. The body, JSON or a multipart form with the same fields, is read within limits of size, memory and time
//!    and parsed by serde. Images are decoded and resized on threads for blocking work; texts are tokenized.
//! 3. The job goes into the bounded queue of its model. The one thread that owns the model takes a batch:
//!    what waits, up to a number of items, and for a short time from the first. A full queue is status 429.
//! 4. The thread calls the model's crate and replies to each job of the batch. A job whose request is gone,
//!    because the client has closed the connection or the time is over, is left out; a diffusion that runs
//!    for such requests alone stops at its next step, a caption that is streamed at its next token.
//!
//! No lock is held while a model computes. There is no code of models here.
//!
//! # To extend
//!
//! - A route: a file in `routes/` with its request and handler, a row of the table `ROUTES` in
//!   `routes/mod.rs`, and its operation in `openapi/operations.rs`.
//! - A family of models: a variant of [`Task`], a file in `families/` with its jobs and its thread.
//! - A limit: a field of [`Limits`] with a default, checked where it applies.

mod api_error;
mod app;
mod body;
mod config;
mod error;
mod events;
mod families;
mod form;
mod indexes;
mod keys;
mod limits;
mod memory_budget;
mod metrics;
mod middleware;
mod openapi;
mod page;
mod queue;
mod recent;
mod response;
mod routes;
mod same_origin;
mod server;
mod upload;
mod worker;

pub use config::{IndexConfig, ModelConfig, ServeConfig, Task};
pub use error::{Error, Result};
pub use keys::Keys;
pub use limits::Limits;
pub use server::{Server, StopHandle};
