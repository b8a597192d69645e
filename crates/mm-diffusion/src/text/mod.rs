//! The text encoders of a pipeline, and what a denoiser reads of a prompt.

mod encoder;
mod prompts;

pub(crate) use encoder::{ClipTextEncoder, T5TextEncoder, text_weights};
pub(crate) use prompts::{TextConditions, TextEncoders, TextRules, guidance_embedding};
