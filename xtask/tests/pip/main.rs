//! What pip fetches, with pips of the tests' own: they need no network.

mod machine;
mod minilm;
mod setup;
