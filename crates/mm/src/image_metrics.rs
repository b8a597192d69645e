//! `mm eval images`: metrics of generated images.

use crate::model::ModelArgs;
use crate::progress::Bars;
use crate::reading::ReadingArgs;
use crate::{output, table};
use anyhow::{Context, Result, bail, ensure};
use mm_clip::{ClipPipeline, ImageEmbedder, ModelFolder};
use mm_core::Precision;
use mm_data::{Dataset, ImageList};
use mm_diffusion::metrics::{
    ImageFeatures, KidOptions, PromptScores, SetMetric, SetReport, read_prompts, stored_prompt,
};
use mm_dist::ProcessGroup;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Measure generated images: FID, KID, precision and recall and CMMD against reference images, and CLIPScore
/// with their prompts, on the features of the tower that --model names.
#[derive(clap::Args)]
#[command(
    after_help = "Values of different towers are not comparable, and no value is comparable with one of \
                  Inception. Prompts are those that the PNGs of `mm generate` and of other programs hold, or \
                  of --prompts.\n\nExample: mm eval images --generated images --reference photos --model \
                  openai/clip-vit-base-patch32"
)]
pub struct Args {
    /// Folder of the generated images.
    #[arg(long, value_name = "DIR")]
    generated: PathBuf,
    /// Folder of the reference images; without it only CLIPScore is measured.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// The metrics [default: all that the other arguments allow].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,...")]
    metrics: Vec<MetricArg>,
    /// Prompts in .jsonl: {"image": FILE, "prompt": TEXT} a line, as `mm generate --json` prints them.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Measure CLIPScore with this CLIP, a folder or a hub name, instead of --model.
    #[arg(long, value_name = "DIR|NAME")]
    clip: Option<String>,
    /// KID: subsets that are drawn.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    kid_subsets: u32,
    /// KID: images of a subset.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    kid_subset_size: u32,
    /// KID: seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum MetricArg {
    Fid,
    Kid,
    PrecisionRecall,
    Cmmd,
    ClipScore,
}

impl MetricArg {
    /// The metric of two sets; CLIPScore is none.
    fn of_sets(self) -> Option<SetMetric> {
        match self {
            Self::Fid => Some(SetMetric::Fid),
            Self::Kid => Some(SetMetric::Kid),
            Self::PrecisionRecall => Some(SetMetric::PrecisionRecall),
            Self::Cmmd => Some(SetMetric::Cmmd),
            Self::ClipScore => None,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    generated: SetSize,
    reference: Option<SetSize>,
    /// Images with a prompt, of those that CLIPScore is measured on.
    prompts: Option<usize>,
    /// D of the tower.
    features: usize,
    /// Width and height of what the tower sees.
    pixels: (u32, u32),
    #[serde(flatten)]
    metrics: SetReport,
}

/// The images of a folder.
#[derive(Serialize)]
struct SetSize {
    folder: PathBuf,
    images: usize,
    unreadable: usize,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let generated = Folder::open(&args.generated)?;
    let reference = args.reference.as_deref().map(Folder::open).transpose()?;
    let prompts = args.known_prompts(&generated.images)?;
    let (set_metrics, has_scores) = args.plan(!prompts.is_empty())?;
    let report = args.measure(&generated, reference.as_ref(), &prompts, &set_metrics, has_scores)?;
    report.metrics.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if args.json { output::print_line(serde_json::to_string(&report)?) } else { print(&report) }
}

impl Args {
    /// The metrics of the two sets, and whether CLIPScore is measured.
    fn plan(&self, has_prompts: bool) -> Result<(Vec<SetMetric>, bool)> {
        let is_all = self.metrics.is_empty();
        let all = <MetricArg as clap::ValueEnum>::value_variants();
        let asked = if is_all { all } else { &self.metrics };
        let mut of_sets: Vec<SetMetric> = asked.iter().filter_map(|metric| metric.of_sets()).collect();
        if self.reference.is_none() {
            ensure!(is_all || of_sets.is_empty(), "name the folder of the reference images with --reference");
            of_sets.clear();
        }
        let mut has_scores = asked.contains(&MetricArg::ClipScore);
        ensure!(
            is_all || !has_scores || has_prompts,
            "no image of {} holds its prompt: name a file of prompts with --prompts for clip_score",
            self.generated.display()
        );
        if is_all {
            has_scores = has_prompts && is_clip(&self.scorer());
        }
        ensure!(
            has_scores || !of_sets.is_empty(),
            "there is nothing to measure: name --reference, or for clip_score --prompts and a CLIP"
        );
        Ok((of_sets, has_scores))
    }

    /// The name of the CLIP of CLIPScore.
    fn scorer(&self) -> String {
        self.clip.clone().unwrap_or_else(|| self.model.name())
    }

    /// The prompts of `images`, as far as they are known, by the images' real paths.
    fn known_prompts(&self, images: &[PathBuf]) -> Result<HashMap<PathBuf, String>> {
        let Some(file) = &self.prompts else {
            let prompt = |image: &PathBuf| Some((real(image)?, stored_prompt(&std::fs::read(image).ok()?)?));
            return Ok(images.iter().filter_map(prompt).collect());
        };
        let mut prompts = HashMap::new();
        let mut unknown = Vec::new();
        for (image, prompt) in read_prompts(file)? {
            let Some(path) = real(&self.generated.join(&image)).or_else(|| real(Path::new(&image))) else {
                unknown.push(image);
                continue;
            };
            if let Some(other) = prompts.insert(path, prompt.clone()).filter(|other| *other != prompt) {
                bail!("{} has two prompts for {image}: {other:?} and {prompt:?}", file.display());
            }
        }
        if let Some(first) = unknown.first() {
            let (count, file) = (unknown.len(), file.display());
            tracing::warn!("{count} of the images in {file} are not in the folder, as {first}");
        }
        Ok(prompts)
    }

    fn measure(
        &self,
        folder: &Folder,
        reference: Option<&Folder>,
        prompts: &HashMap<PathBuf, String>,
        set_metrics: &[SetMetric],
        has_scores: bool,
    ) -> Result<Report> {
        let scorer = has_scores.then(|| self.model.open_clip(&self.scorer())).transpose()?;
        // A CLIP that is also the tower is opened once.
        let is_shared = self.clip.is_none() || set_metrics.is_empty();
        let tower = match &scorer {
            Some(_) if is_shared => None,
            _ => Some(self.model.open_image()?),
        };
        let embedder = match (&tower, &scorer) {
            (Some(tower), _) => tower,
            (None, Some(scorer)) => &scorer.image,
            (None, None) => bail!("there is nothing to measure"),
        };
        let generated = self.embed(embedder, folder)?;
        let reference = reference.filter(|_| !set_metrics.is_empty());
        let reference =
            reference.map(|folder| anyhow::Ok((folder, self.embed(embedder, folder)?))).transpose()?;
        let mut metrics = SetReport::default();
        if let Some((_, reference)) = &reference {
            let options = KidOptions {
                subsets: self.kid_subsets as usize,
                subset_size: self.kid_subset_size as usize,
                seed: self.seed,
            };
            let name = self.label(self.model.name());
            let (a, b) = (&reference.features, &generated.features);
            metrics = SetReport::measure(&name, a, b, set_metrics, &options)
                .context("choose metrics with --metrics, or measure more images")?;
            if set_metrics.contains(&SetMetric::Cmmd) && !is_clip(&self.model.name()) {
                metrics.warnings.push(format!("cmmd is defined on a CLIP's embeddings, and {name} is none"));
            }
        }
        let mut pairs = None;
        if let Some(scorer) = &scorer {
            // Another tower's features do not serve.
            let own = if tower.is_some() { Some(self.embed(&scorer.image, folder)?) } else { None };
            let scores = self.prompt_scores(scorer, own.as_ref().unwrap_or(&generated), prompts)?;
            metrics.add_prompt_scores(&self.label(self.scorer()), &scores);
            pairs = Some(scores.pairs);
        }
        Ok(Report {
            features: generated.features.width(),
            pixels: embedder.processor.output_size(),
            generated: SetSize::new(folder, &generated),
            reference: reference.as_ref().map(|(folder, reference)| SetSize::new(folder, reference)),
            prompts: pairs,
            metrics,
        })
    }

    /// Embeds the images that can be read; fails where too many cannot.
    fn embed(&self, model: &ImageEmbedder, folder: &Folder) -> Result<ImageFeatures> {
        let list = ImageList::open(&folder.images)?;
        let set = self.reading.set(&folder.path.to_string_lossy(), Arc::new(list))?;
        let (group, bars) = (ProcessGroup::alone(), Bars::default());
        let found = ImageFeatures::embed_set(model, &set, &self.reading.context(&group, &bars))?;
        self.reading.check_bad(&found.bad, set.len(), "nothing was measured")?;
        Ok(found)
    }

    fn prompt_scores(
        &self,
        scorer: &ClipPipeline,
        images: &ImageFeatures,
        prompts: &HashMap<PathBuf, String>,
    ) -> Result<PromptScores> {
        let prompt = |key: &String| prompts.get(&real(Path::new(key))?).map(String::as_str);
        let prompts: Vec<Option<&str>> = images.keys.iter().map(prompt).collect();
        Ok(PromptScores::new(&images.features, &scorer.text, &prompts, self.reading.batch_size())?)
    }

    /// The name of a tower, with the precision where it is not the reference.
    fn label(&self, model: String) -> String {
        match self.model.precision() {
            Precision::F32 => model,
            Precision::Bf16 => format!("{model} (bf16)"),
            Precision::Int8 => format!("{model} (int8)"),
        }
    }
}

impl SetSize {
    fn new(folder: &Folder, found: &ImageFeatures) -> Self {
        Self { folder: folder.path.clone(), images: found.keys.len(), unreadable: found.bad.len() }
    }
}

/// A folder and the images in it.
struct Folder {
    path: PathBuf,
    images: Vec<PathBuf>,
}

impl Folder {
    /// Lists the images without the contact sheets and previews that `mm generate` writes beside them, which
    /// have no prompt where others have.
    fn open(path: &Path) -> Result<Self> {
        ensure!(path.is_dir(), "there is no folder {}", path.display());
        let path = path.to_owned();
        let list = ImageList::open(std::slice::from_ref(&path))?;
        let all: Vec<PathBuf> = (0..list.len()).map(|index| PathBuf::from(list.key(index))).collect();
        let has_prompt =
            |image: &PathBuf| std::fs::read(image).is_ok_and(|file| stored_prompt(&file).is_some());
        let is_beside = |image: &PathBuf| {
            let name = image.file_name().unwrap_or_default().to_string_lossy();
            let is_whole = ["sheet.png", "preview.png"].contains(&&*name);
            (is_whole || name.ends_with("-sheet.png") || name.ends_with(".preview.png")) && !has_prompt(image)
        };
        let (beside, images): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_beside);
        let Some(first) = beside.first().filter(|_| images.iter().any(has_prompt)) else {
            return Ok(Self { path, images: all });
        };
        let (count, first) = (beside.len(), first.display());
        output::note(format_args!("contact sheets and previews left out: {count}, as {first}"));
        Ok(Self { path, images })
    }
}

/// Whether the model has a text side; a model that cannot be opened says so when it is.
fn is_clip(model: &str) -> bool {
    ModelFolder::open(model).and_then(|folder| folder.clip().map(drop)).is_ok()
}

/// The path of an existing file without links.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|path| path.is_file())
}

fn print(report: &Report) -> Result<()> {
    let size = |name: &str, set: &SetSize| {
        let unreadable = match set.unreadable {
            0 => String::new(),
            count => format!(", {count} could not be read"),
        };
        format!("{name}: {} images of {}{unreadable}\n", set.images, set.folder.display())
    };
    let mut text = size("generated", &report.generated);
    text.extend(report.reference.iter().map(|set| size("reference", set)));
    text.extend(report.prompts.iter().map(|pairs| format!("prompts: of {pairs} images\n")));
    let (width, height) = report.pixels;
    text += &format!("tower: {} features of {width} x {height} pixels\n\n", report.features);
    let row = |metric: &mm_diffusion::metrics::MetricValue| {
        vec![metric.name.to_owned(), metric.tower.clone(), format!("{:.5}", metric.value)]
    };
    let rows: Vec<_> = report.metrics.metrics.iter().map(row).collect();
    output::print(&(text + &table::render_left(2, &["metric", "tower", "value"], &rows)))
}
