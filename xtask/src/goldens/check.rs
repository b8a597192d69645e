//! `goldens --check`: the round trip. `mm convert` writes each model in every format that can hold it, and
//! the peers must open it and compute the same; `mm embed` must give the peers' rows for the peers' folders.

use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Args;
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::setup;
use crate::workspace::{Workspace, last_line, peer_script, run as run_command};

const PAGE: &str = "docs/checkpoints.md";

/// The models of data/goldens/clip, and the chains of formats that each is converted through. A peer opens
/// the last of a chain. Pairs that are missing here cannot be converted, and `mm convert` says so.
const MODELS: [(&str, &[&str]); 18] = [
    ("clip", &["hf", "hf f16", "hf bf16", "open_clip", "open_clip > hf"]),
    ("clip-gelu-14", &["hf", "open_clip", "open_clip > hf"]),
    ("clip-legacy-eos", &["hf", "open_clip", "open_clip > hf"]),
    ("clip-sharded", &["hf", "open_clip"]),
    ("siglip", &["hf"]),
    ("open-clip-vit", &["open_clip", "open_clip 48px", "hf"]),
    ("open-clip-resnet", &["open_clip", "hf > open_clip"]),
    ("open-clip-siglip-loss", &["open_clip", "hf > open_clip"]),
    ("open-clip-biomed", &["open_clip"]),
    ("openai-vit", &["openai", "openai f16", "open_clip", "hf", "hf > open_clip > openai"]),
    ("openai-resnet", &["openai", "open_clip", "hf > open_clip > openai"]),
    ("clip-text", &["hf"]),
    ("clip-vision", &["hf"]),
    ("siglip-text", &["hf"]),
    ("siglip-vision", &["hf"]),
    ("vit", &["hf"]),
    ("vit-without-pooler", &["hf"]),
    ("bert", &["hf"]),
];

/// The folders that the script makes, with tokenizer and image processor: the chains, and the inputs of
/// `mm embed`.
const FOLDERS: [(&str, &[&str], &[&str]); 12] = [
    ("clip-words", &["hf", "open_clip", "open_clip > hf"], &["texts", "images"]),
    ("clip-openai-words", &["hf", "open_clip", "openai", "openai > hf"], &["texts", "images"]),
    ("siglip-words", &["hf"], &["texts", "images"]),
    ("siglip2-words", &["hf"], &["texts", "images"]),
    ("open-clip-words", &["open_clip", "hf", "openai"], &["texts", "images"]),
    ("open-clip-resnet-words", &["open_clip", "openai", "hf > open_clip"], &["texts", "images"]),
    ("clip-text-words", &["hf"], &["texts"]),
    ("clip-vision-pixels", &["hf"], &["images"]),
    ("vit-pixels", &["hf"], &["images"]),
    ("bert-tokenizer", &["hf"], &["texts"]),
    ("bert-vocab-txt", &["hf"], &["texts"]),
    ("sentence-bert", &["hf"], &["texts"]),
];

/// Complete folders that are goldens too, below data/goldens.
const COMPLETE: [(&str, &[&str]); 6] = [
    ("caption/blip", &["hf", "hf f16", "hf bf16"]),
    ("caption/blip-large", &["hf"]),
    ("caption/vit-gpt2", &["hf", "hf f16", "hf bf16"]),
    ("caption/vit-gpt2-projected", &["hf"]),
    ("vqa/blip", &["hf", "hf f16", "hf bf16"]),
    ("vqa/vilt", &["hf", "hf f16", "hf bf16"]),
];

/// The pipelines of diffusers that the script makes: as one file, and as a folder again.
const PIPELINES: [(&str, &[&str]); 3] = [
    ("sd1", &["single_file", "single_file > hf", "single_file f16 > hf f16"]),
    ("sd2", &["single_file", "single_file > hf v_prediction"]),
    ("sdxl", &["single_file", "single_file > hf"]),
];

/// What `mm generate` makes with them: as in the script.
const GENERATED: [&str; 9] =
    ["a red star", "--seed", "7", "--steps", "4", "--guidance", "5", "--size", "32x32"];

/// A run that trains adapters of the first pipeline for two steps, with a scale that is not 1.
const ADAPTERS: &str = r#"
[objective]
kind = "ddpm"

[lora]
rank = 2
alpha = 5.0
targets = ["to_q", "to_k", "to_v", "to_out.0"]

[data]
train = { kind = "shapes", samples = 8, size = 32, scenes = "prompts", objects = [1, 2] }

[train]
steps = 2
batch_size = 4
lr = 0.2
"#;

/// A request to the script: open `written`, or compare the `rows` of `mm embed` with the source's.
#[derive(Serialize)]
struct Request {
    source: PathBuf,
    written: PathBuf,
    form: String,
    dtype: String,
    /// The side of the images in pixels, where it differs from the source's.
    resolution: Option<String>,
    rows: bool,
    /// A LoRA that was trained on the source; `written` is then the merged model.
    adapter: Option<PathBuf>,
    /// What `mm generate` made with the pipeline.
    image: Option<PathBuf>,
}

/// The script's answer to one request.
#[derive(Deserialize, Default)]
struct Found {
    opened_by: Option<String>,
    /// The number of compared captions, all with the same ids.
    texts: Option<u64>,
    /// The number of compared photographs.
    photos: Option<u64>,
    /// The largest difference of normalised pixels.
    pixels: Option<f64>,
    /// The largest difference of outputs.
    difference: Option<f64>,
    error: Option<String>,
}

/// One conversion or embedding, and a row of the tables.
struct Trip {
    model: &'static str,
    /// The formats it was converted through.
    chain: String,
    /// The error of `mm`, if it failed.
    broken: Option<String>,
    request: Request,
}

/// Runs the check, prints its tables, and writes them into docs/checkpoints.md if everything passes.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let mm = Mm { workspace, libtorch: &libtorch, executable: &mm };
    // In cargo's target folder, beside the program.
    let scratch = mm.executable.with_file_name("round_trip");
    let _ = fs::remove_dir_all(&scratch);
    let (goldens, whole) = (workspace.path("data/goldens"), scratch.join("folders"));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let script = workspace.path("xtask/peers/check_round_trip.py");
    eprintln!("== the peers make folders");
    if let Err(error) = run_command(peer_script(&args.python, &script).arg("make").args([&goldens, &whole])) {
        bail!("the peers cannot make their folders ({error:#})");
    }

    eprintln!("== mm converts and embeds");
    let mut trips = Vec::new();
    for (model, chains) in MODELS {
        let source = goldens.join("clip").join(model);
        trips.extend(chains.iter().map(|chain| mm.convert(model, &source, chain, &scratch)));
    }
    let models = trips.len();
    for (model, chains, sides) in FOLDERS {
        let source = whole.join(model);
        trips.extend(chains.iter().map(|chain| mm.convert(model, &source, chain, &scratch)));
        trips.extend(sides.iter().map(|side| mm.embed(model, &source, side, &scratch, &goldens)));
    }
    for (model, chains) in COMPLETE {
        let source = goldens.join(model);
        trips.extend(chains.iter().map(|chain| mm.convert(model, &source, chain, &scratch)));
    }
    for (model, chains) in PIPELINES {
        let source = whole.join(model);
        trips.extend(chains.iter().map(|chain| mm.pipeline(model, &source, chain, &scratch)));
    }
    trips.extend(mm.adapters(&whole.join(PIPELINES[0].0), &scratch));

    eprintln!("== the peers open and compute");
    let plan = scratch.join("plan.json");
    let asked: Vec<&Request> =
        trips.iter().filter(|trip| trip.broken.is_none()).map(|trip| &trip.request).collect();
    fs::write(&plan, serde_json::to_vec(&asked)?)
        .with_context(|| format!("cannot write {}", plan.display()))?;
    let (versions, mut answers) =
        ask(peer_script(&args.python, &script).arg("check").args([&goldens, &plan]), asked.len())?;
    let found: Vec<Found> = trips
        .iter()
        .map(|trip| match &trip.broken {
            Some(error) => Found { error: Some(error.clone()), ..Found::default() },
            None => answers.next().unwrap_or_default(),
        })
        .collect();
    let tables = tables(&trips, &found, models);
    print!("{tables}");
    refuse_failures(&trips, &found, &scratch)?;
    let text = format!("Checked on {} with {versions}.\n\n{tables}", today());
    write_section(&workspace.path(PAGE), "round trip", &text)?;
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}

/// The program under test.
struct Mm<'a> {
    workspace: &'a Workspace,
    libtorch: &'a Libtorch,
    executable: &'a Path,
}

impl Mm<'_> {
    /// Converts `source` through each format of `chain` in turn.
    fn convert(&self, model: &'static str, source: &Path, chain: &str, scratch: &Path) -> Trip {
        let mut request = Request {
            source: source.to_owned(),
            written: source.to_owned(),
            form: String::new(),
            dtype: String::new(),
            resolution: None,
            rows: false,
            adapter: None,
            image: None,
        };
        let mut broken = None;
        for (step, words) in chain.split(" > ").enumerate() {
            let (form, option) = words.split_once(' ').unwrap_or((words, "f32"));
            let resolution = option.strip_suffix("px");
            let prediction = Some(option).filter(|option| option.ends_with("prediction"));
            let dtype = if resolution.or(prediction).is_some() { "f32" } else { option };
            let end = if form == "single_file" { ".safetensors" } else { "" };
            let name = format!("{model}.{chain}.{step}{end}").replace(" > ", ".").replace([' ', '/'], "-");
            let to = scratch.join("written").join(name);
            let mut command = self.command("convert");
            command
                .arg("--from")
                .arg(&request.written)
                .arg("--to")
                .arg(&to)
                .args(["--format", form, "--dtype", dtype]);
            command.args(resolution.map(|pixels| format!("--resolution={pixels}")));
            command.args(prediction.map(|prediction| format!("--prediction={prediction}")));
            broken = broken.or(failure(&mut command));
            let (form, dtype, resolution) =
                (form.to_owned(), dtype.to_owned(), resolution.map(str::to_owned));
            request = Request { written: to, form, dtype, resolution, ..request };
        }
        Trip { model, chain: chain.replace(" > ", ", then "), broken, request }
    }

    /// Embeds texts or images with the folder `source`, unconverted.
    fn embed(&self, model: &'static str, source: &Path, side: &str, scratch: &Path, goldens: &Path) -> Trip {
        let folder = scratch.join("rows").join(model);
        let rows = folder.join(format!("{side}.safetensors"));
        let input = match side {
            "texts" => scratch.join("folders/captions.txt"),
            _ => goldens.join("images/photos"),
        };
        let mut command = self.command("embed");
        command.arg("--model").arg(source).arg(format!("--{side}")).arg(input).arg("--out").arg(&rows);
        let no_folder = fs::create_dir_all(&folder).err().map(|error| error.to_string());
        let broken = no_folder.or_else(|| failure(&mut command));
        let (form, dtype) = (String::new(), "f32".to_owned());
        let request = Request {
            source: source.to_owned(),
            written: rows,
            form,
            dtype,
            resolution: None,
            rows: true,
            adapter: None,
            image: None,
        };
        Trip { model, chain: "unconverted".to_owned(), broken, request }
    }

    /// Converts the pipeline `source`, and generates with the result.
    fn pipeline(&self, model: &'static str, source: &Path, chain: &str, scratch: &Path) -> Trip {
        let mut trip = self.convert(model, source, chain, scratch);
        // A file of SD 2 does not say what it predicts.
        let is_silent = model == "sd2" && trip.request.form == "single_file";
        let opened = if is_silent { source } else { &trip.request.written };
        let image = scratch.join("images").join(format!("{model}-{}.png", chain.replace([' ', '>'], "-")));
        let mut command = self.generate(opened, &image);
        trip.broken = trip.broken.or_else(|| failure(&mut command));
        trip.request.image = Some(image);
        trip
    }

    /// Trains adapters of the pipeline `source`, and generates with it and them, in both spellings.
    fn adapters(&self, source: &Path, scratch: &Path) -> [Trip; 2] {
        let (config, written) = (scratch.join("adapters.toml"), scratch.join("adapters/model"));
        let run = format!("[run]\ntask = \"diffusion\"\nname = \"adapters\"\nseed = 1\nout = {scratch:?}\n");
        let text = format!("{run}\n[model]\nfrom = {source:?}\n{ADAPTERS}");
        let not_written = fs::write(&config, text).err().map(|error| error.to_string());
        let peft = written.join("adapter/pytorch_lora_weights.safetensors");
        let kohya = scratch.join("adapters/kohya.safetensors");
        let (mut train, mut convert) = (self.command("train"), self.command("convert"));
        train.arg(&config);
        convert.arg("--from").arg(&peft).arg("--to").arg(&kohya).args(["--format", "kohya"]);
        let broken = not_written.or_else(|| failure(&mut train)).or_else(|| failure(&mut convert));
        [("adapters after two steps", peft), ("adapters in kohya's spelling", kohya)].map(
            |(chain, adapter)| {
                let image = scratch.join("images").join(chain).with_extension("png");
                let mut generate = self.generate(source, &image);
                generate.arg("--lora").arg(&adapter);
                let broken = broken.clone().or_else(|| failure(&mut generate));
                let request = Request {
                    source: source.to_owned(),
                    written: written.clone(),
                    form: "hf".to_owned(),
                    dtype: "f32".to_owned(),
                    resolution: None,
                    rows: false,
                    adapter: Some(adapter),
                    image: Some(image),
                };
                Trip { model: "sd1", chain: chain.to_owned(), broken, request }
            },
        )
    }

    fn generate(&self, model: &Path, image: &Path) -> Command {
        let mut command = self.command("generate");
        command.arg("--model").arg(model).args(GENERATED).arg("--out").arg(image);
        command
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.workspace.program(self.executable, self.libtorch);
        command.arg(verb);
        command
    }
}

/// The error of a command, if it fails.
fn failure(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(last_line(&output.stderr).trim_start_matches("error: ").to_owned()),
        Err(error) => Some(format!("cannot start mm: {error}")),
    }
}

/// The versions of the peers, and their answers to `count` requests.
fn ask(command: &mut Command, count: usize) -> Result<(String, std::vec::IntoIter<Found>)> {
    let output =
        command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let versions = lines.next().unwrap_or_default().to_owned();
    let answers: Vec<Found> =
        lines.map(serde_json::from_str).collect::<Result<_, _>>().context("the peers' answer")?;
    if !output.status.success() || answers.len() != count {
        let reason = last_line(&output.stderr);
        bail!("the peers answered {} of {count} requests: {reason}", answers.len());
    }
    Ok((versions, answers.into_iter()))
}

/// The table of the models, compared on the goldens' inputs and outputs, and that of the complete folders.
fn tables(trips: &[Trip], found: &[Found], models: usize) -> String {
    let number = |number: f64| if number == 0.0 { "0".to_owned() } else { format!("{number:.1e}") };
    let lines: Vec<[String; 6]> = trips
        .iter()
        .zip(found)
        .map(|(trip, found)| {
            let opened_by = found.opened_by.clone().unwrap_or_else(|| "none".to_owned());
            let texts = found.texts.map(|texts| texts.to_string());
            let pixels =
                found.pixels.zip(found.photos).map(|(apart, photos)| format!("{photos}: {}", number(apart)));
            let [texts, pixels, outputs] =
                [texts, pixels, found.difference.map(number)].map(Option::unwrap_or_default);
            [trip.model.to_owned(), trip.chain.clone(), opened_by, texts, pixels, outputs]
        })
        .collect();
    let head = ["model", "written as", "opened by", "equal texts", "photos: pixels apart", "outputs apart"]
        .map(String::from);
    let short = |line: &[String; 6]| [0, 1, 2, 5].map(|column| line[column].clone());
    let first: Vec<_> = std::iter::once(&head).chain(&lines[..models]).map(short).collect();
    let second: Vec<_> = std::iter::once(&head).chain(&lines[models..]).cloned().collect();
    format!("{}\n{}", table(&first), table(&second))
}

fn refuse_failures(trips: &[Trip], found: &[Found], scratch: &Path) -> Result<()> {
    let failed = trips.iter().zip(found).filter_map(|(trip, found)| Some((trip, found.error.as_ref()?)));
    let failed: Vec<_> = failed.collect();
    match failed.first() {
        None => Ok(()),
        Some((trip, error)) => bail!(
            "{} of {} round trips fail (their files are in {}); the first: {}, {}: {error}",
            failed.len(),
            trips.len(),
            scratch.display(),
            trip.model,
            if trip.request.rows { trip.chain.clone() } else { format!("written as {}", trip.chain) },
        ),
    }
}
