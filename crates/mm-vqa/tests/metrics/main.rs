//! Metrics against the published programs, and on arbitrary texts.

mod arbitrary;
mod official;
mod sets;
