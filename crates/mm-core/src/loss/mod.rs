//! Losses: functions from tensors to a scalar.

mod contrastive;

pub use contrastive::{INITIAL_LOGIT_SCALE, MAX_LOGIT_SCALE, info_nce, siglip};
