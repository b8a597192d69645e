//! `mm inspect`: the contents of a model.

use crate::{inspect_diffusion, inspect_image, output, table};
use anyhow::{Context, Result};
use mm_caption::{CaptionerFolder, Description, SpecialTokens};
use mm_clip::{Architecture, ClipConfig, ModelFolder};
use mm_core::checkpoint::{TensorInfo, Weights, hex};
use mm_core::nn::TowerSpec;
use mm_text::{TextClean, Tokenizer};
use mm_vqa::document::{DocumentFolder, DocumentProcessor};
use mm_vqa::vlm::VlmFolder;
use mm_vqa::{VqaFolder, VqaParts};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Describe a model: architecture, sizes, weights, preprocessing, checksums; a LoRA file; or how an image was
/// made.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mm inspect runs/demo/model\n  \
    mm inspect style-lora.safetensors\n  \
    mm inspect image.png")]
pub struct Args {
    /// The model: a folder or a hub name; a LoRA file; or a PNG.
    #[arg(value_name = "DIR|NAME|FILE")]
    model: String,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let path = Path::new(&args.model);
    if path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return inspect_image::run(path, args.json);
    }
    if inspect_diffusion::is_weights(path) {
        return inspect_diffusion::weights(path, args.json);
    }
    let context = || format!("cannot open the model {}", args.model);
    let contents = if let Some(folder) = inspect_diffusion::pipeline_folder(&args.model) {
        inspect_diffusion::pipeline(&folder).with_context(context)?
    } else if DocumentFolder::is_document(&args.model) {
        Contents::of_document(&DocumentFolder::open(&args.model).with_context(context)?)?
    } else if VlmFolder::is_vlm(&args.model) {
        Contents::of_vlm(&VlmFolder::open(&args.model).with_context(context)?)?
    } else if CaptionerFolder::is_captioner(&args.model) {
        Contents::of_captioner(&CaptionerFolder::open(&args.model).with_context(context)?)?
    } else if VqaFolder::is_vqa(&args.model) {
        Contents::of_vqa(&VqaFolder::open(&args.model).with_context(context)?)?
    } else {
        Contents::of_model(&ModelFolder::open(&args.model).with_context(context)?)?
    };
    if args.json {
        return output::print(&format!("{:#}\n", contents.json()));
    }
    let rows: Vec<_> = contents.files.iter().map(FileFacts::row).collect();
    let mut tables =
        vec![contents.summary(), parts(&contents.tensors), table::render(&["file", "size", "sha256"], &rows)];
    if args.tensors {
        let row = |t: &TensorInfo| vec![t.name.clone(), format!("{:?}", t.shape), t.dtype.clone()];
        let rows: Vec<_> = contents.tensors.iter().map(row).collect();
        tables.push(table::render(&["tensor", "shape", "type"], &rows));
    }
    output::print(&tables.join("\n"))
}

/// The contents of a model.
pub struct Contents {
    /// Names and values of the summary.
    pub lines: Vec<(&'static str, String)>,
    /// The same in JSON.
    pub facts: serde_json::Value,
    pub tensors: Vec<TensorInfo>,
    pub files: Vec<FileFacts>,
}

impl Contents {
    fn new(lines: Vec<(&'static str, String)>, facts: serde_json::Value, weights: &Weights) -> Result<Self> {
        let files = weights.files().map(FileFacts::of).collect::<Result<_>>()?;
        Ok(Self { lines, facts, tensors: weights.list(), files })
    }

    /// Those of a CLIP or a tower.
    fn of_model(folder: &ModelFolder) -> Result<Self> {
        let facts = serde_json::json!({
            "form": folder.format,
            "architecture": folder.architecture,
            "text_clean": folder.tokenizer().map(|tokenizer| tokenizer.text_clean()).ok(),
            "preprocessing": folder.processor().map(|processor| processor.to_json().ok()).ok(),
        });
        Self::new(lines(folder), facts, &folder.weights)
    }

    /// Those of a captioner.
    fn of_captioner(folder: &CaptionerFolder) -> Result<Self> {
        let Description { model, tokens } = &folder.description;
        let form = if folder.folder.is_checkpoint() { "checkpoint" } else { "hf" };
        let (tokenizer, processor) = (folder.tokenizer(), folder.processor());
        let facts = serde_json::json!({
            "form": form,
            "architecture": model,
            "special_tokens": tokens,
            "preprocessing": processor.as_ref().map(|processor| processor.to_json().ok()).ok(),
        });
        let special = special_tokens(tokens, tokenizer.as_ref().ok());
        let lines = vec![
            ("form", form.to_owned()),
            ("captioner", model.describe()),
            ("preprocessing", processor.map_or_else(|error| error.to_string(), |found| found.to_string())),
            (
                "tokenizer",
                tokenizer.map_or_else(|error| error.to_string(), |found| describe_tokenizer(&found)),
            ),
            ("special tokens", special),
        ];
        Self::new(lines, facts, folder.weights())
    }

    /// Those of a model that reads documents.
    fn of_document(folder: &DocumentFolder) -> Result<Self> {
        let form = if folder.folder.is_checkpoint() { "checkpoint" } else { "hf" };
        let (tokenizer, processor) = (folder.tokenizer(), folder.processor());
        let facts = serde_json::json!({
            "form": form,
            "architecture": folder.config,
            "special_tokens": folder.tokens,
            "preprocessing": processor.as_ref().map(DocumentProcessor::to_json).ok(),
        });
        let size = |processor: DocumentProcessor| {
            let (width, height) = processor.output_size();
            format!("pages of any ratio, within {width} x {height} pixels")
        };
        let lines = vec![
            ("form", form.to_owned()),
            ("reader of documents", folder.config.describe()),
            ("preprocessing", processor.map_or_else(|error| error.to_string(), size)),
            ("special tokens", special_tokens(&folder.tokens, tokenizer.as_ref().ok())),
            (
                "tokenizer",
                tokenizer.map_or_else(|error| error.to_string(), |found| describe_tokenizer(&found)),
            ),
        ];
        Self::new(lines, facts, folder.weights())
    }

    /// Those of a vision-language model.
    fn of_vlm(folder: &VlmFolder) -> Result<Self> {
        let form = if folder.folder.is_checkpoint() { "checkpoint" } else { "hf" };
        let config = &folder.config;
        let facts = serde_json::json!({ "form": form, "architecture": config });
        let tokenizer = folder.parts().map(|parts| parts.tokenizer);
        let lines = vec![
            ("form", form.to_owned()),
            ("vision-language model", config.family.model_type().to_owned()),
            ("image tower", config.vision.describe()),
            ("decoder", config.text.describe()),
            (
                "tokenizer",
                tokenizer.map_or_else(|error| error.to_string(), |found| describe_tokenizer(&found)),
            ),
        ];
        Self::new(lines, facts, folder.weights())
    }

    /// Those of a model that answers questions.
    fn of_vqa(folder: &VqaFolder) -> Result<Self> {
        let form = if folder.folder.is_checkpoint() { "checkpoint" } else { "hf" };
        let parts = folder.parts();
        let answers = parts.as_ref().ok().and_then(|parts| parts.answers.clone());
        let answers = answers.as_ref().map_or(&[][..], |answers| answers.all());
        let facts = serde_json::json!({
            "form": form,
            "architecture": folder.config,
            "answers": answers,
            "preprocessing": parts.as_ref().ok().and_then(|parts| parts.processor.to_json().ok()),
        });
        let first: Vec<&str> = answers.iter().take(5).map(String::as_str).collect();
        let more = if answers.len() > first.len() { ", ..." } else { "" };
        let described = |describe: fn(&VqaParts) -> String| match &parts {
            Ok(parts) => describe(parts),
            Err(error) => error.to_string(),
        };
        let lines = vec![
            ("form", form.to_owned()),
            ("model", folder.config.describe()),
            ("answers", format!("{}: {}{more}", answers.len(), first.join(", "))),
            ("preprocessing", described(|parts| parts.processor.to_string())),
            ("tokenizer", described(|parts| describe_tokenizer(&parts.tokenizer))),
        ];
        Self::new(lines, facts, folder.weights())
    }

    fn json(&self) -> serde_json::Value {
        let list = |t: &TensorInfo| serde_json::json!({ "name": t.name, "shape": t.shape, "dtype": t.dtype });
        let file =
            |f: &FileFacts| serde_json::json!({ "name": f.name, "bytes": f.bytes, "sha256": f.sha256 });
        let parameters: u64 = self.tensors.iter().filter(|t| is_parameter(t)).map(TensorInfo::elements).sum();
        let mut json = self.facts.clone();
        json["parameters"] = parameters.into();
        json["files"] = self.files.iter().map(file).collect();
        json["tensors"] = self.tensors.iter().map(list).collect();
        json
    }

    fn summary(&self) -> String {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
    }
}

/// A file of weights.
pub struct FileFacts {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

impl FileFacts {
    pub fn of(path: &Path) -> Result<Self> {
        let mut hasher = Sha256::new();
        let read = |hasher: &mut Sha256| std::io::copy(&mut std::fs::File::open(path)?, hasher);
        let bytes = read(&mut hasher).with_context(|| format!("cannot read {}", path.display()))?;
        let sha256 = hex(&hasher.finalize());
        Ok(Self { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes, sha256 })
    }

    fn row(&self) -> Vec<String> {
        vec![self.name.clone(), size(self.bytes), self.sha256.clone()]
    }
}

/// The summary of a CLIP or a tower.
fn lines(folder: &ModelFolder) -> Vec<(&'static str, String)> {
    let mut lines = vec![("form", word(&folder.format))];
    match &folder.architecture {
        Architecture::Clip(ClipConfig { embed_dim, loss, image, text, .. }) => {
            lines.push(("image tower", image.describe()));
            lines.push(("text tower", text.describe()));
            lines.push(("shared space", format!("{embed_dim} numbers, {} loss", word(loss))));
        }
        Architecture::Image { tower, projection } => {
            lines.push(("image tower", tower.describe()));
            lines.extend(projection.map(|width| ("projected to", format!("{width} numbers"))));
        }
        Architecture::Text { tower, projection } => {
            lines.push(("text tower", tower.describe()));
            lines.extend(projection.map(|width| ("projected to", format!("{width} numbers"))));
        }
    }
    if !matches!(folder.architecture, Architecture::Text { .. }) {
        lines.push((
            "preprocessing",
            folder.processor().map_or_else(|error| error.to_string(), |found| found.to_string()),
        ));
    }
    if !matches!(folder.architecture, Architecture::Image { .. }) {
        let tokenizer = folder.tokenizer();
        lines.push((
            "tokenizer",
            tokenizer.map_or_else(|error| error.to_string(), |found| describe_tokenizer(&found)),
        ));
    }
    lines
}

fn describe_tokenizer(tokenizer: &Tokenizer) -> String {
    let cleaned = match tokenizer.text_clean() {
        TextClean::None => String::new(),
        clean => format!(", cleaned first ({})", clean.name()),
    };
    format!("{} tokens, at most {} a text{cleaned}", tokenizer.vocab_size(), tokenizer.context_length())
}

/// The special tokens of a captioner, as ids and as the tokenizer has them.
fn special_tokens(tokens: &SpecialTokens, tokenizer: Option<&Tokenizer>) -> String {
    let named = |id: u32| match tokenizer.and_then(|tokenizer| tokenizer.token(id)) {
        Some(token) => format!("{id} ({token})"),
        None => id.to_string(),
    };
    let start = tokens.start.map(|start| format!("begin {}, ", named(start))).unwrap_or_default();
    format!("{start}end {}, padding {}", named(tokens.end), named(tokens.pad))
}

/// The name of `value` in configs.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Parameters by the first part of their names.
fn parts(tensors: &[TensorInfo]) -> String {
    #[derive(Default)]
    struct Part {
        tensors: u64,
        parameters: u64,
        bytes: u64,
        types: BTreeSet<String>,
    }
    let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
    for tensor in tensors {
        for name in [tensor.name.split('.').next().unwrap_or_default(), "~"] {
            let part = parts.entry(name).or_default();
            part.tensors += 1;
            part.parameters += if is_parameter(tensor) { tensor.elements() } else { 0 };
            part.bytes += tensor.bytes;
            part.types.insert(tensor.dtype.clone());
        }
    }
    let rows = parts.into_iter().map(|(name, part)| {
        vec![
            if name == "~" { "all".to_owned() } else { name.to_owned() },
            part.tensors.to_string(),
            part.parameters.to_string(),
            size(part.bytes),
            part.types.into_iter().collect::<Vec<_>>().join(" "),
        ]
    });
    table::render(&["part", "tensors", "parameters", "size", "types"], &rows.collect::<Vec<_>>())
}

/// Whether a tensor holds parameters, not scales of others, statistics or counters.
fn is_parameter(tensor: &TensorInfo) -> bool {
    let others = ["weight_scale", "running_mean", "running_var"];
    !others.iter().any(|other| tensor.name.ends_with(other)) && tensor.dtype != "I64"
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
