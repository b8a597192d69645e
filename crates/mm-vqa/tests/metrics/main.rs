//! Metrics against the published programs, and on arbitrary texts.

mod official;
