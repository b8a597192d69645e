//! What `mm generate` and `mm edit` share: options, prompts, the run over batches, and the files.

pub mod contact_sheet;
mod files;
mod options;
mod preview;
mod prompts;
mod run;
mod settings;

pub use options::{ImageArgs, file_name};
pub use run::{Source, run};
pub use settings::scheduler_in_short;
