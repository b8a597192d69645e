use crate::progress;
use anyhow::{Context, Result};
use mm_clip::{Embedded, EvalSet, ImageModel};
use mm_data::SourceConfig;
use mm_dist::Group;
use std::path::Path;

/// How images are read.
#[derive(clap::Args)]
pub struct ReadingArgs {
    /// Images or texts that are embedded at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Images that may be unreadable before the command fails; they are named and left out.
    #[arg(long, default_value_t = 0)]
    max_bad_samples: usize,
    /// Decode JPEGs that are several times as large as what the model sees at a half, a quarter or an eighth of their size: faster, and
    /// off by a level or two.
    #[arg(long)]
    fast_decode: bool,
}

impl ReadingArgs {
    /// Images or texts that are embedded at once.
    pub fn batch_size(&self) -> usize {
        self.batch_size as usize
    }

    /// Images that may be unreadable before the command fails.
    pub fn max_bad_samples(&self) -> usize {
        self.max_bad_samples
    }

    /// Embeds all images of `folder`, with a bar.
    pub fn embed(&self, model: &ImageModel, folder: &Path) -> Result<Embedded> {
        let set =
            EvalSet::open("images", &source(folder)?, [255; 3], self.max_bad_samples)?.fast_decode(self.fast_decode);
        let bar = progress::bar(set.len() as u64, "images");
        let mut progress = |done| bar.set_position(done as u64);
        let embedded = Embedded::read(model, None, &set, self.batch_size(), &Group::alone(), &mut progress)?;
        bar.finish_and_clear();
        Ok(embedded)
    }
}

fn source(folder: &Path) -> Result<SourceConfig> {
    let mut table = toml::Table::new();
    table.insert("kind".to_owned(), "folder".into());
    table.insert("path".to_owned(), folder.to_str().context("the folder's name is not UTF-8")?.into());
    Ok(table.try_into()?)
}
