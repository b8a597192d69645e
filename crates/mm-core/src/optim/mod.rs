//! Optimisers and learning-rate schedules.

mod adamw;
mod schedule;

pub use adamw::{AdamW, AdamWConfig};
pub use schedule::{Schedule, ScheduleKind};
