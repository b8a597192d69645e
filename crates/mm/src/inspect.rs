use crate::table;
use anyhow::{Context, Result};
use mm_clip::read_config;
use mm_core::checkpoint::{TensorInfo, Weights};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Tell what a model's folder holds.
#[derive(clap::Args)]
#[command(after_help = "Example: mm inspect runs/demo/model")]
pub struct Args {
    /// The model's folder.
    model: PathBuf,
    /// Name every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let config = read_config(&args.model)?;
    let weights = args.model.join("model.safetensors");
    let tensors = Weights::open(&weights)?.list();
    let mut parts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in &tensors {
        let part = parts.entry(tensor.name.split('.').next().unwrap_or_default()).or_default();
        *part = (part.0 + 1, part.1 + tensor.elements());
    }
    if args.json {
        let tensors: Vec<_> =
            tensors.iter().map(|t| serde_json::json!({ "name": t.name, "shape": t.shape, "dtype": t.dtype })).collect();
        let parameters: u64 = parts.values().map(|part| part.1).sum();
        println!("{}", serde_json::json!({ "config": config, "parameters": parameters, "tensors": tensors }));
        return Ok(());
    }
    println!("{}", toml::to_string(&config).context("the config cannot be shown")?);
    let total = tensors.iter().map(TensorInfo::elements).sum::<u64>();
    let all = [("all", (tensors.len() as u64, total))];
    let rows = parts.into_iter().chain(all).map(|(name, (count, parameters))| {
        vec![name.to_owned(), count.to_string(), format!("{:.3} M", parameters as f64 / 1e6)]
    });
    print!("{}", table::render(&["part", "tensors", "parameters"], &rows.collect::<Vec<_>>()));
    if args.tensors {
        let rows: Vec<Vec<String>> =
            tensors.iter().map(|t| vec![t.name.clone(), format!("{:?}", t.shape), t.dtype.clone()]).collect();
        print!("\n{}", table::render(&["tensor", "shape", "type"], &rows));
    }
    Ok(())
}
