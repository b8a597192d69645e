//! Rewards equal PyTorch's in scores and gradients (`data/goldens/rlhf`, written by `xtask/goldens/rlhf.py`).

mod captions;
mod goldens;
mod refusals;
mod scenes;

use mm_core::DeviceConfig;
use mm_image::RgbImage;
use mm_rlhf::{AestheticReward, ClipReward, ImageReward, Reward};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/rlhf").join(name)
}

fn folder(name: &str) -> String {
    golden(name).to_str().unwrap().to_owned()
}

fn cpu() -> DeviceConfig {
    DeviceConfig("cpu".to_owned())
}

/// The rewards of the goldens, by their names there.
fn rewards() -> Vec<(&'static str, Box<dyn Reward>)> {
    let aesthetic = |head: &str| {
        AestheticReward::open(&folder("clip"), &golden(&format!("{head}.safetensors")), &cpu()).unwrap()
    };
    vec![
        ("clip", Box::new(ClipReward::open(&folder("clip"), &cpu()).unwrap())),
        ("pick_score", Box::new(ClipReward::open_scaled(&folder("clip"), &cpu()).unwrap())),
        ("laion", Box::new(aesthetic("laion"))),
        ("relu", Box::new(aesthetic("relu"))),
        ("image_reward", Box::new(ImageReward::open(&folder("image-reward"), &cpu()).unwrap())),
    ]
}

fn prompts() -> Vec<String> {
    serde_json::from_slice(&std::fs::read(golden("prompts.json")).unwrap()).unwrap()
}

/// The images in `levels` `[N, H, W, 3]`.
fn images(levels: &Tensor) -> Vec<RgbImage> {
    let (count, height, width, _) = levels.size4().unwrap();
    let image = |index| {
        let bytes = Vec::<u8>::try_from(levels.get(index).contiguous().view([-1])).unwrap();
        RgbImage::from_raw(width as u32, height as u32, bytes).unwrap()
    };
    (0..count).map(image).collect()
}

/// The same as `[N, 3, H, W]` from 0 to 1.
fn pixels(levels: &Tensor) -> Tensor {
    levels.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous() / 255.0
}
