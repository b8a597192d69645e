//! ViLT (Kim et al. 2021): one transformer over the words of a question and the patches of an image, and a
//! classifier of answers.

mod config;
mod embeddings;
mod model;

pub use config::ViltConfig;
pub use model::Vilt;
