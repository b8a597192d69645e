use crate::progress;
use anyhow::{Context, Result, ensure};
use mm_clip::{Embedded, EvalSet, ImageEmbedder};
use mm_data::{BadSample, DatasetConfig};
use mm_dist::ProcessGroup;
use std::path::Path;

/// How images are read.
#[derive(clap::Args)]
pub struct ReadingArgs {
    /// Images or texts that are embedded at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Images that may be unreadable: they are named and left out. With more, the command does what it can
    /// and ends with exit code 1.
    #[arg(long, default_value_t = 0)]
    max_bad_samples: usize,
    /// Decode JPEGs that are several times as large as what the model sees at a half, a quarter or an eighth
    /// of their size: faster, and off by a level or two.
    #[arg(long)]
    fast_decode: bool,
}

impl ReadingArgs {
    /// Images or texts that are embedded at once.
    pub fn batch_size(&self) -> usize {
        self.batch_size as usize
    }

    /// Embeds all images of `folder` that can be read, with a bar; [`ReadingArgs::check_bad`] judges the
    /// others.
    pub fn embed(&self, model: &ImageEmbedder, folder: &Path) -> Result<Embedded> {
        let set = EvalSet::open(&folder.to_string_lossy(), &source(folder)?, [255; 3], usize::MAX)?;
        let set = set.fast_decode(self.fast_decode);
        let bar = progress::bar(set.len() as u64, "images");
        let mut progress = |done| bar.set_position(done as u64);
        let embedded =
            Embedded::embed_set(model, None, &set, self.batch_size(), &ProcessGroup::alone(), &mut progress)?;
        bar.finish_and_clear();
        Ok(embedded)
    }
}

/// Unreadable images that an error names.
const NAMED: usize = 3;

impl ReadingArgs {
    /// Fails where more of `total` images are `bad` than the arguments allow; `kept` says what became of the
    /// others.
    pub fn check_bad(&self, bad: &[BadSample], total: usize, kept: &str) -> Result<()> {
        let (count, allowed) = (bad.len(), self.max_bad_samples);
        let first: Vec<String> =
            bad.iter().take(NAMED).map(|bad| format!("{}: {}", bad.key, bad.reason)).collect();
        let more = if count > NAMED { "; ..." } else { "" };
        ensure!(
            count <= allowed,
            "{count} of {total} images cannot be read, more than --max-bad-samples {allowed} ({}{more}); {kept}: repair or remove the \
             unreadable ones, or allow them with --max-bad-samples {count}",
            first.join("; ")
        );
        Ok(())
    }
}

fn source(folder: &Path) -> Result<DatasetConfig> {
    let mut table = toml::Table::new();
    table.insert("kind".to_owned(), "folder".into());
    table.insert("path".to_owned(), folder.to_str().context("the folder's name is not UTF-8")?.into());
    Ok(table.try_into()?)
}
