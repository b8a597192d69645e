//! `cargo xtask train`, `eval` and a part of `data`: builds `mm` and runs it, once or, with `--nproc`, once
//! for each rank.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args as _;

use crate::libtorch::Libtorch;
use crate::pipeline::Pipeline;
use crate::ranks;
use crate::setup;
use crate::workspace::{Workspace, exec};

/// The arguments of `mm`.
#[derive(clap::Args)]
pub struct Args {
    /// Passed to mm unchanged
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

/// The arguments of `mm`, and of the process group that it may run in.
#[derive(clap::Args)]
pub struct GroupArgs {
    #[command(flatten)]
    group: ranks::Options,
    #[command(flatten)]
    mm: Args,
}

/// Runs the verb in one process. Does not return once `mm` starts.
pub fn run(workspace: &Workspace, command: &[&str], args: &Args) -> Result<()> {
    let (mm, libtorch) = build(workspace)?;
    exec(workspace.program(&mm, &libtorch).args(command).args(&args.args))
}

/// Runs the verb in the processes of `--nproc`, or else of `launch.nproc` in the configuration; in a single
/// process like [`run`].
pub fn run_group(workspace: &Workspace, command: &str, args: &GroupArgs) -> Result<()> {
    let nproc = match configuration(&args.mm.args) {
        Some(file) => Pipeline::read(Path::new(""), &file, &overrides(&args.mm.args))?.nproc,
        None => 1,
    };
    let Some(group) = args.group.group(nproc)? else { return run(workspace, &[command], &args.mm) };
    let (mm, libtorch) = build(workspace)?;
    ranks::run(&group, &|| {
        let mut program = workspace.program(&mm, &libtorch);
        program.arg(command).args(&args.mm.args);
        program
    })
}

/// The configuration among the arguments of `mm train` or `mm eval`: a `.toml` file, or that of a run's
/// folder. `mm` itself reports a missing one.
fn configuration(args: &[OsString]) -> Option<PathBuf> {
    let words = args.iter().filter(|arg| !arg.as_encoded_bytes().starts_with(b"-")).map(Path::new);
    let files = words.map(|path| if path.is_dir() { path.join("config.toml") } else { path.to_owned() });
    files.into_iter().find(|file| file.extension().is_some_and(|end| end == "toml") && file.is_file())
}

/// The values of `--set`.
fn overrides(args: &[OsString]) -> Vec<String> {
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let joined = args.iter().filter_map(|arg| arg.strip_prefix("--set="));
    let separate = args.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].as_ref());
    joined.chain(separate).map(str::to_owned).collect()
}

fn build(workspace: &Workspace) -> Result<(PathBuf, Libtorch)> {
    let libtorch = setup::ensure(workspace)?;
    Ok((workspace.build(&libtorch, "mm", &["--bin", "mm"])?, libtorch))
}

/// Moves the options of a process group before the arguments of `mm`: clap passes everything on from the
/// first argument that it does not know. Arguments after `--` stay as they are.
pub fn group_options_first(args: Vec<OsString>) -> Vec<OsString> {
    let Some(verb) = args.get(1).filter(|verb| *verb == "train" || *verb == "eval") else { return args };
    let known = ranks::Options::augment_args(clap::Command::new("group"));
    let known: Vec<_> = known.get_arguments().filter_map(|option| option.get_long()).collect();
    let mut first = vec![args[0].clone(), verb.clone()];
    let mut rest = Vec::new();
    let mut args = args.iter().skip(2);
    while let Some(arg) = args.next() {
        if arg == "--" {
            rest.push(arg.clone());
            rest.extend(args.cloned());
            break;
        }
        let option = arg.to_str().and_then(|arg| arg.strip_prefix("--")).unwrap_or_default();
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        if !known.contains(&name) {
            rest.push(arg.clone());
            continue;
        }
        let mut option = arg.clone();
        if value.is_none() {
            option.push("=");
            option.push(args.next().map(OsString::as_os_str).unwrap_or_default());
        }
        first.push(option);
    }
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let args = group_options_first(line.split(' ').map(OsString::from).collect());
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_options_of_a_group_are_found_among_those_of_mm() {
        assert_eq!(
            ordered("xtask train a.toml --nproc 2 --set a=b --rdzv=h:1 --json"),
            "xtask train --nproc=2 --rdzv=h:1 a.toml --set a=b --json"
        );
        assert_eq!(ordered("xtask eval runs/a --nproc"), "xtask eval --nproc= runs/a");
    }

    #[test]
    fn other_verbs_and_arguments_after_two_dashes_are_unchanged() {
        for line in ["xtask data show --nproc 2", "xtask train -- --nproc 2", "xtask"] {
            assert_eq!(ordered(line), line);
        }
    }
}
