//! An independent judge of generated scenes: a small network, trained apart on drawn scenes, that finds the
//! objects of a picture, and the comparison of what it finds with what a prompt requests.
//!
//! Its own accuracy on real pictures is measured by its training run (`run.task = "scene-reader"`) and stands
//! beside every number that it gives.

mod reader;
mod task;
mod verdict;

pub use reader::{SceneReader, SceneReaderConfig, SeenObject};
pub use task::{SceneReaderRunConfig, SceneReaderTask};
pub use verdict::{SceneVerdict, judge};
