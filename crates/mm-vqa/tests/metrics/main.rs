//! Metrics against the published programs, and on arbitrary texts.

mod arbitrary;
mod documents;
mod gqa;
mod official;
mod sets;
