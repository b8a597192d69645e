//! `mm inspect`: the contents of a model.

use crate::{output, table};
use anyhow::{Context, Result};
use mm_clip::{Architecture, ClipConfig, ModelFolder};
use mm_core::checkpoint::TensorInfo;
use mm_text::TextClean;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// Describe a model: architecture, sizes, weights, preprocessing, checksums.
#[derive(clap::Args)]
#[command(after_help = "Example: mm inspect runs/demo/model")]
pub struct Args {
    /// The model: a folder or a hub name.
    #[arg(value_name = "DIR|NAME")]
    model: String,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let folder =
        ModelFolder::open(&args.model).with_context(|| format!("cannot open the model {}", args.model))?;
    let tensors = folder.weights.list();
    let files: Vec<FileFacts> = folder.weights.files().map(FileFacts::of).collect::<Result<_>>()?;
    if args.json {
        return output::print(&format!("{:#}\n", json(&folder, &tensors, &files)));
    }
    let rows: Vec<_> = files.iter().map(FileFacts::row).collect();
    let mut tables =
        vec![summary(&folder), parts(&tensors), table::render(&["file", "size", "sha256"], &rows)];
    if args.tensors {
        let row = |t: &TensorInfo| vec![t.name.clone(), format!("{:?}", t.shape), t.dtype.clone()];
        tables
            .push(table::render(&["tensor", "shape", "type"], &tensors.iter().map(row).collect::<Vec<_>>()));
    }
    output::print(&tables.join("\n"))
}

/// A file of weights.
struct FileFacts {
    name: String,
    bytes: u64,
    sha256: String,
}

impl FileFacts {
    fn of(path: &Path) -> Result<Self> {
        let mut hasher = Sha256::new();
        let read = |hasher: &mut Sha256| std::io::copy(&mut std::fs::File::open(path)?, hasher);
        let bytes = read(&mut hasher).with_context(|| format!("cannot read {}", path.display()))?;
        let sha256 = hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(Self { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes, sha256 })
    }

    fn row(&self) -> Vec<String> {
        vec![self.name.clone(), size(self.bytes), self.sha256.clone()]
    }
}

fn json(folder: &ModelFolder, tensors: &[TensorInfo], files: &[FileFacts]) -> serde_json::Value {
    let list = |t: &TensorInfo| serde_json::json!({ "name": t.name, "shape": t.shape, "dtype": t.dtype });
    let file = |f: &FileFacts| serde_json::json!({ "name": f.name, "bytes": f.bytes, "sha256": f.sha256 });
    serde_json::json!({
        "form": folder.format,
        "architecture": folder.architecture,
        "parameters": tensors.iter().filter(|t| is_parameter(t)).map(TensorInfo::elements).sum::<u64>(),
        "text_clean": folder.tokenizer().map(|tokenizer| tokenizer.text_clean()).ok(),
        "preprocessing": folder.processor().map(|processor| processor.to_json().ok()).ok(),
        "files": files.iter().map(file).collect::<Vec<_>>(),
        "tensors": tensors.iter().map(list).collect::<Vec<_>>(),
    })
}

fn summary(folder: &ModelFolder) -> String {
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
        let describe = |found: mm_text::Tokenizer| {
            let cleaned = match found.text_clean() {
                TextClean::None => String::new(),
                clean => format!(", cleaned first ({})", clean.name()),
            };
            format!("{} tokens, at most {} a text{cleaned}", found.vocab_size(), found.context_length())
        };
        lines.push(("tokenizer", folder.tokenizer().map_or_else(|error| error.to_string(), describe)));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
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
