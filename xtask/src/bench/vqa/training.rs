//! Training steps of MCAN-small, beside a plain PyTorch version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::ITERATIONS;
use crate::bench::program::{Sample, measured};
use crate::bench::report::{PeerResult, Row};
use crate::libtorch::Libtorch;
use crate::workspace::{Workspace, peer_script};

const PEER: &str = "PyTorch";
const TITLE: &str = "training MCAN-small, batch 64";

/// Our program and the peer's.
pub struct TrainingBench<'a> {
    workspace: &'a Workspace,
    libtorch: &'a Libtorch,
    example: PathBuf,
    python: &'a Path,
}

/// Both sides' samples in one precision, one a round.
#[derive(Default)]
pub struct TrainingSamples {
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

impl<'a> TrainingBench<'a> {
    pub fn new(workspace: &'a Workspace, libtorch: &'a Libtorch, python: &'a Path) -> Result<Self> {
        let example = workspace.build(libtorch, "mm-vqa", &["--example", "bench_mcan"])?;
        Ok(Self { workspace, libtorch, example, python })
    }

    /// Measures our program, then the peer.
    pub fn measure(&self, precision: &str, samples: &mut TrainingSamples) -> Result<()> {
        let run = |mut command: Command, name: &str| -> Result<Sample> {
            command.args(["--precision", precision]).args(ITERATIONS);
            let sample: Sample = measured(&mut command, &format!("{name} (MCAN {precision})"))?;
            eprintln!("  {name}, {TITLE}: {:.2} samples/s, {:.0} MB", sample.rate(), sample.peak_mb);
            Ok(sample)
        };
        let ours = run(self.workspace.program(&self.example, self.libtorch), "mm")?;
        let mut peer = peer_script(self.python, &self.workspace.path("xtask/peers/mcan.py"));
        // The products of both are the same.
        peer.args(["--gflop-per-iteration", &ours.gflop_per_iteration.to_string()]);
        samples.theirs.push(run(peer, PEER)?);
        samples.ours.push(ours);
        Ok(())
    }
}

impl TrainingSamples {
    /// The medians; `limit` is the matrix limit in GFLOP/s.
    pub fn row(&self, precision: &'static str, limit: f64) -> Row {
        let peer = PeerResult::new(PEER, &self.ours, &self.theirs, limit);
        Row::new([TITLE, precision, ""], &self.ours, limit, [peer])
    }

    #[cfg(test)]
    pub fn of(ours: Sample, theirs: Sample) -> Self {
        Self { ours: vec![ours], theirs: vec![theirs] }
    }
}
