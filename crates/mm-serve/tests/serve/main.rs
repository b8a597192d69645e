//! The server as a client meets it, with the small models of `data/goldens`.

mod batching;
mod browser;
mod cancellation;
mod classify;
mod common;
mod errors;
mod keys;
mod limits;
mod malformed;
mod openapi;
mod origins;
mod routes;
mod search;
mod shutdown;
mod streams;
