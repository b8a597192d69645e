//! The limits of requests and connections.

use mm_core::config::{ConfigError, ConfigFile};
use serde::Deserialize;

/// The limits of requests and connections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// MiB of a request's body; more get status 413.
    pub body_mb: usize,
    /// MiB of bodies and decoded images that all requests hold together; beyond it requests get status 429.
    pub memory_mb: usize,
    /// Seconds from a request's head to its answer; longer gets status 504. A stream ends with an error.
    pub request_seconds: u64,
    /// Seconds in which a connection must make progress: a whole head, the next bytes of a body, the next
    /// bytes of an answer that is sent. An idle connection is closed after as long.
    pub read_seconds: u64,
    /// Open connections; more wait to be accepted.
    pub connections: usize,
    /// Images in a request.
    pub images: usize,
    /// Millions of pixels of an image.
    pub image_megapixels: u64,
    /// Texts in a request of embeddings.
    pub texts: usize,
    /// Characters of a text.
    pub text_chars: usize,
    /// Labels times templates of a classification.
    pub prompts: usize,
    /// Beams of a caption.
    pub beams: usize,
    /// Images that a request generates.
    pub generated: usize,
    /// The longest side in pixels of a generated image.
    pub side: i64,
    /// Steps of a generated image.
    pub steps: usize,
    /// Results of a search, those that are skipped included.
    pub results: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_mb: 32,
            memory_mb: 1024,
            request_seconds: 120,
            read_seconds: 30,
            connections: 4096,
            images: 64,
            image_megapixels: 64,
            texts: 2048,
            text_chars: 16_384,
            prompts: 8192,
            beams: 16,
            generated: 8,
            side: 1024,
            steps: 250,
            results: 1000,
        }
    }
}

/// The most of any count in the file: beyond it lies a slip of the keyboard.
const MAX_COUNT: usize = 1 << 20;

impl Limits {
    /// Checks each limit, and that they fit each other.
    ///
    /// # Errors
    /// Names the first that is out of its range, with its line.
    pub(crate) fn validate(&self, toml: &ConfigFile) -> Result<(), ConfigError> {
        for (name, value) in [
            ("body_mb", self.body_mb),
            ("memory_mb", self.memory_mb),
            ("request_seconds", self.request_seconds as usize),
            ("read_seconds", self.read_seconds as usize),
            ("connections", self.connections),
            ("images", self.images),
            ("image_megapixels", self.image_megapixels as usize),
            ("texts", self.texts),
            ("text_chars", self.text_chars),
            ("prompts", self.prompts),
            ("beams", self.beams),
            ("generated", self.generated),
            ("side", usize::try_from(self.side).unwrap_or(0)),
            ("steps", self.steps),
            ("results", self.results),
        ] {
            check_count(toml, &format!("limits.{name}"), value)?;
        }
        let largest = self.body_mb as u64 + self.image_megapixels * 3;
        let problem = format!("a request with a body and one image needs {largest}: set at least this");
        toml.check(self.memory_mb as u64 >= largest, "limits.memory_mb", problem)
    }
}

/// Checks a count of the file.
///
/// # Errors
/// It is 0 or far too large: names `key` with its line.
pub(crate) fn check_count(toml: &ConfigFile, key: &str, value: usize) -> Result<(), ConfigError> {
    let is_valid = (1..=MAX_COUNT).contains(&value);
    toml.check(is_valid, key, format!("{value}: it must be from 1 to {MAX_COUNT}"))
}
