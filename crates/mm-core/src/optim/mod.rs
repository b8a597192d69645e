//! Optimizers and learning-rate schedules.

mod adamw;
mod lbfgs;
mod muon;
mod optimizer;
mod schedule;

pub use adamw::AdamWConfig;
pub use lbfgs::{LbfgsConfig, Minimum, lbfgs};
pub use muon::MuonConfig;
pub use optimizer::{Moment, Optimizer, ParamOptions, Partition, UpdateRule};
pub use schedule::{Schedule, ScheduleKind};
