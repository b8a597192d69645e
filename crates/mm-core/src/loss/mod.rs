//! Losses: functions from tensors to a scalar.
//!
//! [`info_nce`] and [`siglip`] materialize the B x B logits of a batch. [`info_nce_tiled`] and
//! [`siglip_tiled`] compute the same numbers in memory that grows with B, and compute each logit twice
//! (SigLIP's once). [`tiles`] are their parts, for losses over several processes.
//!
//! [`token_cross_entropy`] is the loss of decoders of texts, [`soft_target_bce`] and
//! [`soft_target_cross_entropy`] are those of questions with several answers. [`bradley_terry`] and
//! [`plackett_luce`] are those of scores that preferences order.

mod contrastive;
mod policy;
mod preference;
mod soft_targets;
mod tiled;
pub mod tiles;
mod tokens;

pub use contrastive::{INITIAL_LOGIT_SCALE, MAX_LOGIT_SCALE, info_nce, logits, siglip, siglip_at};
pub use policy::{ClippedPolicyLoss, clipped_policy_loss, generalized_advantages, kl_estimate};
pub use preference::{bradley_terry, plackett_luce};
pub use soft_targets::{soft_target_bce, soft_target_cross_entropy};
pub use tiled::{DEFAULT_TILE, info_nce_tiled, siglip_tiled};
pub use tokens::{IGNORED_LABEL, token_cross_entropy, weighted_token_cross_entropy};
