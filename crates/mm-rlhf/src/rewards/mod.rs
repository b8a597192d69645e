//! The rewards, a file each.

mod aesthetic;
mod brightness;
mod clip;
mod factuality;
mod head;
mod image_reward;
mod jpeg;
mod scene;
mod scene_counts;

pub use aesthetic::AestheticReward;
pub use brightness::Brightness;
pub use clip::ClipReward;
pub use factuality::CaptionFactuality;
pub(crate) use head::HeadSizes;
pub use head::ScoreHead;
pub use image_reward::ImageReward;
pub use jpeg::JpegSize;
pub use scene::SceneReward;
pub use scene_counts::SceneCounts;
