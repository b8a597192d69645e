//! `mm convert`: a model in another format.

use crate::{out, output};
use anyhow::{Context, Result};
use clap::ValueEnum;
use mm_caption::{CaptionPipeline, CaptionerFolder};
use mm_clip::{CheckpointFormat, ModelConverter, StoredType};
use mm_core::checkpoint::write_folder;
use mm_vqa::{VqaFolder, VqaPipeline};
use std::path::PathBuf;
use tch::Device;
use tch::nn::VarStore;

/// Convert a model to another format, type or resolution, or average two models.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm convert --from openai/clip-vit-base-patch32 --to clip-b32 --format \
    open_clip\n  \
                  mm convert --from clip-b32 --to clip-b32-int8 --int8\n  \
                  mm convert --wise-ft zero-shot fine-tuned --alpha 0.5 --to wise")]
pub struct Args {
    /// The model: a folder or a hub name.
    #[arg(long, value_name = "DIR|NAME", required_unless_present = "wise_ft", conflicts_with = "wise_ft")]
    from: Option<String>,
    /// The folder to write; it must not exist.
    #[arg(long, value_name = "DIR")]
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
    /// Print one JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FormatArg {
    /// transformers.
    Hf,
    /// open_clip.
    #[value(name = "open_clip")]
    OpenClip,
    /// OpenAI's state dict.
    Openai,
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
    let form = match args.format {
        FormatArg::Hf => CheckpointFormat::Hf,
        FormatArg::OpenClip => CheckpointFormat::OpenClip,
        FormatArg::Openai => CheckpointFormat::Openai,
    };
    anyhow::ensure!(
        !args.int8 || form == CheckpointFormat::Hf,
        "--int8 is for --format hf: no other program reads it"
    );
    let dtype = match args.dtype {
        _ if args.int8 => StoredType::Int8,
        TypeArg::F32 => StoredType::F32,
        TypeArg::F16 => StoredType::F16,
        TypeArg::Bf16 => StoredType::Bf16,
    };
    anyhow::ensure!(
        !args.to.exists(),
        "{} exists already: remove it or name another folder",
        args.to.display()
    );
    out::try_folder(&args.to)?;
    match args.from.as_deref() {
        Some(from) if CaptionerFolder::is_captioner(from) => convert_captioner(from, args, dtype)?,
        Some(from) if VqaFolder::is_vqa(from) => convert_vqa(from, args, dtype)?,
        _ => convert_model(args, form, dtype)?,
    }
    if args.json {
        output::print_line(serde_json::json!({ "to": args.to }))
    } else {
        output::print_line(args.to.display())
    }
}

/// Converts a CLIP or a tower, or averages two.
fn convert_model(args: &Args, form: CheckpointFormat, dtype: StoredType) -> Result<()> {
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
    anyhow::ensure!(args.resolution.is_none(), "--resolution is for a CLIP or a tower: this is {model}");
    Ok(())
}
