//! `mm probe`: a linear classifier on frozen embeddings.

use crate::model::ModelArgs;
use crate::out::OutFile;
use crate::reading::ReadingArgs;
use crate::{output, table};
use anyhow::{Context, Result};
use mm_clip::{Confusion, Embedded, LabelledFeatures, LinearProbe, ProbeConfig, sweep_c};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Measure an image tower by a linear classifier on its frozen embeddings.
#[derive(clap::Args)]
#[command(after_help = "A folder holds a folder a class. C is the inverse penalty of scikit-learn's \
    LogisticRegression; without --c it is the \
                  best of a sweep from 1e-6 to 1e6 on a tenth of the training images, set apart.\n\n\
                  Example: mm probe --model runs/demo/model --train pets/train --test pets/test")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of the training images.
    #[arg(long, value_name = "DIR")]
    train: PathBuf,
    /// Folder of the test images.
    #[arg(long, value_name = "DIR")]
    test: PathBuf,
    /// Inverse penalty [default: the best of a sweep].
    #[arg(long)]
    c: Option<f64>,
    /// Seed of the split that the sweep validates on.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the classifier in .safetensors: `weight` and `bias`, a row a class, and the names of the classes
    /// as metadata.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// Confused pairs of classes that are printed.
const CONFUSED: usize = 5;

pub fn run(args: &Args) -> Result<()> {
    let out = args.out.as_deref().map(|out| OutFile::open(out, &["safetensors"])).transpose()?;
    let model = args.model.open_image()?;
    let embed = |folder: &Path| {
        let embedded = args.reading.embed(&model, folder)?;
        let total = embedded.samples.len() + embedded.bad.len();
        args.reading.check_bad(&embedded.bad, total, "nothing was measured")?;
        anyhow::Ok(embedded)
    };
    let (train, test) = (embed(&args.train)?, embed(&args.test)?);
    let classes: Vec<&str> =
        labels(&train, &args.train)?.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let (train, test) = (labelled(&train, &args.train, &classes)?, labelled(&test, &args.test, &classes)?);
    let config = ProbeConfig::default();
    let (probe, c, tried) = match args.c {
        Some(c) => (LinearProbe::fit(&train, c, &config)?, c, Vec::new()),
        None => {
            let (kept, apart) = train.split(args.seed)?;
            let (probe, sweep) = sweep_c(&kept, &apart, &config)?;
            (probe, sweep.best.c, sweep.tried)
        }
    };
    let confusion = probe.evaluate(&test)?;
    if let Some(out) = &out {
        probe.save(out.path(), &classes)?;
    }
    if args.json {
        let sweep: Vec<_> = tried
            .iter()
            .map(
                |tried| serde_json::json!({ "c": tried.c, "validation_accuracy": tried.validation_accuracy }),
            )
            .collect();
        let report = serde_json::json!({
            "accuracy": confusion.accuracy(), "mean_per_class_accuracy":
             confusion.mean_per_class_accuracy(), "c": c,
            "classes": classes, "train": train.len(), "test": test.len(), "iterations": probe.iterations,
            "converged": probe.converged, "sweep": sweep,
        });
        return output::print_line(report);
    }
    let rows: Vec<Vec<String>> = tried
        .iter()
        .map(|tried| {
            let mark = if tried.c == c { "chosen" } else { "" };
            vec![format!("{:.2e}", tried.c), table::percent(tried.validation_accuracy), mark.to_owned()]
        })
        .collect();
    if !rows.is_empty() {
        output::print_line(table::render(&["C", "on a tenth set apart", ""], &rows))?;
    }
    output::print(&summary(&confusion, &classes, &probe, c, (train.len(), test.len())))
}

fn summary(
    confusion: &Confusion,
    classes: &[&str],
    probe: &LinearProbe,
    c: f64,
    (train, test): (usize, usize),
) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let stopped = if probe.converged { "" } else { ", not converged" };
    let rows = [
        row("accuracy", table::percent(confusion.accuracy())),
        row("accuracy, mean of the classes", table::percent(confusion.mean_per_class_accuracy())),
        row("C", format!("{c:.3e}{stopped}")),
        row("classes", classes.len().to_string()),
        row("images to learn from", train.to_string()),
        row("images to be judged on", test.to_string()),
    ];
    let mut text = table::render(&["linear probe", ""], &rows);
    let confused = confusion.most_confused(CONFUSED);
    if !confused.is_empty() {
        let rows: Vec<Vec<String>> = confused
            .into_iter()
            .map(|(truth, said, count)| {
                vec![classes[truth].to_owned(), classes[said].to_owned(), count.to_string()]
            })
            .collect();
        text += &format!("\n{}", table::render(&["most often, this", "was taken for", "times"], &rows));
    }
    text
}

/// The class of each image.
fn labels<'a>(embedded: &'a Embedded, folder: &Path) -> Result<Vec<&'a str>> {
    let label = |sample: &'a mm_clip::EvalSample| {
        let problem = || format!("{} lies in no folder of a class below {}", sample.key, folder.display());
        sample.label.as_deref().with_context(problem)
    };
    embedded.samples.iter().map(label).collect()
}

fn labelled(embedded: &Embedded, folder: &Path, classes: &[&str]) -> Result<LabelledFeatures> {
    let number = |label: &str| {
        let problem = || format!("class {label} of {} is none of those to learn from", folder.display());
        classes.binary_search(&label).ok().with_context(problem)
    };
    let numbers = labels(embedded, folder)?.into_iter().map(number).collect::<Result<Vec<_>>>()?;
    Ok(LabelledFeatures::new(&embedded.images, &numbers, classes.len())?)
}
