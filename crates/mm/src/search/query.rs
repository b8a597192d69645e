//! `mm search query`.

use super::found::{Found, print};
use super::{CandidateArgs, IndexArgs, open_model, own_model};
use crate::model::{ModelArgs, read_image};
use anyhow::{Context, Result};
use mm_search::{Filter, QueryPart, SearchIndex, SearchRequest, combine, to_vectors};
use std::path::PathBuf;

/// Find images by text, by image or by both.
#[derive(clap::Args)]
#[command(
    mut_arg("model", own_model),
    after_help = "Texts and images of a query are added up, each with its weight, which stands behind an @: \
    \"like this photo, but red\" is --image photo.jpg red@0.5. --minus and --minus-image lead away.\n\n\
    A filter compares metadata (label, caption, width, height, group) and key and set: \
    --filter 'label = \"cat\" and width >= 512 and not caption ~ \"dog\"'.\n\n\
    Examples:\n  \
    mm search query --index photos.index \"a dog on the beach\"\n  \
    mm search query --index photos.index --image photo.jpg --minus snow --out found.png\n  \
    mm search query --index photos.index --item 4294967299 --diverse 0.3 --json"
)]
pub struct Args {
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Texts.
    #[arg(value_name = "TEXT[@WEIGHT]")]
    texts: Vec<String>,
    /// An image.
    #[arg(long = "image", value_name = "FILE[@WEIGHT]")]
    images: Vec<String>,
    /// An item of the index, by its id: no model is needed for it.
    #[arg(long = "item", value_name = "ID")]
    items: Vec<u64>,
    /// A text to lead away from.
    #[arg(long, value_name = "TEXT[@WEIGHT]")]
    minus: Vec<String>,
    /// An image to lead away from.
    #[arg(long, value_name = "FILE[@WEIGHT]")]
    minus_image: Vec<String>,
    /// Images to find.
    #[arg(long, short, value_name = "N", default_value_t = 10,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    k: usize,
    /// Only images whose metadata fulfils this.
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// From 0 to 1: how much the results should differ from each other.
    #[arg(long, value_name = "SHARE")]
    diverse: Option<f32>,
    #[command(flatten)]
    candidates: CandidateArgs,
    /// Also write the results as a contact sheet, a .png.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object a result instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let index = args.index.open()?;
    let query = combine(&parts(args, &*index)?)?;
    let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
    let request =
        SearchRequest { k: args.k, filter: filter.as_ref(), candidates: args.candidates.candidates() };
    let hits = match args.diverse {
        Some(diversity) => index.search_diverse(&query, &request, diversity)?,
        None => index.search(&[query], &request)?.pop().unwrap_or_default(),
    };
    let found = hits.into_iter().map(|hit| Found::new(&*index, hit)).collect::<Result<Vec<_>>>()?;
    print(&*index, &found, args.out.as_deref(), args.json)
}

/// The parts of the query with their weights.
fn parts(args: &Args, index: &dyn SearchIndex) -> Result<Vec<QueryPart>> {
    let texts: Vec<(&str, f32)> = weighted(&args.texts, 1.0).chain(weighted(&args.minus, -1.0)).collect();
    let images: Vec<(&str, f32)> =
        weighted(&args.images, 1.0).chain(weighted(&args.minus_image, -1.0)).collect();
    let mut parts = Vec::new();
    for &id in &args.items {
        let row = index.row(id)?.with_context(|| format!("the index has no item {id}"))?;
        parts.push(QueryPart { row, weight: 1.0 });
    }
    if !texts.is_empty() || !images.is_empty() {
        let model = open_model(&args.model, &args.index, index)?;
        if !texts.is_empty() {
            let rows =
                model.text.embed(&texts.iter().map(|(text, _)| *text).collect::<Vec<_>>(), texts.len())?;
            parts.extend(joined(to_vectors(&rows)?, &texts));
        }
        for (file, weight) in images {
            let row = model.image.embed(&[read_image(file.as_ref())?])?;
            parts.extend(joined(to_vectors(&row)?, &[(file, weight)]));
        }
    }
    Ok(parts)
}

fn joined(rows: Vec<Vec<f32>>, weighted: &[(&str, f32)]) -> Vec<QueryPart> {
    rows.into_iter().zip(weighted).map(|(row, &(_, weight))| QueryPart { row, weight }).collect()
}

/// Each of `parts` without its weight, which is a number behind the last @; `sign` times 1 without one.
fn weighted(parts: &[String], sign: f32) -> impl Iterator<Item = (&str, f32)> {
    parts.iter().map(move |part| {
        let split = part.rsplit_once('@');
        let weight = split.and_then(|(part, weight)| Some((part, weight.trim().parse::<f32>().ok()?)));
        let (part, weight) = weight.unwrap_or((part, 1.0));
        (part, sign * weight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_behind_the_last_at() {
        let parts = ["a dog@0.5", "me@home", "a@b@2", "plain"].map(str::to_owned);
        let expected = [("a dog", -0.5), ("me@home", -1.0), ("a@b", -2.0), ("plain", -1.0)];
        assert_eq!(weighted(&parts, -1.0).collect::<Vec<_>>(), expected);
    }
}
