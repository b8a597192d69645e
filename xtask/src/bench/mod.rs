//! `cargo xtask bench`: our speed, the machine's limit and the Python peers' speed, measured in one run.
//!
//! Every measurement is a process of its own, and ours and the peers' alternate, so that a change of the
//! machine's speed affects both. A ratio is the median of the ratios within each round.

mod caption;
mod caption_metrics;
mod clip;
mod data;
mod diffusion;
mod dist;
mod embed;
mod load;
mod program;
mod report;
mod rlhf;
mod search;
mod serve;
mod small;
mod start;
mod training;
mod vlm;
mod vqa;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::workspace::Workspace;

/// Options of `bench`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask bench clip --peer-python ~/peers/bin/python")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// CLIP ViT-B/32 with random weights: images, texts, training, start
    #[command(after_help = CLIP_HELP)]
    Clip(ClipOptions),
    /// Training the demo's model of 4 M parameters, with reading, decoding and augmentation
    #[command(after_help = SMALL_HELP)]
    Small(Compared),
    /// A folder of JPEGs through ViT-B/32, with reading and decoding; a 605 MB checkpoint from start to
    /// answer
    #[command(after_help = EMBED_HELP)]
    Embed(embed::Options),
    /// Training batches from shards of JPEGs; the shapes set, resuming, packing
    #[command(after_help = DATA_HELP)]
    Data(data::Options),
    /// Two processes beside one, the all-reduce beside torch.distributed's, and what saves memory: GradCache,
    /// gradient checkpointing, tiled losses
    #[command(after_help = DIST_HELP)]
    Dist(dist::Options),
    /// BLIP-base with random weights: captions of 8 images by beam search, training
    #[command(after_help = CAPTION_HELP)]
    Caption(caption::Options),
    /// BLEU, ROUGE-L and CIDEr-D of 5,000 images of COCO
    #[command(after_help = CAPTION_METRICS_HELP)]
    CaptionMetrics(caption_metrics::Options),
    /// BLIP-VQA base with random weights: answers to questions about 8 images, generated and ranked
    #[command(after_help = VQA_HELP)]
    Vqa(vqa::Options),
    /// SmolVLM-256M's sizes with random weights: the first token of an answer, those after it, training of
    /// adapters
    #[command(after_help = VLM_HELP)]
    Vlm(vlm::Options),
    /// Stable Diffusion 1.5 with random weights: a guided step of the U-Net, decoding to 512 x 512
    #[command(after_help = DIFFUSION_HELP)]
    Diffusion(diffusion::Options),
    /// DDPO and DiffusionNFT of the demo's model with random weights: roll-outs, updates
    #[command(after_help = RLHF_HELP)]
    Rlhf(rlhf::Options),
    /// An index of a million rows: exact search and the graph
    #[command(after_help = SEARCH_HELP)]
    Search(search::Options),
    /// Text embeddings over HTTP, 64 connections, beside the model alone and FastAPI
    #[command(after_help = SERVE_HELP)]
    Serve(serve::Options),
}

const CLIP_HELP: &str = "Examples:
  cargo xtask bench clip --peer-python ~/peers/bin/python
  cargo xtask bench clip --only images --only start --rounds 1

The peers' Python needs torch 2.13, transformers and open_clip_torch. A full run takes about half an hour and
replaces the table in docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const SMALL_HELP: &str = "Example:
  cargo xtask bench small --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and transformers. A run takes about three minutes and replaces the table in
docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const EMBED_HELP: &str = "Example:
  cargo xtask bench embed --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and transformers. With 2,000 images a round takes about a quarter of an
hour. The run replaces the table in docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const DATA_HELP: &str = "Example:
  cargo xtask bench data --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13, open_clip_torch and webdataset. A round takes about two minutes. The run
replaces the table in docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const DIST_HELP: &str = "Example:
  cargo xtask bench dist --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13. A round takes about six minutes. The run replaces the table in
docs/distributed.md. Use the machine for nothing else meanwhile.";

const CAPTION_HELP: &str = "Example:
  cargo xtask bench caption --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and transformers. The first run makes a model of 900 MB in cargo's target
folder. A round takes about ten minutes. The run replaces the tables in docs/benchmarks.md. Use the machine
for nothing else meanwhile. `bench caption-metrics` measures the metrics of captions.";

const CAPTION_METRICS_HELP: &str = "Example:
  cargo xtask bench caption-metrics --peer-python ~/peers/bin/python --rounds 5

The peer's Python needs pycocoevalcap 1.2 and numpy, and `java` on the PATH. A round takes about ten seconds.
The run replaces the table in docs/caption-metrics.md. Use the machine for nothing else meanwhile.";

const VQA_HELP: &str = "Example:
  cargo xtask bench vqa --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and transformers. The first run makes a model of 1.5 GB in cargo's target
folder. A round takes about ten minutes. The run replaces the tables in docs/benchmarks.md. Use the machine
for nothing else meanwhile.";

const VLM_HELP: &str = "Example:
  cargo xtask bench vlm --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13, transformers and peft. The first run makes a model of 1 GB in cargo's
target folder. A round takes about five minutes. The run replaces the tables in docs/benchmarks.md. Use the
machine for nothing else meanwhile.";

const DIFFUSION_HELP: &str = "Example:
  cargo xtask bench diffusion --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and diffusers 0.42. A round takes about four minutes and 5 GB of memory.
The run replaces the table in docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const RLHF_HELP: &str = "Example:
  cargo xtask bench rlhf --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13, diffusers 0.42 and transformers. A round takes about three minutes. The
run replaces the table in docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const SEARCH_HELP: &str = "Examples:
  cargo xtask bench search --peer-python ~/peers/bin/python --rounds 1
  cargo xtask bench search --peer-python ~/peers/bin/python --rows 100000

The peer's Python needs faiss-cpu and hnswlib. A round of a million rows takes about three quarters of an
hour, 12 GB of memory and 6 GB of disk in cargo's target folder. The run replaces the table in
docs/benchmarks.md. Use the machine for nothing else meanwhile.";

const SERVE_HELP: &str = "Example:
  cargo xtask bench serve --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13, transformers, fastapi and uvicorn. A round takes about a minute. The run
replaces the table in docs/benchmarks.md. Use the machine for nothing else meanwhile.";

/// The options that all benchmarks share.
#[derive(clap::Args)]
pub struct Output {
    /// Rounds of measurement; the medians are printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Options of a benchmark that can run without the peers.
#[derive(clap::Args)]
pub struct Compared {
    /// A Python with the peers; without it only mm is measured
    #[arg(long, value_name = "PYTHON")]
    peer_python: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Options of `bench clip`.
#[derive(clap::Args)]
pub struct ClipOptions {
    /// Measure only this work (images, texts77, texts, train or start) and leave docs/benchmarks.md unchanged
    #[arg(long, value_name = "WORK", value_parser = ["images", "texts77", "texts", "train", "start"])]
    only: Vec<String>,
    #[command(flatten)]
    compared: Compared,
}

impl Output {
    /// The number of each round, announced on standard error.
    fn rounds(&self) -> impl Iterator<Item = u32> {
        let rounds = self.rounds;
        (1..=rounds).inspect(move |round| eprintln!("round {round} of {rounds}"))
    }

    /// Prints a report as JSON or as Markdown.
    fn print(&self, report: &impl Serialize, markdown: &str) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(report)?);
        } else {
            print!("{markdown}");
        }
        Ok(())
    }
}

impl ClipOptions {
    fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == work)
    }
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    match &args.what {
        What::Clip(options) => clip::run(workspace, options),
        What::Small(options) => small::run(workspace, options),
        What::Embed(options) => embed::run(workspace, options),
        What::Data(options) => data::run(workspace, options),
        What::Dist(options) => dist::run(workspace, options),
        What::Caption(options) => caption::run(workspace, options),
        What::CaptionMetrics(options) => caption_metrics::run(workspace, options),
        What::Vqa(options) => vqa::run(workspace, options),
        What::Vlm(options) => vlm::run(workspace, options),
        What::Diffusion(options) => diffusion::run(workspace, options),
        What::Rlhf(options) => rlhf::run(workspace, options),
        What::Search(options) => search::run(workspace, options),
        What::Serve(options) => serve::run(workspace, options),
    }
}
