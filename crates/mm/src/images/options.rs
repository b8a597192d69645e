//! The options of `mm generate` and `mm edit`.

use super::prompts::PromptArgs;
use crate::model::ModelArgs;
use anyhow::{Context, Result};
use mm_diffusion::schedulers::SchedulerKind;
use mm_diffusion::{
    DiffusionPipeline, EmbeddingRecord, GenerateOptions, ImageRecord, LoraRecord, PipelineOptions,
};
use std::path::{Path, PathBuf};

/// What images are made with.
#[derive(clap::Args)]
pub struct ImageArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// The image to write, in .png; of several images F-0000.png, F-0001.png, ... A name without extension is
    /// a folder for them.
    #[arg(long, value_name = "F.png|DIR")]
    pub out: PathBuf,
    /// The folder for images whose own place cannot be written.
    #[arg(long, value_name = "DIR")]
    pub retry_dir: Option<PathBuf>,
    /// Steps of the scheduler [default: as diffusers for the kind of pipeline].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: Option<u32>,
    /// How much the prompt counts: guidance is on above 1 [default: as diffusers for the kind of pipeline].
    #[arg(long, value_name = "SCALE")]
    guidance: Option<f64>,
    /// Bring the guided prediction to the deviation of the unguided one by this share, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true)]
    guidance_rescale: f64,
    /// Guide only from A to B, shares of the steps, as 0.2,0.8.
    #[arg(long, value_name = "A,B", value_parser = interval)]
    guidance_interval: Option<[f64; 2]>,
    /// Compute the two predictions of guidance one after the other: half the memory.
    #[arg(long)]
    two_passes: bool,
    /// The size in pixels [default: the model's own; in an edit the image's].
    #[arg(long, value_name = "WxH", value_parser = size, conflicts_with_all = ["width", "height"])]
    size: Option<(i64, i64)>,
    /// The width in pixels.
    #[arg(long, value_name = "PIXELS")]
    width: Option<i64>,
    /// The height in pixels.
    #[arg(long, value_name = "PIXELS")]
    height: Option<i64>,
    /// Another scheduler than the model's: ddpm, ddim, pndm, lms, euler, euler_a, heun, dpmpp_2m, unipc, lcm
    /// or flow_match_euler.
    #[arg(long, value_name = "WORD")]
    scheduler: Option<SchedulerKind>,
    /// DDIM: the share of DDPM's noise, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true)]
    eta: f64,
    /// Leave out this number of the text encoder's last layers.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    clip_skip: u8,
    /// A LoRA file or folder, with a weight [default: 1]; may be repeated.
    #[arg(long = "lora", value_name = "FILE[:WEIGHT]", value_parser = lora)]
    loras: Vec<(PathBuf, f64)>,
    /// A textual inversion file, with the token that it is in prompts [default: the file's own]; may be
    /// repeated.
    #[arg(long = "embedding", value_name = "FILE[:TOKEN]", value_parser = embedding)]
    embeddings: Vec<(PathBuf, Option<String>)>,
    /// Leave out the model's safety checker, which replaces images that it finds unsafe by black ones.
    #[arg(long)]
    pub no_safety_checker: bool,
    /// Decode in tiles: less memory for large images, with slight differences at the seams.
    #[arg(long)]
    tiled: bool,
    /// Images that are computed together [default: as many as have 512 x 512 pixels, up to 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: Option<u32>,
    /// Write a small preview beside the images, F.preview.png, every N calls of the model.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub preview_every: Option<u32>,
    /// Draw how the image attends to each word of its prompt, a heat map a word, in .png; of one image.
    #[arg(long, value_name = "F.png")]
    pub attention: Option<PathBuf>,
    /// Print one JSON object an image instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl ImageArgs {
    /// Opens the model with its LoRAs and textual inversions.
    pub fn open(&self) -> Result<DiffusionPipeline> {
        self.model.open_diffusion(PipelineOptions {
            scheduler: self.scheduler,
            loras: self.loras.clone(),
            embeddings: self.embeddings.clone(),
            skip_safety_checker: self.no_safety_checker,
            ..PipelineOptions::default()
        })
    }

    /// The options of the pipeline.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions {
            height: self.size.map(|(_, height)| height).or(self.height),
            width: self.size.map(|(width, _)| width).or(self.width),
            steps: self.steps.map(|steps| steps as usize),
            guidance_scale: self.guidance,
            guidance_rescale: self.guidance_rescale,
            guidance_interval: self.guidance_interval.unwrap_or([0.0, 1.0]),
            guidance_in_two_passes: self.two_passes,
            eta: self.eta,
            clip_skip: self.clip_skip.into(),
            tiled_decoding: self.tiled,
            ..GenerateOptions::default()
        }
    }

    /// The size of batches of images of `width` x `height`.
    pub fn batch(&self, width: i64, height: i64) -> usize {
        /// Small images leave a processor idle; large ones fill the memory.
        const PIXELS: i64 = 512 * 512;
        let fitting = (PIXELS / (width * height).max(1)).clamp(1, 8) as usize;
        self.batch.map_or(fitting, |batch| batch as usize)
    }

    /// What is stored with an image, but for the image's own prompt and seed.
    pub fn record(&self, pipeline: &DiffusionPipeline, settings: mm_diffusion::Settings) -> ImageRecord {
        let embedding = |(file, token): &(PathBuf, String)| EmbeddingRecord {
            file: file_name(file),
            token: token.clone(),
        };
        let lora = |(file, weight): &(PathBuf, f64)| LoraRecord { file: file_name(file), weight: *weight };
        ImageRecord {
            program: concat!("mm ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: model_name(&self.model.name()),
            prompt: String::new(),
            negative_prompt: None,
            seed: 0,
            loras: self.loras.iter().map(lora).collect(),
            embeddings: pipeline.embeddings().iter().map(embedding).collect(),
            precision: self.model.precision(),
            edit: None,
            flagged: None,
            settings,
        }
    }
}

/// The name of a file or folder, without the folders above it: images are given away, and paths tell of their
/// maker.
pub fn file_name(path: &Path) -> String {
    let resolved = path.canonicalize();
    let name = resolved.as_deref().unwrap_or(path).file_name().or(path.file_name());
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// The name of a model: a folder's own, or the hub's.
fn model_name(model: &str) -> String {
    let folder = Path::new(model);
    if folder.exists() { file_name(folder) } else { model.to_owned() }
}

fn size(text: &str) -> Result<(i64, i64)> {
    let (width, height) = text.split_once(['x', 'X']).context("write it as 512x768")?;
    let side = |side: &str| side.trim().parse().with_context(|| format!("`{side}` is not a whole number"));
    Ok((side(width)?, side(height)?))
}

fn interval(text: &str) -> Result<[f64; 2]> {
    let (first, last) = text.split_once(',').context("write it as 0.2,0.8")?;
    let share = |share: &str| share.trim().parse().with_context(|| format!("`{share}` is not a number"));
    Ok([share(first)?, share(last)?])
}

/// A file's name may hold colons: only a number behind the last one is a weight.
fn lora(text: &str) -> Result<(PathBuf, f64)> {
    let weighted = text.rsplit_once(':').and_then(|(file, weight)| Some((file, weight.parse::<f64>().ok()?)));
    match weighted {
        Some((file, weight)) if !Path::new(text).exists() => {
            anyhow::ensure!(weight.is_finite(), "the weight {weight} is not finite");
            Ok((file.into(), weight))
        }
        _ => Ok((text.into(), 1.0)),
    }
}

/// A token may stand behind the last colon of a name that is no file's.
fn embedding(text: &str) -> Result<(PathBuf, Option<String>)> {
    match text.rsplit_once(':') {
        Some((file, token)) if !Path::new(text).exists() => {
            anyhow::ensure!(!token.is_empty(), "no token follows the colon");
            Ok((file.into(), Some(token.to_owned())))
        }
        _ => Ok((text.into(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_may_name_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a:b.safetensors");
        std::fs::write(&file, "").unwrap();
        let name = file.to_str().unwrap();
        assert_eq!(embedding(name).unwrap(), (file.clone(), None));
        assert_eq!(embedding(&format!("{name}:<cat>")).unwrap(), (file.clone(), Some("<cat>".to_owned())));
        assert!(embedding("a.safetensors:").is_err());
    }

    #[test]
    fn sizes_intervals_and_loras_are_parsed() {
        assert_eq!(size("512x768").unwrap(), (512, 768));
        assert!(size("512").unwrap_err().to_string().contains("512x768"));
        assert!(size("512xbig").unwrap_err().to_string().contains("`big`"));
        assert_eq!(interval("0.2, 0.8").unwrap(), [0.2, 0.8]);
        assert!(interval("0.2").is_err() && interval("0.2,x").is_err());
        assert_eq!(lora("a.safetensors:0.5").unwrap(), ("a.safetensors".into(), 0.5));
        assert_eq!(lora("a:b.safetensors").unwrap(), ("a:b.safetensors".into(), 1.0));
        assert!(lora("a.safetensors:nan").is_err());
    }

    #[test]
    fn a_name_has_no_folders() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        assert_eq!(model_name(&format!("{}/", model.display())), "model");
        assert_eq!(model_name("owner/model"), "owner/model");
        assert_eq!(file_name(Path::new("no/such/file.png")), "file.png");
    }
}
