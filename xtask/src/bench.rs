//! stub
use crate::workspace::Workspace;
use anyhow::Result;
/// o
#[derive(clap::Args)]
pub struct Args {}
/// r
pub fn run(_: &Workspace, _: &Args) -> Result<()> {
    Ok(())
}
