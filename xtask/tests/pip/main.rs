//! What pip fetches, with pips of the tests' own: they need no network.

mod machine;
mod minilm;
#[path = "../common/script.rs"]
mod script;
mod setup;
