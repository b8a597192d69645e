//! `[eval]`: when and how a task is evaluated.

use mm_core::config::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};

/// `[eval]`: when and how the evaluation sets are measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Steps between evaluations; 0: only at the end.
    pub every: u64,
    /// Samples that go through the model at once.
    pub batch_size: usize,
    /// Whether evaluations during training also write images to TensorBoard.
    pub images: bool,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { every: 0, batch_size: 64, images: true }
    }
}

impl EvalConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A number is out of its range; the error names its key and line in `file`.
    pub fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        file.check(self.batch_size > 0, "eval.batch_size", "must be at least 1")
    }
}
