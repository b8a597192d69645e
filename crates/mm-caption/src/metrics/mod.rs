//! Caption metrics.

pub mod ptb;
