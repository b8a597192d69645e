use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use mm_clip::Bundle;
use mm_core::{DeviceConfig, Precision};
use mm_data::image::RgbImage;
use std::path::{Path, PathBuf};

/// Which model to use, and how.
#[derive(Args)]
pub struct ModelArgs {
    /// Folder of the model (config.json, model.safetensors, tokenizer, preprocessor_config.json).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// What to compute in: f32 is the reference, bf16 is faster and a little less exact.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    F32,
    Bf16,
}

impl ModelArgs {
    /// Opens the model.
    pub fn open(&self) -> Result<Bundle> {
        let precision = match self.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        };
        Bundle::open(&self.model, &DeviceConfig(self.device.clone()), precision)
            .with_context(|| format!("cannot open the model {}", self.model.display()))
    }
}

/// Reads an image, transparent parts on white.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let read = || -> Result<RgbImage> { Ok(mm_data::decode(&std::fs::read(path)?, [255; 3])?) };
    read().with_context(|| format!("cannot read the image {}", path.display()))
}
