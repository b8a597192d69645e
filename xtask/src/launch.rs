//! `cargo xtask train`, `eval` and a part of `data`: build `mm`, then become it.

use std::ffi::OsString;

use anyhow::Result;

use crate::setup;
use crate::workspace::{Workspace, exec};

/// What `mm` gets.
#[derive(clap::Args)]
pub struct Args {
    /// Passed to mm as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

/// Runs the verb: does not return where `mm` starts.
pub fn run(workspace: &Workspace, command: &[&str], args: &Args) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    exec(workspace.program(&mm, &libtorch).args(command).args(&args.args))
}
