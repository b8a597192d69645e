//! `mm search`: an index of images, and queries to it.

mod duplicates;
mod eval;
mod export;
mod found;
mod index;
mod query;

use crate::model::ModelArgs;
use anyhow::Result;
use mm_clip::ClipPipeline;
use mm_search::{IndexDescription, IndexLocation, SearchIndex};

/// Index images, and find them by text, by image or by both.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
                        mm search index --model DIR --data photos/ --index photos.index\n  \
                        mm search query --index photos.index \"a dog on the beach\"\n\n\
                        An index is a folder, or a table of PostgreSQL with pgvector: --index \
                        postgres://user@host/database?table=NAME. The password is that of PGPASSWORD or of \
                        ~/.pgpass.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Index(index::Args),
    Query(query::Args),
    Duplicates(duplicates::Args),
    Eval(eval::Args),
    Export(export::Args),
}

/// The index.
#[derive(clap::Args)]
struct IndexArgs {
    /// The index: a folder, or a table of PostgreSQL, postgres://user@host/database?table=NAME.
    #[arg(long, value_name = "DIR|URL")]
    index: String,
}

impl IndexArgs {
    /// The place of the index. It is read here: a message of clap would repeat a password.
    fn location(&self) -> Result<Box<dyn IndexLocation>> {
        Ok(mm_search::index_location(&self.index)?)
    }

    /// Opens the index.
    fn open(&self) -> Result<Box<dyn SearchIndex>> {
        Ok(self.location()?.open()?)
    }
}

/// How much of the graph is searched.
#[derive(clap::Args)]
struct CandidateArgs {
    /// Candidates that the graph gives: more of them miss less and take longer.
    #[arg(long, value_name = "N", default_value_t = mm_search::CANDIDATES)]
    candidates: usize,
    /// Compare every row, as without a graph.
    #[arg(long, conflicts_with = "candidates")]
    exact: bool,
}

impl CandidateArgs {
    fn candidates(&self) -> Option<usize> {
        (!self.exact).then_some(self.candidates)
    }
}

/// `--model` of a command that takes that of the index by itself.
fn own_model(model: clap::Arg) -> clap::Arg {
    model.required(false).default_value("").hide_default_value(true).help(
        "The model [default: that of the index]: a folder as transformers or open_clip save it or with \
         OpenAI's weights, or a hub name",
    )
}

/// Opens the model that embeds queries: that of the arguments, else the one that the index names.
fn open_model(model: &ModelArgs, index: &IndexArgs, opened: &dyn SearchIndex) -> Result<ClipPipeline> {
    let name = Some(model.name()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| opened.description().model.clone());
    let pipeline = model.open_clip(&name)?;
    let dim = pipeline.image.encoder.output_width() as usize;
    let description = IndexDescription::new(&name, dim, opened.description().rows)?;
    opened.description().accept_model(index.location()?.name().as_ref(), &description)?;
    Ok(pipeline)
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Index(args) => index::run(args),
        Command::Query(args) => query::run(args),
        Command::Duplicates(args) => duplicates::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Export(args) => export::run(args),
    }
}
