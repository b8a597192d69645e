//! `cargo xtask test` and `ci`.
//!
//! All steps share the release profile: torch-sys is then built once. RUSTFLAGS stays as it is, because another value would
//! build everything again; the lints are denied in the root `Cargo.toml` and on clippy's own command line.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::setup;
use crate::workspace::{Workspace, run as run_command};

/// Options of `test`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test -p mm-core losses")]
pub struct TestArgs {
    /// Passed to cargo test in place of --workspace
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

type Step = (&'static str, &'static [&'static str]);

const STEPS: [Step; 4] = [
    ("format", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"]),
    ("doc", &["doc", "--workspace", "--no-deps", "--release"]),
    ("test", &["test", "--workspace", "--release"]),
];

/// Runs `test`.
pub fn test(workspace: &Workspace, args: &TestArgs) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let mut cargo = workspace.cargo(Some(&libtorch));
    cargo.args(["test", "--release"]);
    if args.args.is_empty() {
        cargo.arg("--workspace");
    }
    run_command(cargo.args(&args.args))
}

/// Runs `ci`: stops at the first step that fails, and prints what each took.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut took = Vec::new();
    let failed = all_steps(workspace, &mut took);
    eprintln!();
    for (name, time) in &took {
        eprintln!("{name:<8} {:>8.1} s", time.as_secs_f64());
    }
    let total: Duration = took.iter().map(|(_, time)| *time).sum();
    eprintln!("{:<8} {:>8.1} s", "all", total.as_secs_f64());
    failed
}

fn all_steps(workspace: &Workspace, took: &mut Vec<(&'static str, Duration)>) -> Result<()> {
    let mut timed = |name, step: &mut dyn FnMut() -> Result<()>| {
        let start = Instant::now();
        eprintln!("== {name}");
        let done = step();
        took.push((name, start.elapsed()));
        done
    };
    let mut libtorch = None;
    timed("setup", &mut || {
        libtorch = Some(setup::ensure(workspace)?);
        Ok(())
    })?;
    for (name, args) in STEPS {
        let mut cargo = workspace.cargo(libtorch.as_ref());
        cargo.args(args);
        if name == "doc" {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        if timed(name, &mut || run_command(&mut cargo)).is_err() {
            bail!("ci stopped at {name}: see the messages above, and repeat it with `cargo {}`", args.join(" "));
        }
    }
    Ok(())
}
