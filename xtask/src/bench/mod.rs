//! `cargo xtask bench`: our speed beside the machine's limit and beside the Python peers, in one run.
//!
//! Every measurement is a process of its own, and ours and the peers' take turns, so that a machine that
//! slows down slows all of them down. A ratio is the median of the ratios within each round.

mod clip;
mod data;
mod dist;
mod embed;
mod program;
mod report;
mod small;
mod start;

use std::path::PathBuf;

use anyhow::Result;

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
    /// Training the demo's model: 4 M parameters, read, decoded and augmented meanwhile
    #[command(after_help = SMALL_HELP)]
    Small(Compared),
    /// A folder of JPEGs through ViT-B/32, read and decoded meanwhile; a 605 MB checkpoint from start to
    /// answer
    #[command(after_help = EMBED_HELP)]
    Embed(embed::Options),
    /// Shards of JPEGs to training batches; drawn scenes, resuming, packing
    #[command(after_help = DATA_HELP)]
    Data(data::Options),
    /// Two processes beside one, sums beside torch.distributed's, and what saves memory: GradCache,
    /// recomputation, tiled losses
    #[command(after_help = DIST_HELP)]
    Dist(dist::Options),
}

const CLIP_HELP: &str = "Examples:
  cargo xtask bench clip --peer-python ~/peers/bin/python
  cargo xtask bench clip --only images --only start --rounds 1

The peers' Python needs torch 2.13, transformers and open_clip_torch. A run of everything takes about half an hour and replaces
the table in docs/benchmarks.md; leave the machine alone meanwhile.";

const SMALL_HELP: &str = "Example:
  cargo xtask bench small --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and transformers. A run takes about three minutes and replaces the table in docs/benchmarks.md;
leave the machine alone meanwhile.";

const EMBED_HELP: &str = "Example:
  cargo xtask bench embed --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13 and transformers. A run with 2,000 images takes about a quarter of an hour a round and replaces the
table in docs/benchmarks.md; leave the machine alone meanwhile.";

const DATA_HELP: &str = "Example:
  cargo xtask bench data --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13, open_clip_torch and webdataset. A run takes about two minutes a round and replaces the table in
docs/benchmarks.md; leave the machine alone meanwhile.";

const DIST_HELP: &str = "Example:
  cargo xtask bench dist --peer-python ~/peers/bin/python

The peer's Python needs torch 2.13. A run takes about six minutes a round and replaces the table in docs/distributed.md; leave the
machine alone meanwhile.";

/// What every benchmark can be told of its results.
#[derive(clap::Args)]
pub struct Output {
    /// How often all is measured; the medians are printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Options of a benchmark that can do without the peers.
#[derive(clap::Args)]
pub struct Compared {
    /// A Python that has the peers; without it only ours is measured
    #[arg(long, value_name = "PYTHON")]
    peer_python: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Options of `bench clip`.
#[derive(clap::Args)]
pub struct ClipOptions {
    /// Measure only these kinds of work (images, texts77, texts, train, start); docs/benchmarks.md then stays
    /// as it is
    #[arg(long, value_name = "WORK", value_parser = ["images", "texts77", "texts", "train", "start"])]
    only: Vec<String>,
    #[command(flatten)]
    compared: Compared,
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
    }
}
