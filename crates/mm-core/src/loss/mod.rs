//! Losses: functions from tensors to a scalar.
//!
//! [`info_nce`] and [`siglip`] hold the B x B logits of a batch, [`info_nce_tiled`] and [`siglip_tiled`]
//! never do: they give the same numbers for the price of computing each logit twice (SigLIP's once), in
//! memory that grows with B. [`tiles`] is what they are made of, for processes that show each other their
//! texts.

mod contrastive;
mod tiled;
pub mod tiles;

pub use contrastive::{INITIAL_LOGIT_SCALE, MAX_LOGIT_SCALE, info_nce, logits, siglip, siglip_at};
pub use tiled::{DEFAULT_TILE, info_nce_tiled, siglip_tiled};
