//! The programs that measure, and the line of JSON that each prints.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::workspace::{peer_script, stdout_of};

/// A program that measures: our own or a peer's.
pub struct Program {
    /// The name in tables.
    pub name: &'static str,
    executable: PathBuf,
    side: Side,
    captions: PathBuf,
    folder: Option<PathBuf>,
}

enum Side {
    /// With the folder of libtorch's libraries.
    Ours(PathBuf),
    /// With the script that the executable, a Python, runs.
    Peer(PathBuf),
}

/// The work of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    pub name: &'static str,
    pub precision: &'static str,
    pub iterations: u32,
    pub warmup: u32,
}

impl Work {
    /// Work with its iterations and the warm-up before them.
    pub fn new(name: &'static str, precision: &'static str, (iterations, warmup): (u32, u32)) -> Self {
        Self { name, precision, iterations, warmup }
    }
}

/// The output of a program.
#[derive(Deserialize, Clone, Debug)]
pub struct Sample {
    items_per_iteration: f64,
    #[serde(deserialize_with = "some_seconds")]
    seconds: Vec<f64>,
    /// Of matrix products.
    pub gflop_per_iteration: f64,
    /// Peak memory of the process, in MB.
    pub peak_mb: f64,
}

/// The seconds of at least one iteration.
fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let seconds = Vec::deserialize(deserializer)?;
    if seconds.is_empty() { Err(D::Error::custom("no iteration was timed")) } else { Ok(seconds) }
}

impl Sample {
    /// Items per second in the median iteration.
    pub fn rate(&self) -> f64 {
        self.items_per_iteration / median(&self.seconds)
    }

    /// GFLOP/s in the median iteration.
    pub fn gflops(&self) -> f64 {
        self.gflop_per_iteration / median(&self.seconds)
    }
}

impl Program {
    /// Our own benchmark, an example program of mm-clip.
    pub fn ours(executable: PathBuf, lib: PathBuf, captions: PathBuf) -> Self {
        Self { name: "mm", executable, side: Side::Ours(lib), captions, folder: None }
    }

    /// A peer, measured by a script of `xtask/peers` in the user's Python.
    pub fn peer(name: &'static str, python: &Path, script: PathBuf, captions: PathBuf) -> Self {
        Self { name, executable: python.to_path_buf(), side: Side::Peer(script), captions, folder: None }
    }

    /// Runs in `folder` instead of the user's folder.
    pub fn in_folder(self, folder: PathBuf) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Runs the work in a process of its own.
    pub fn measure(&self, work: Work) -> Result<Sample> {
        let mut command;
        match &self.side {
            Side::Ours(lib) => {
                command = Command::new(&self.executable);
                command.env("LD_LIBRARY_PATH", lib);
            }
            Side::Peer(script) => {
                command = peer_script(&self.executable, script);
                command.arg(self.name);
            }
        }
        command.args([work.name, "--precision", work.precision]);
        command.args(["--iterations", &work.iterations.to_string(), "--warmup", &work.warmup.to_string()]);
        command.arg("--captions").arg(&self.captions);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let what = format!("{} ({} {})", self.name, work.name, work.precision);
        measured(&mut command, &what)
    }

    /// The matrix limit in GFLOP/s, by our `bench_clip`.
    pub fn limit(&self, precision: &'static str) -> Result<f64> {
        Ok(self.measure(Work::new("limit", precision, (20, 5)))?.gflops())
    }

    /// All precisions; bf16 only where its products are as fast as f32's.
    pub fn precisions(&self) -> Result<Vec<&'static str>> {
        precisions(&["f32", "bf16", "int8"], |precision| self.limit(precision))
    }
}

/// The last line that a program prints, in JSON. `what` names its work in errors.
///
/// # Errors
/// The program fails, or the line has other fields than `T`.
pub fn measured<T: DeserializeOwned>(command: &mut Command, what: &str) -> Result<T> {
    let printed = stdout_of(command, &format!("{what} failed"))?;
    parse(&printed).with_context(|| format!("{what} printed no measurement"))
}

fn parse<T: DeserializeOwned>(stdout: &str) -> Result<T> {
    let line = stdout.lines().last().context("nothing on its standard output")?;
    Ok(serde_json::from_str(line)?)
}

/// The median of the values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Those of `all` precisions to compare in: bf16 only where its products are as fast as those of f32, which
/// `limit` measures.
pub fn precisions(
    all: &[&'static str],
    limit: impl Fn(&'static str) -> Result<f64>,
) -> Result<Vec<&'static str>> {
    let has_bf16 = limit("bf16")? >= limit("f32")?;
    Ok(all.iter().copied().filter(|precision| has_bf16 || *precision != "bf16").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_median_iteration() {
        let line = r#"{"items_per_iteration":16,"seconds":[2,1,9],"peak_mb":1200,"gflop_per_iteration":140}"#;
        let sample: Sample = parse(&format!("a warning of a library\n{line}\n")).unwrap();
        assert_eq!((sample.rate(), sample.gflops()), (8.0, 70.0));
        assert!(parse::<Sample>("").is_err());
        assert!(parse::<Sample>(&line.replace("[2,1,9]", "[]")).is_err());
    }

    #[test]
    fn the_median_of_an_even_number_of_values_is_a_mean_of_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
