//! The server as a client meets it, with the small models of `data/goldens`.

mod batching;
mod browser;
mod cancellation;
mod common;
mod errors;
mod keys;
mod limits;
mod malformed;
mod openapi;
mod routes;
mod search;
mod shutdown;
mod streams;
