//! The errors of decoding and of augmentation settings.

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Its message is one line: what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are not a complete image of a supported format.
    #[error("cannot decode the image: {reason}")]
    Decode {
        /// What the decoder found.
        reason: String,
    },
    /// An augmentation setting that is out of its range.
    #[error("{0}")]
    Setting(String),
}
