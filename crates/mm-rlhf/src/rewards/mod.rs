//! The rewards, a file each.

mod aesthetic;
mod clip;
mod head;
mod image_reward;
mod jpeg;
mod scene;

pub use aesthetic::AestheticReward;
pub use clip::ClipReward;
pub use head::ScoreHead;
pub use image_reward::ImageReward;
pub use jpeg::JpegSize;
pub use scene::SceneReward;
