//! `mm search export`.

use super::IndexArgs;
use crate::out::OutFile;
use crate::output;
use anyhow::Result;
use std::path::PathBuf;

/// Write the embeddings of an index for other engines, as Parquet or NumPy's .npy.
#[derive(clap::Args)]
#[command(
    after_help = "A .parquet file has the columns id, set, key, metadata (JSON) and embedding (a list of \
    f32). Beside a .npy file, [N, D] f32, stands a .keys.txt with the key of each row as a line of JSON.\n\n\
    Example: mm search export --index photos.index --out photos.parquet"
)]
pub struct Args {
    #[command(flatten)]
    index: IndexArgs,
    /// The file to write: .parquet or .npy.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let index = args.index.open()?;
    let out = OutFile::open(&args.out, &["parquet", "npy"])?;
    match out.extension() {
        "npy" => index.export_npy(out.path())?,
        _ => index.export_parquet(out.path())?,
    }
    output::print_line(format_args!("{} rows in {}", index.len()?, args.out.display()))
}
