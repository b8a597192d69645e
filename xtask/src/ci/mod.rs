//! `cargo xtask test` and `ci`.
//!
//! All steps share the release profile, so that torch-sys is built once. RUSTFLAGS is not changed, because
//! another value would build everything again; lints are denied in the root `Cargo.toml` and on clippy's
//! command line. `ci` builds once, from nothing: it leaves out what only a second build or a debugger needs,
//! which is more than half of the disk space.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::tidy;
use crate::workspace::{Ended, Workspace, run as run_command};

mod failures;

/// Options of `test`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test -p mm-core losses")]
pub struct TestArgs {
    /// Passed to cargo test instead of --workspace
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Run all tests, also after a failure.
const KEEP_GOING: &str = "--no-fail-fast";

/// Settings of cargo for a target folder that is built once.
const BUILT_ONCE: [(&str, &str); 2] = [("CARGO_INCREMENTAL", "0"), ("CARGO_PROFILE_RELEASE_DEBUG", "none")];

type Step = (&'static str, &'static [&'static str]);

const STEPS: [Step; 4] = [
    ("format", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"]),
    ("doc", &["doc", "--workspace", "--no-deps", "--release"]),
    ("test", &["test", "--workspace", "--release", KEEP_GOING]),
];

/// Runs `test`.
pub fn test(workspace: &Workspace, args: &TestArgs) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let mut cargo = workspace.cargo(Some(&libtorch));
    cargo.args(["test", "--release"]);
    if !args.args.iter().any(|arg| arg == KEEP_GOING) {
        cargo.arg(KEEP_GOING);
    }
    if args.args.is_empty() {
        cargo.arg("--workspace");
    }
    run_tests(cargo.args(&args.args))
}

/// Runs a `cargo test`. Its error ends with the list of failed tests.
fn run_tests(cargo: &mut Command) -> Result<()> {
    let (status, failures) = failures::watch(cargo)?;
    let lines = failures.lines();
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if lines.is_empty() => Err(Ended(code.clamp(1, 255) as u8).into()),
        Some(_) => bail!(
            "{} failed; `cargo xtask test` repeats each with these arguments:\n  {}",
            lines.len(),
            lines.join("\n  ")
        ),
        None => bail!("cargo test was killed ({status})"),
    }
}

/// Runs `ci`: stops at the first step that fails, and prints the time of each step.
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
    timed("tidy", &mut || tidy::run(workspace, &tidy::Args::default())).context("ci stopped at tidy")?;
    let mut libtorch = None;
    timed("setup", &mut || {
        libtorch = Some(setup::ensure(workspace)?);
        Ok(())
    })?;
    for (name, args) in STEPS {
        let mut cargo = workspace.cargo(libtorch.as_ref());
        cargo.args(args).envs(BUILT_ONCE);
        if name == "doc" {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        let run: fn(&mut Command) -> Result<()> = if name == "test" { run_tests } else { run_command };
        match timed(name, &mut || run(&mut cargo)) {
            Ok(()) => {}
            Err(error) if name == "test" && !error.is::<Ended>() => {
                return Err(error.context("ci stopped at test"));
            }
            Err(_) => bail!(
                "ci stopped at {name}: see the messages above, and repeat it with `cargo {}`",
                args.join(" ")
            ),
        }
    }
    Ok(())
}
