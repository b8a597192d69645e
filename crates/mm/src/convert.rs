//! `mm convert`: a model in another format.

use crate::inspect_diffusion::pipeline_folder;
use crate::out::OutFile;
use crate::{out, output};
use anyhow::{Context, Result};
use clap::ValueEnum;
use mm_caption::{CaptionPipeline, CaptionerFolder};
use mm_clip::{CheckpointFormat, ModelConverter, StoredType};
use mm_core::checkpoint::write_folder;
use mm_diffusion::lora::{LoraFile, write_kohya};
use mm_diffusion::single_file::{SingleFile, single_file_of_folder};
use mm_vqa::{VqaFolder, VqaPipeline};
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Kind};

/// Convert a model to another format, type or resolution, or average two models.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm convert --from openai/clip-vit-base-patch32 --to clip-b32 --format \
    open_clip\n  \
                  mm convert --from clip-b32 --to clip-b32-int8 --int8\n  \
                  mm convert --wise-ft zero-shot fine-tuned --alpha 0.5 --to wise\n  \
                  mm convert --from v1-5-pruned-emaonly.safetensors --to sd15\n  \
                  mm convert --from sd15 --to sd15.safetensors --format single_file --dtype f16")]
pub struct Args {
    /// The model: a folder, a hub name, or a checkpoint of Stable Diffusion in one file.
    #[arg(
        long,
        value_name = "DIR|NAME|FILE",
        required_unless_present = "wise_ft",
        conflicts_with = "wise_ft"
    )]
    from: Option<String>,
    /// The folder to write, or with --format single_file the file in .safetensors; it must not exist.
    #[arg(long, value_name = "DIR|FILE")]
    to: PathBuf,
    /// The format to write.
    #[arg(long, value_enum, default_value = "hf")]
    format: FormatArg,
    /// The type of the weights.
    #[arg(long, value_enum, default_value = "f32", conflicts_with = "int8")]
    dtype: TypeArg,
    /// Store linear layers as int8 with one scale a row: a quarter of the size; only `mm` reads it.
    #[arg(long)]
    int8: bool,
    /// Side of the images in pixels [default: the model's own]; the table of positions is resized.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..=4096))]
    resolution: Option<i64>,
    /// Average a zero-shot model with its fine-tuned one, weight by weight (WiSE-FT).
    #[arg(long, num_args = 2, value_names = ["ZERO_SHOT", "FINE_TUNED"], requires = "alpha")]
    wise_ft: Option<Vec<String>>,
    /// The share of the fine-tuned model, 0 to 1.
    #[arg(long, value_parser = share, requires = "wise_ft")]
    alpha: Option<f64>,
    /// What a checkpoint in one file predicts, which SD 2's weights do not show [default of SD 1 and XL:
    /// epsilon].
    #[arg(long, value_enum)]
    prediction: Option<PredictionArg>,
    /// Print one JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FormatArg {
    /// transformers, and of Stable Diffusion diffusers.
    Hf,
    /// open_clip.
    #[value(name = "open_clip")]
    OpenClip,
    /// OpenAI's state dict.
    Openai,
    /// Stable Diffusion in one file, for programs that read CompVis's and Stability AI's checkpoints.
    #[value(name = "single_file")]
    SingleFile,
    /// A LoRA of diffusers in the spelling of kohya's programs, which AUTOMATIC1111's web UI reads.
    Kohya,
}

#[derive(Clone, Copy, ValueEnum)]
enum PredictionArg {
    /// The noise: SD 2's models of 512 pixels.
    Epsilon,
    /// Noise and image: SD 2's models of 768 pixels.
    #[value(name = "v_prediction")]
    VPrediction,
}

#[derive(Clone, Copy, ValueEnum)]
enum TypeArg {
    F32,
    F16,
    Bf16,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

pub fn run(args: &Args) -> Result<()> {
    anyhow::ensure!(
        !args.int8 || args.format == FormatArg::Hf,
        "--int8 is for --format hf: no other program reads it"
    );
    let dtype = match args.dtype {
        _ if args.int8 => StoredType::Int8,
        TypeArg::F32 => StoredType::F32,
        TypeArg::F16 => StoredType::F16,
        TypeArg::Bf16 => StoredType::Bf16,
    };
    anyhow::ensure!(!args.to.exists(), "{} exists already: remove it or name another", args.to.display());
    let single_file = args.from.as_deref().map(Path::new).filter(|from| from.is_file());
    anyhow::ensure!(
        args.prediction.is_none() || single_file.is_some(),
        "--prediction is for a checkpoint in one file: a folder has it in its scheduler"
    );
    if args.format == FormatArg::SingleFile {
        convert_to_single_file(args, dtype)?;
    } else if args.format == FormatArg::Kohya {
        convert_lora(args, dtype)?;
    } else {
        out::try_folder(&args.to)?;
        match (single_file, args.from.as_deref()) {
            (Some(from), _) => convert_single_file(from, args, dtype)?,
            (None, Some(from)) if CaptionerFolder::is_captioner(from) => {
                convert_captioner(from, args, dtype)?
            }
            (None, Some(from)) if VqaFolder::is_vqa(from) => convert_vqa(from, args, dtype)?,
            _ => convert_model(args, dtype)?,
        }
    }
    if args.json {
        output::print_line(serde_json::json!({ "to": args.to }))
    } else {
        output::print_line(args.to.display())
    }
}

/// Writes a checkpoint of Stable Diffusion in one file as a diffusers folder.
fn convert_single_file(from: &Path, args: &Args, dtype: StoredType) -> Result<()> {
    refuse_options_of_clips("a checkpoint in one file", args, dtype)?;
    let file = SingleFile::open(from).with_context(|| format!("cannot open {}", from.display()))?;
    let prediction = args.prediction.map(|prediction| match prediction {
        PredictionArg::Epsilon => "epsilon",
        PredictionArg::VPrediction => "v_prediction",
    });
    write_folder(&args.to, |partial| file.write_folder(partial, prediction, dtype))
        .with_context(|| format!("cannot write {}", args.to.display()))
}

/// Writes a diffusers folder of Stable Diffusion as one file.
fn convert_to_single_file(args: &Args, dtype: StoredType) -> Result<()> {
    let folder = args.from.as_deref().and_then(pipeline_folder).context(
        "--format single_file is for a folder of Stable Diffusion, with model_index.json: name it by --from",
    )?;
    refuse_resolution("a diffusion model", args)?;
    let out = OutFile::open(&args.to, &["safetensors"])?;
    single_file_of_folder(&folder, out.path(), kind(dtype))
        .with_context(|| format!("cannot write {}", args.to.display()))
}

/// Writes a LoRA in kohya's spelling.
fn convert_lora(args: &Args, dtype: StoredType) -> Result<()> {
    refuse_resolution("a LoRA", args)?;
    let from = args.from.as_deref().context("--format kohya is for a LoRA: name it by --from")?;
    let mut layers =
        LoraFile::read_layers(Path::new(from)).with_context(|| format!("cannot open the LoRA {from}"))?;
    for pair in layers.values_mut().flat_map(|pairs| pairs.values_mut()) {
        pair.down = pair.down.to_kind(kind(dtype));
        pair.up = pair.up.to_kind(kind(dtype));
    }
    let out = OutFile::open(&args.to, &["safetensors"])?;
    write_kohya(out.path(), &layers).with_context(|| format!("cannot write {}", args.to.display()))
}

/// The type of floating numbers; int8 is for folders of CLIPs.
fn kind(dtype: StoredType) -> Kind {
    match dtype {
        StoredType::F16 => Kind::Half,
        StoredType::Bf16 => Kind::BFloat16,
        StoredType::F32 | StoredType::Int8 => Kind::Float,
    }
}

/// Converts a CLIP or a tower, or averages two.
fn convert_model(args: &Args, dtype: StoredType) -> Result<()> {
    if let Some(folder) = args.from.as_deref().and_then(pipeline_folder) {
        anyhow::bail!(
            "{} is a pipeline of diffusers: it is written by --format single_file",
            folder.display()
        );
    }
    let form = match args.format {
        FormatArg::OpenClip => CheckpointFormat::OpenClip,
        FormatArg::Openai => CheckpointFormat::Openai,
        FormatArg::Hf | FormatArg::SingleFile | FormatArg::Kohya => CheckpointFormat::Hf,
    };
    let read = |model: &str| {
        ModelConverter::read(model, args.resolution).with_context(|| format!("cannot open the model {model}"))
    };
    let model = match (&args.from, args.wise_ft.as_deref()) {
        (None, Some([zero_shot, fine_tuned])) => {
            let mut model = read(zero_shot)?;
            model.interpolate(&read(fine_tuned)?, args.alpha.unwrap_or(0.5))?;
            model
        }
        (Some(from), _) => read(from)?,
        _ => unreachable!("clap requires --from or two models"),
    };
    model.write(&args.to, form, dtype).with_context(|| format!("cannot write {}", args.to.display()))
}

/// Writes the captioner `from` in transformers' format.
fn convert_captioner(from: &str, args: &Args, dtype: StoredType) -> Result<()> {
    refuse_options_of_clips("a captioner", args, dtype)?;
    let vs = VarStore::new(Device::Cpu);
    let folder = CaptionerFolder::open(from);
    let pipeline = folder.and_then(|folder| CaptionPipeline::load(&folder, &vs));
    let pipeline = pipeline.with_context(|| format!("cannot open the model {from}"))?;
    let variables: Vec<_> = vs.variables().into_iter().collect();
    write_folder(&args.to, |partial| pipeline.save(variables, partial, dtype))
        .with_context(|| format!("cannot write {}", args.to.display()))
}

/// Writes `from`, a model that answers questions, in the format of its family.
fn convert_vqa(from: &str, args: &Args, dtype: StoredType) -> Result<()> {
    refuse_options_of_clips("a model that answers questions", args, dtype)?;
    let vs = VarStore::new(Device::Cpu);
    let folder = VqaFolder::open(from);
    let pipeline = folder.and_then(|folder| VqaPipeline::load(&folder, &vs));
    let pipeline = pipeline.with_context(|| format!("cannot open the model {from}"))?;
    let variables: Vec<_> = vs.variables().into_iter().collect();
    write_folder(&args.to, |partial| pipeline.save(variables, partial, dtype))
        .with_context(|| format!("cannot write {}", args.to.display()))
}

fn refuse_options_of_clips(model: &str, args: &Args, dtype: StoredType) -> Result<()> {
    anyhow::ensure!(args.format == FormatArg::Hf, "{model} has --format hf alone");
    anyhow::ensure!(
        dtype != StoredType::Int8,
        "--int8 is for a CLIP or a tower: `--dtype bf16` halves this model"
    );
    refuse_resolution(model, args)
}

fn refuse_resolution(model: &str, args: &Args) -> Result<()> {
    anyhow::ensure!(args.resolution.is_none(), "--resolution is for a CLIP or a tower: this is {model}");
    Ok(())
}
