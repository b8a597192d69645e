//! Images and folders of images as arguments.

use crate::progress::Bars;
use anyhow::{Context, Result, ensure};
use mm_clip::{Embedded, ImageEmbedder};
use mm_data::{BadSample, Dataset, DatasetConfig, ImageList};
use mm_dist::ProcessGroup;
use mm_train::{EvalContext, EvalSet, Progress};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The color behind transparent images.
const BACKGROUND: [u8; 3] = [255; 3];

/// How images are read.
#[derive(clap::Args)]
pub struct ReadingArgs {
    /// Images or texts that go through the model at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Images that may be unreadable: they are reported and skipped. With more, the command processes the
    /// others and exits with code 1.
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

    /// Embeds all images of `folder` that can be read, with a bar; [`ReadingArgs::check_bad`] is for
    /// the others.
    pub fn embed(&self, model: &ImageEmbedder, folder: &Path) -> Result<Embedded> {
        let name = folder.to_string_lossy();
        let set = self.decoded(EvalSet::open(&name, &dataset(folder)?, BACKGROUND, usize::MAX)?);
        let (group, bars) = (ProcessGroup::alone(), Bars::default());
        Ok(Embedded::embed_set(model, None, &set, &self.context(&group, &bars))?)
    }

    /// The images of `paths`, which are images and folders of them. [`ReadingArgs::check_bad`] is for those
    /// that cannot be read.
    pub fn image_list(&self, paths: &[PathBuf]) -> Result<EvalSet> {
        self.set("images", Arc::new(ImageList::open(paths)?))
    }

    /// The samples of `dataset`. [`ReadingArgs::check_bad`] is for those that cannot be read.
    pub fn set(&self, name: &str, dataset: Arc<dyn Dataset>) -> Result<EvalSet> {
        Ok(self.decoded(EvalSet::of_dataset(name, dataset, BACKGROUND, usize::MAX)?))
    }

    /// The set with its images decoded as the arguments say.
    fn decoded(&self, mut set: EvalSet) -> EvalSet {
        set.fast_decode = self.fast_decode;
        set
    }

    /// The context in which `group` reads a set in batches.
    pub fn context<'a>(&self, group: &'a ProcessGroup, progress: &'a dyn Progress) -> EvalContext<'a> {
        EvalContext { group, batch_size: self.batch_size(), wants_sections: false, progress }
    }
}

/// Unreadable images that an error lists.
const NAMED: usize = 3;

impl ReadingArgs {
    /// Fails where more of `total` images are `bad` than the arguments allow; `kept` says where the
    /// others are.
    pub fn check_bad(&self, bad: &[BadSample], total: usize, kept: &str) -> Result<()> {
        let (count, allowed) = (bad.len(), self.max_bad_samples);
        let first: Vec<String> =
            bad.iter().take(NAMED).map(|bad| format!("{}: {}", bad.key, bad.reason)).collect();
        let more = if count > NAMED { "; ..." } else { "" };
        ensure!(
            count <= allowed,
            "{count} of {total} images cannot be read, more than --max-bad-samples {allowed} ({}{more}); \
             {kept}: repair or remove the \
             unreadable ones, or allow them with --max-bad-samples {count}",
            first.join("; ")
        );
        Ok(())
    }
}

fn dataset(folder: &Path) -> Result<DatasetConfig> {
    let mut table = toml::Table::new();
    table.insert("kind".to_owned(), "folder".into());
    table.insert("path".to_owned(), folder.to_str().context("the folder's name is not UTF-8")?.into());
    Ok(table.try_into()?)
}
