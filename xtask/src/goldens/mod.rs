//! `cargo xtask goldens`: runs the scripts of `xtask/goldens`, which write the outputs of the Python peers,
//! or checks that the peers open the folders that `mm` writes.
//!
//! Each script takes one argument, the folder to write into. The old folder is replaced only if the script
//! succeeds.

mod check;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, run as run_command};

/// Options of `goldens`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask goldens clip --python ~/peers/bin/python\n  \
                  cargo xtask goldens --check --python ~/peers/bin/python")]
pub struct Args {
    /// The scripts of xtask/goldens to run, without .py; all by default
    names: Vec<String>,
    /// A Python with the peers (each script names the versions that it needs)
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Compute no goldens: convert them with mm, open them with the peers, and write the tables of
    /// docs/checkpoints.md
    #[arg(long, conflicts_with = "names")]
    check: bool,
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.check {
        return check::run(workspace, args);
    }
    let all = scripts(workspace)?;
    let names = if args.names.is_empty() { &all } else { &args.names };
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no script xtask/goldens/{unknown}.py; the scripts are {}", all.join(", "));
    }
    for name in names {
        make(workspace, args, name)?;
    }
    Ok(())
}

fn make(workspace: &Workspace, args: &Args, name: &str) -> Result<()> {
    let folder = workspace.path("data/goldens").join(name);
    let partial = workspace.path("data/goldens").join(format!(".{name}.partial"));
    let shown = workspace.show(&folder);
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    eprintln!("== {name}");
    let mut script = Command::new(&args.python);
    script.arg(workspace.path("xtask/goldens").join(format!("{name}.py"))).arg(&partial);
    if let Err(error) = run_command(&mut script) {
        let _ = fs::remove_dir_all(&partial);
        bail!("xtask/goldens/{name}.py failed ({error:#}): {shown} is unchanged");
    }
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&partial, &folder).with_context(|| format!("cannot make {shown}"))?;
    println!("{shown}");
    Ok(())
}

fn scripts(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.path("xtask/goldens");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let python = paths.filter(|path| path.extension().is_some_and(|extension| extension == "py"));
    let mut names: Vec<_> = python.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}
