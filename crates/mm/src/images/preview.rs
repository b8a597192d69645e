//! Previews of images that are not done yet.

use super::contact_sheet::{self, Cell};
use super::files;
use anyhow::{Context, Result, ensure};
use mm_diffusion::{DiffusionPipeline, ImageNoise, StepProgress};
use mm_image::resize::{Filter, exact};
use mm_image::{RgbImage, write_png_with_text};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// The longest side of a preview in pixels.
const SIDE: f64 = 256.0;

/// A file that shows what the model expects of the images of a batch. Latents are not decoded, which may take
/// longer than a step: each becomes a color by a linear map.
pub struct Preview<'a> {
    pipeline: &'a DiffusionPipeline,
    file: PathBuf,
    every: usize,
    colors: Option<LatentColors>,
}

impl<'a> Preview<'a> {
    pub fn new(pipeline: &'a DiffusionPipeline, file: PathBuf, every: usize) -> Self {
        Self { pipeline, file, every, colors: None }
    }

    /// Writes the file where it is due. A failure is reported, and the last of its kind: the images matter
    /// more.
    pub fn step(&mut self, progress: &StepProgress) {
        if !progress.call.is_multiple_of(self.every) || progress.call == progress.calls {
            return;
        }
        if let Err(error) = self.write(&(progress.original)()) {
            tracing::warn!("no more previews: {error:#}");
            self.every = usize::MAX;
        }
    }

    /// Writes the preview of the estimate `[N, C, h, w]`.
    fn write(&mut self, estimate: &Tensor) -> Result<()> {
        let colors = match self.colors.take() {
            Some(colors) => colors,
            None => LatentColors::fit(self.pipeline, estimate)?,
        };
        let estimate = estimate.to_device(Device::Cpu).to_kind(Kind::Float);
        let cells = pictures(&colors.apply(&estimate)?)?.iter().map(cell).collect::<Vec<_>>();
        self.colors = Some(colors);
        let columns = (cells.len() as f64).sqrt().ceil() as usize;
        let png = write_png_with_text(&contact_sheet::draw(&cells, columns), &[])?;
        files::write(&self.file, &png)
    }
}

fn cell(picture: &RgbImage) -> Cell {
    let (width, height) = picture.dimensions();
    let scale = SIDE / f64::from(width.max(height).max(1));
    let scaled = |side: u32| (f64::from(side) * scale).round().max(1.0) as u32;
    Cell { picture: exact(picture, scaled(width), scaled(height), Filter::Bilinear), lines: Vec::new() }
}

/// Pixels `[N, 3, h, w]`, about -1 to 1, as pictures.
fn pictures(pixels: &Tensor) -> Result<Vec<RgbImage>> {
    let (count, _, height, width) = pixels.size4()?;
    let levels = ((pixels.nan_to_num(0.0, 1.0, -1.0) / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round();
    let levels = levels.to_kind(Kind::Uint8).permute([0, 2, 3, 1]).contiguous();
    let picture = |index: i64| {
        let bytes = Vec::<u8>::try_from(levels.get(index).view([-1]))?;
        RgbImage::from_raw(width as u32, height as u32, bytes).context("pixels do not fill a picture")
    };
    (0..count).map(picture).collect()
}

/// The map from a sample's channels to a color: of latents the linear map that best explains what the
/// autoencoder makes of random ones.
enum LatentColors {
    /// The sample has the colors itself.
    Pixels,
    /// `[C + 1, 3]`, the last row a constant.
    Linear(Tensor),
}

impl LatentColors {
    /// Fits the map for samples like `like` `[N, C, h, w]`.
    fn fit(pipeline: &DiffusionPipeline, like: &Tensor) -> Result<Self> {
        // Areas of 2 x 2 equal latents: a decoder makes noise of latents that vary more than those of images.
        const SMALL: i64 = 16;
        const LARGE: i64 = 2 * SMALL;
        let noise = ImageNoise::new(&[0]).draw(&[like.size()[1], SMALL, SMALL])?;
        let latents = noise.upsample_nearest2d([LARGE, LARGE], None, None);
        let decoded = pipeline.decode(&latents.to_device(like.device()), false);
        let decoded = decoded.to_device(Device::Cpu).to_kind(Kind::Double);
        if decoded.size() == latents.size() {
            return Ok(Self::Pixels);
        }
        ensure!(decoded.size()[1] == 3, "the autoencoder decodes to {:?}", decoded.size());
        let colors = decoded.adaptive_avg_pool2d([LARGE, LARGE]).permute([0, 2, 3, 1]).reshape([-1, 3]);
        let inputs = with_constant(&latents.to_kind(Kind::Double));
        let gram = inputs.tr().matmul(&inputs);
        let map = Tensor::f_linalg_solve(&gram, &inputs.tr().matmul(&colors), true)?;
        Ok(Self::Linear(map.to_kind(Kind::Float)))
    }

    /// The colors `[N, 3, h, w]` of `sample` `[N, C, h, w]`.
    fn apply(&self, sample: &Tensor) -> Result<Tensor> {
        let Self::Linear(map) = self else { return Ok(sample.shallow_clone()) };
        let (count, _, height, width) = sample.size4()?;
        let colors = with_constant(sample).f_matmul(map)?;
        Ok(colors.view([count, height, width, 3]).permute([0, 3, 1, 2]))
    }
}

/// The rows `[N h w, C + 1]` of `[N, C, h, w]`, each with a one at its end.
fn with_constant(sample: &Tensor) -> Tensor {
    let channels = sample.size()[1];
    let rows = sample.permute([0, 2, 3, 1]).reshape([-1, channels]);
    let ones = Tensor::ones([rows.size()[0], 1], (rows.kind(), rows.device()));
    Tensor::cat(&[rows, ones], 1)
}
