//! `cargo xtask train`, `eval` and a part of `data`: build `mm`, then become it, or with `--nproc` start it
//! once for each rank.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args as _;

use crate::libtorch::Libtorch;
use crate::ranks;
use crate::setup;
use crate::workspace::{Workspace, exec};

/// What `mm` gets.
#[derive(clap::Args)]
pub struct Args {
    /// Passed to mm as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

/// What `mm` gets where it can be one of several processes.
#[derive(clap::Args)]
pub struct GroupArgs {
    #[command(flatten)]
    group: ranks::Options,
    #[command(flatten)]
    mm: Args,
}

/// Runs the verb: does not return where `mm` starts.
pub fn run(workspace: &Workspace, command: &[&str], args: &Args) -> Result<()> {
    let (mm, libtorch) = build(workspace)?;
    exec(workspace.program(&mm, &libtorch).args(command).args(&args.args))
}

/// Runs the verb in as many processes as are asked for; without `--nproc` like [`run`].
pub fn run_group(workspace: &Workspace, command: &str, args: &GroupArgs) -> Result<()> {
    let Some(group) = args.group.group()? else { return run(workspace, &[command], &args.mm) };
    let (mm, libtorch) = build(workspace)?;
    ranks::run(&group, &|| {
        let mut program = workspace.program(&mm, &libtorch);
        program.arg(command).args(&args.mm.args);
        program
    })
}

fn build(workspace: &Workspace) -> Result<(PathBuf, Libtorch)> {
    let libtorch = setup::ensure(workspace)?;
    Ok((workspace.build(&libtorch, "mm", &["--bin", "mm"])?, libtorch))
}

/// Puts the options of a group before the arguments of `mm`, wherever they stand among them: clap passes all
/// on from the first that is not its own. What stands behind `--` is left alone.
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
        let mut whole = arg.clone();
        if value.is_none() {
            whole.push("=");
            whole.push(args.next().map(OsString::as_os_str).unwrap_or_default());
        }
        first.push(whole);
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
    fn the_groups_options_are_found_among_those_of_mm() {
        assert_eq!(
            ordered("xtask train a.toml --nproc 2 --set a=b --rdzv=h:1 --json"),
            "xtask train --nproc=2 --rdzv=h:1 a.toml --set a=b --json"
        );
        assert_eq!(ordered("xtask eval runs/a --nproc"), "xtask eval --nproc= runs/a");
    }

    #[test]
    fn other_verbs_and_what_follows_two_dashes_stay_as_they_are() {
        for line in ["xtask data show --nproc 2", "xtask train -- --nproc 2", "xtask"] {
            assert_eq!(ordered(line), line);
        }
    }
}
