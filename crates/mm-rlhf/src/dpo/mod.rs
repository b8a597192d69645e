//! `run.task = "dpo"`: Diffusion-DPO, from pairs of images of which one is preferred.
//!
//! Both images of a pair get the same noise at the same level. The loss lowers the error of the winner and
//! raises that of the loser, each beside the initial model's error (Wallace et al. 2023, equation 14). For a
//! flow the errors are those of its velocity.

mod config;
mod item;
mod task;

pub use config::{BetaForm, DpoConfig, DpoRunConfig};
pub use item::{DpoBatch, DpoItem};
pub use task::DpoTask;
