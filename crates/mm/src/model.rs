//! The model arguments that commands share.

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use mm_caption::CaptionPipeline;
use mm_clip::{ClipPipeline, ImageEmbedder, OpenOptions, TextEmbedder};
use mm_core::{DeviceConfig, Precision};
use mm_diffusion::{DiffusionPipeline, PipelineOptions};
use mm_image::RgbImage;
use mm_text::LanguageModel;
use mm_vqa::VqaPipeline;
use mm_vqa::document::DocumentPipeline;
use mm_vqa::vlm::VlmPipeline;
use std::path::Path;
use tch::Device;

/// The model, and how it is opened.
#[derive(Args)]
pub struct ModelArgs {
    /// The model: a folder as transformers or open_clip save it or with OpenAI's weights, or a hub name.
    #[arg(long, value_name = "DIR|NAME")]
    model: String,
    /// Device: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Precision: f32 is the reference; bf16 and, on a CPU, int8 are faster and slightly less exact.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// Side of the images in pixels [default: the model's own]; the table of positions is resized.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..=4096))]
    resolution: Option<i64>,
}

/// [`Precision`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionArg {
    F32,
    Bf16,
    Int8,
}

impl ModelArgs {
    /// The argument.
    pub fn name(&self) -> String {
        self.model.clone()
    }

    /// Opens a CLIP.
    pub fn open(&self) -> Result<ClipPipeline> {
        self.open_clip(&self.model)
    }

    /// Opens another model, a CLIP, as these arguments say.
    pub fn open_clip(&self, model: &str) -> Result<ClipPipeline> {
        named(model, ClipPipeline::open(model, &self.options()))
    }

    /// Opens a captioner.
    pub fn open_captioner(&self) -> Result<CaptionPipeline> {
        self.refuse_resolution("captioners")?;
        named(&self.model, CaptionPipeline::open(&self.model, &self.options()))
    }

    /// Opens a model that answers questions.
    pub fn open_vqa(&self) -> Result<VqaPipeline> {
        self.refuse_resolution("models that answer questions")?;
        named(&self.model, VqaPipeline::open(&self.model, &self.options()))
    }

    /// Opens a vision-language model.
    pub fn open_vlm(&self) -> Result<VlmPipeline> {
        self.refuse_resolution("vision-language models")?;
        named(&self.model, VlmPipeline::open(&self.model, &self.options()))
    }

    /// Opens a text model.
    pub fn open_language_model(&self) -> Result<LanguageModel> {
        self.refuse_resolution("text models")?;
        named(&self.model, LanguageModel::open(&self.model, &self.options()))
    }

    /// Opens a model that reads documents.
    pub fn open_document(&self) -> Result<DocumentPipeline> {
        self.refuse_resolution("models that read documents")?;
        named(&self.model, DocumentPipeline::open(&self.model, &self.options()))
    }

    /// Opens a diffusion model as `options` say, on the device and in the precision of these arguments.
    pub fn open_diffusion(&self, options: PipelineOptions) -> Result<DiffusionPipeline> {
        ensure!(self.resolution.is_none(), "--resolution is not for diffusion models: use --size");
        let options = PipelineOptions { open: self.options(), ..options };
        named(&self.model, DiffusionPipeline::open(&self.model, &options))
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision.into()
    }

    fn refuse_resolution(&self, models: &str) -> Result<()> {
        ensure!(
            self.resolution.is_none(),
            "--resolution is not for {models}: their images have the size of the training; leave it out"
        );
        Ok(())
    }

    /// Opens the image side of a model.
    pub fn open_image(&self) -> Result<ImageEmbedder> {
        named(&self.model, ImageEmbedder::open(&self.model, &self.options()))
    }

    /// As [`ModelArgs::open_image`], on `device`.
    pub fn open_image_on(&self, device: Device) -> Result<ImageEmbedder> {
        let options = OpenOptions { device: DeviceConfig::from(device), ..self.options() };
        named(&self.model, ImageEmbedder::open(&self.model, &options))
    }

    /// The device, as it is named.
    pub fn device(&self) -> DeviceConfig {
        DeviceConfig(self.device.clone())
    }

    /// Opens the text side of a model.
    pub fn open_text(&self) -> Result<TextEmbedder> {
        named(&self.model, TextEmbedder::open(&self.model, &self.options()))
    }

    fn options(&self) -> OpenOptions {
        let device = self.device();
        OpenOptions { device, precision: self.precision.into(), resolution: self.resolution }
    }
}

fn named<T, E: std::error::Error + Send + Sync + 'static>(
    model: &str,
    opened: std::result::Result<T, E>,
) -> Result<T> {
    opened.with_context(|| format!("cannot open the model {model}"))
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

/// Reads an image, transparent parts on white.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let read = || -> Result<RgbImage> { Ok(mm_image::decode(&std::fs::read(path)?, [255; 3])?) };
    read().with_context(|| format!("cannot read the image {}", path.display()))
}
