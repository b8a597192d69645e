//! Measures caption metrics for `cargo xtask bench caption-metrics`.
//!
//!     bench_caption_metrics make CAPTIONS OUT COUNT     files of COUNT images: the first caption of each
//!                                                       against its others
//!     bench_caption_metrics score REFERENCES HYPOTHESES time from captions in memory to scores, as JSON

use mm_caption::metrics::{CaptionMetrics, Captions, MissingHypotheses, read_captions};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

fn make(captions: &Path, out: &Path, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut images = Captions::read(captions)?.images().to_vec();
    images.sort_by_key(|(image_id, _)| image_id.parse::<u64>().unwrap_or(u64::MAX));
    images.truncate(count);
    std::fs::create_dir_all(out)?;
    let hypotheses: BTreeMap<&str, &[String]> =
        images.iter().map(|(image_id, captions)| (image_id.as_str(), &captions[..1])).collect();
    let references: BTreeMap<&str, &[String]> =
        images.iter().map(|(image_id, captions)| (image_id.as_str(), &captions[1..])).collect();
    std::fs::write(out.join("hypotheses.json"), serde_json::to_vec(&hypotheses)?)?;
    std::fs::write(out.join("references.json"), serde_json::to_vec(&references)?)?;
    Ok(())
}

fn score(references: &Path, hypotheses: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let images = read_captions(references, hypotheses, MissingHypotheses::Refuse)?;
    let start = Instant::now();
    let metrics = CaptionMetrics::new(&images, None);
    let seconds = start.elapsed().as_secs_f64();
    let get = |name: &str| metrics.scores.get(name).unwrap_or(f64::NAN);
    let scores = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"].map(get);
    println!("{}", serde_json::json!({"images": images.len(), "seconds": seconds, "scores": scores}));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", captions, out, count] => make(captions.as_ref(), out.as_ref(), count.parse()?),
        ["score", references, hypotheses] => score(references.as_ref(), hypotheses.as_ref()),
        _ => Err("usage: make CAPTIONS OUT COUNT, or score REFERENCES HYPOTHESES".into()),
    }
}
