//! The families of models, a file each: the jobs of a model, and its thread, which calls the model's crate.

pub mod caption;
pub mod clip;
pub mod diffusion;
pub mod reward;
pub mod vqa;

use crate::api_error::{ApiError, ApiResult};
use crate::memory_budget::Reserved;
use crate::upload::Decoded;
use mm_image::RgbImage;

/// The pixels of decoded images and their shares of the memory, which live as long as the pixels do.
fn split(images: Vec<Decoded>) -> (Vec<RgbImage>, Vec<Reserved>) {
    images.into_iter().map(|decoded| (decoded.image, decoded.memory)).unzip()
}

/// Checks that a model makes finite numbers.
fn check_finite(numbers: &[f32]) -> ApiResult<()> {
    if numbers.iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    Err(ApiError::internal(&"the model makes NaN or infinite numbers: its weights are broken"))
}
