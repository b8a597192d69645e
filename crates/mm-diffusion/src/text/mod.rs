//! The text encoders of a pipeline, and what a denoiser reads of a prompt.

mod encoder;
mod new_tokens;
mod prompts;

pub(crate) use encoder::{ClipTextEncoder, T5TextEncoder, rename_text_weights};
pub(crate) use prompts::{TextConditions, TextEncoders, TextRules, guidance_embedding};

use crate::Result;
use mm_core::checkpoint::{TensorLayout, Weights};
use std::sync::PoisonError;
use tch::nn::{Path, VarStore};

/// Makes the part `part` of a pipeline below this name of `vs`, and fills it with `weights`, whose names are
/// those of the part alone.
pub(crate) fn build_below<T>(
    vs: &VarStore,
    part: &str,
    weights: &mut Weights,
    layout: &TensorLayout,
    make: impl Fn(&Path) -> Result<T>,
) -> Result<T> {
    // Other parts of the pipeline may be in `vs` already.
    let own = VarStore::new(vs.device());
    weights.rename(|name| format!("{part}.{name}"));
    let made = weights.build(&own, layout, |path| make(&(path / part)))?;
    adopt(vs, &own);
    Ok(made)
}

/// Moves the variables of `from` to `to`.
fn adopt(to: &VarStore, from: &VarStore) {
    let mut to = to.variables_.lock().unwrap_or_else(PoisonError::into_inner);
    let mut from = from.variables_.lock().unwrap_or_else(PoisonError::into_inner);
    to.named_variables.extend(from.named_variables.drain());
    to.trainable_variables.append(&mut from.trainable_variables);
}
