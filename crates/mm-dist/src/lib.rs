//! Distributed training: N processes compute what one process computes.
//!
//! The backend is PyTorch's own, c10d: Gloo between CPUs, NCCL between GPUs. Every launcher of PyTorch jobs
//! starts a run.
//!
//! - [`Launch`]: rank, world size and rendezvous from the environment that torchrun, srun, mpirun, Kubernetes
//!   or `cargo xtask train --nproc` sets.
//! - [`ProcessGroup`]: the processes of a run and their collectives. A single process is a group too, without
//!   a socket.
//! - [`GradientAverage`]: data parallelism (Li et al. 2020, "PyTorch Distributed"): gradients are averaged in
//!   buckets while the backward pass runs.
//! - [`Contrastive`]: losses over the samples of all processes: gathered, local, or tile by tile in a ring.
//! - [`is_lost`]: whether an error is only the consequence of another process's failure.
//!
//! # Gradients
//! The loss of a run is the mean of its processes' losses, and gradients are averaged over the processes. The
//! backward pass of an all-gather is a reduce-scatter with *sum*: a gathered row gets the sum of its
//! gradients in all processes. With that no factor of the world size appears anywhere; `tests/losses.rs`
//! compares N processes with one for each loss.
//!
//! ```
//! use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
//! use tch::{Device, Kind, Tensor};
//!
//! let group = ProcessGroup::alone();
//! let x = Tensor::eye(4, (Kind::Float, Device::Cpu));
//! let loss = Contrastive::new(&group, ContrastiveConfig::default()).info_nce(&x, &x, &Tensor::from(3f32))?;
//! assert!(loss.double_value(&[]) < 1e-6);
//! assert_eq!((group.rank(), group.world()), (0, 1));
//! # Ok::<(), mm_dist::Error>(())
//! ```
//!
//! To add a loss over processes: a method in `contrastive.rs` that keeps this rule, and a line in
//! `tests/losses.rs`.

mod contrastive;
mod error;
mod gradients;
mod launch;
mod process_group;
mod rendezvous;
mod slurm;

pub use contrastive::{Contrastive, ContrastiveConfig, Logits};
pub use error::{Error, LostProcess, Result, is_lost};
pub use gradients::{GradientAverage, Overlap};
pub use launch::Launch;
pub use mm_sys::ReduceOp;
pub use process_group::{ProcessGroup, broadcast_together};
