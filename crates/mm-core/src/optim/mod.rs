//! Optimizers and learning-rate schedules.

mod adamw;
mod lbfgs;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, Moment, ParamOptions, Partition};
pub use lbfgs::{LbfgsConfig, Minimum, lbfgs};
pub use schedule::{Schedule, ScheduleKind};
