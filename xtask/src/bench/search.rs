//! `bench search`: an index of synthetic rows beside faiss and hnswlib.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{measured, median};
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, stdout_of};

/// Options of `bench search`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peers
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// Rows of 512 numbers
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(10_000..))]
    rows: u32,
    #[command(flatten)]
    output: Output,
}

/// The recalls at which graphs are compared.
const RECALLS: [f64; 2] = [0.95, 0.99];

/// Programs with a graph, ours first, and those that compare every row.
const GRAPHS: [&str; 3] = ["mm", "hnswlib", "faiss-hnsw"];
const FLATS: [&str; 2] = ["mm", "faiss-flat"];

/// The output of a program.
#[derive(Clone, Debug, Deserialize)]
struct Run {
    build_seconds: f64,
    memory_mb: f64,
    /// Pages of mapped files, which the system may drop at any time.
    #[serde(default)]
    mapped_mb: f64,
    searches: Vec<Search>,
}

/// The output of our program when it builds.
#[derive(Deserialize)]
struct Built {
    rows_seconds: f64,
    build_seconds: f64,
}

/// All queries with one width of the beam.
#[derive(Clone, Debug, Deserialize)]
struct Search {
    width: u32,
    recall: f64,
    per_second: f64,
}

/// One program: medians over the rounds.
#[derive(Serialize)]
struct Row {
    program: &'static str,
    /// None of exact search.
    build_seconds: Option<f64>,
    memory_mb: f64,
    mapped_mb: f64,
    /// Queries per second at each of the recalls, with the width that gives it; one figure for exact search.
    rates: Vec<Option<(f64, u32)>>,
}

#[derive(Serialize)]
struct SearchReport {
    date: String,
    processor: String,
    rows: u32,
    /// Storing rows and items, apart from the graph.
    rows_seconds: f64,
    graphs: Vec<Row>,
    flats: Vec<Row>,
}

/// The programs and their files.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    example: PathBuf,
    folder: PathBuf,
    python: &'a Path,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-search", &["--example", "bench_search"])?;
    let folder = example.with_file_name(format!("bench_search_{}", options.rows));
    let bench = Bench { workspace, libtorch, example, folder, python: &options.peer_python };
    if !bench.folder.join("queries.f32").exists() {
        let mut rows = bench.ours("rows");
        rows.arg(options.rows.to_string());
        stdout_of(&mut rows, "bench_search cannot write its rows")?;
    }
    let (mut graphs, mut flats) = (vec![Vec::new(); GRAPHS.len()], vec![Vec::new(); FLATS.len()]);
    let mut rows_seconds = Vec::new();
    for _ in options.output.rounds() {
        let built: Built = measured(&mut bench.ours("build"), "mm (build)")?;
        rows_seconds.push(built.rows_seconds);
        for (programs, runs, kind) in [(&FLATS[..], &mut flats, "exact"), (&GRAPHS[..], &mut graphs, "graph")]
        {
            for (program, runs) in programs.iter().zip(runs.iter_mut()) {
                let mut run = bench.measure(program, kind)?;
                if *program == "mm" {
                    run.build_seconds = built.build_seconds;
                }
                let best = run.searches.last().map_or(0.0, |search| search.per_second);
                eprintln!("  {program}, {kind}: built in {:.0} s, {best:.0} queries/s", run.build_seconds);
                runs.push(run);
            }
        }
    }
    let report = SearchReport {
        date: today(),
        processor: processor::name(),
        rows: options.rows,
        rows_seconds: median(&rows_seconds),
        graphs: GRAPHS.iter().zip(&graphs).map(|(name, runs)| Row::of_graph(name, runs)).collect(),
        flats: FLATS
            .iter()
            .zip(&flats)
            .map(|(name, runs)| Row::of_flat(name, runs))
            .collect::<Result<_>>()?,
    };
    let text = report.markdown();
    write_section(&workspace.path("docs/benchmarks.md"), "bench search", &text)?;
    options.output.print(&report, &text)
}

impl Bench<'_> {
    fn ours(&self, work: &str) -> Command {
        let mut command = self.workspace.program(&self.example, &self.libtorch);
        command.arg(work).arg(&self.folder);
        command
    }

    /// Measures `program`, whose index is built by itself if it is a peer.
    fn measure(&self, program: &str, kind: &str) -> Result<Run> {
        let mut command = match program {
            "mm" => {
                let mut ours = self.ours("search");
                ours.arg(kind);
                ours
            }
            peer => {
                let mut script = peer_script(self.python, &self.workspace.path("xtask/peers/search.py"));
                script.arg(peer);
                script.args(["rows.f32", "queries.f32", "truth.u64"].map(|file| self.folder.join(file)));
                script
            }
        };
        let run: Run = measured(&mut command, &format!("{program} ({kind})"))?;
        ensure!(!run.searches.is_empty(), "{program} ({kind}) searched nothing");
        Ok(run)
    }
}

/// The greatest rate of a run at `recall` or more, with its width.
fn rate_at(run: &Run, recall: f64) -> Option<(f64, u32)> {
    let enough = run.searches.iter().filter(|search| search.recall >= recall);
    let best = enough.max_by(|a, b| a.per_second.total_cmp(&b.per_second))?;
    Some((best.per_second, best.width))
}

impl Row {
    fn of_graph(program: &'static str, runs: &[Run]) -> Self {
        let at = |recall: &f64| -> Option<(f64, u32)> {
            let rates: Option<Vec<(f64, u32)>> = runs.iter().map(|run| rate_at(run, *recall)).collect();
            let rates = rates?;
            let rate = median(&rates.iter().map(|(rate, _)| *rate).collect::<Vec<_>>());
            Some((rate, rates.first()?.1))
        };
        Self {
            program,
            build_seconds: Some(middle(runs, |run| run.build_seconds)),
            memory_mb: middle(runs, |run| run.memory_mb),
            mapped_mb: middle(runs, |run| run.mapped_mb),
            rates: RECALLS.iter().map(at).collect(),
        }
    }

    fn of_flat(program: &'static str, runs: &[Run]) -> Result<Self> {
        let rate = |run: &Run| run.searches.first().map_or(0.0, |search| search.per_second);
        let first = runs.first().and_then(|run| run.searches.first());
        let width = first.context("no round was measured")?.width;
        Ok(Self {
            program,
            build_seconds: None,
            memory_mb: middle(runs, |run| run.memory_mb),
            mapped_mb: middle(runs, |run| run.mapped_mb),
            rates: vec![Some((middle(runs, rate), width))],
        })
    }
}

impl Row {
    /// With the mapped pages.
    fn whole_mb(&self) -> f64 {
        self.memory_mb + self.mapped_mb
    }

    fn memory(&self) -> String {
        match self.mapped_mb {
            0.0 => format!("{:.0}", self.memory_mb),
            mapped => format!("{:.0} + {mapped:.0}", self.memory_mb),
        }
    }
}

fn middle(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    median(&runs.iter().map(figure).collect::<Vec<_>>())
}

impl SearchReport {
    fn markdown(&self) -> String {
        let ratio = |ours: Option<f64>, theirs: Option<f64>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => format!("{:.2}x", ours / theirs),
            _ => String::new(),
        };
        let rate = |row: &Row, at: usize| row.rates.get(at).copied().flatten().map(|(rate, _)| rate);
        let shown = |row: &Row, at: usize| match row.rates.get(at).copied().flatten() {
            Some((rate, 0)) => format!("{rate:.0}"),
            Some((rate, width)) => format!("{rate:.0} ({width})"),
            None => "not reached".to_owned(),
        };
        let head = [
            "graph",
            "build s",
            "memory + mapped MB",
            "queries/s at 0.95",
            "at 0.99",
            "mm builds at",
            "mm at 0.95",
            "mm at 0.99",
            "mm's memory is",
        ];
        let mut graphs = vec![head.map(String::from)];
        for row in &self.graphs {
            let mut line = [const { String::new() }; 9];
            line[0] = row.program.to_owned();
            line[1] = row.build_seconds.map(|seconds| format!("{seconds:.0}")).unwrap_or_default();
            line[2] = row.memory();
            line[3] = shown(row, 0);
            line[4] = shown(row, 1);
            if let Some(ours) = self.graphs.first().filter(|ours| ours.program != row.program) {
                line[5] = ratio(row.build_seconds, ours.build_seconds);
                line[6] = ratio(rate(ours, 0), rate(row, 0));
                line[7] = ratio(rate(ours, 1), rate(row, 1));
                line[8] = ratio(Some(ours.whole_mb()), Some(row.whole_mb()));
            }
            graphs.push(line);
        }
        let head = ["exact", "memory + mapped MB", "queries/s", "mm is", "mm's memory is"];
        let mut flats = vec![head.map(String::from)];
        for row in &self.flats {
            let mut line = [const { String::new() }; 5];
            line[0] = row.program.to_owned();
            line[1] = row.memory();
            line[2] = shown(row, 0);
            if let Some(ours) = self.flats.first().filter(|ours| ours.program != row.program) {
                line[3] = ratio(rate(ours, 0), rate(row, 0));
                line[4] = ratio(Some(ours.whole_mb()), Some(row.whole_mb()));
            }
            flats.push(line);
        }
        let (date, processor, rows) = (&self.date, &self.processor, self.rows);
        format!(
            "Measured on {date}, {processor}, medians: {rows} clustered unit rows of 512 numbers, 1,000 \
             queries, recall@10.\nIn brackets the width of the beam. Storing rows and items took mm {:.0} s \
             more.\n\n{}\n{}",
            self.rows_seconds,
            table(&graphs),
            table(&flats)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_search_of_enough_recall_counts() {
        let search = |width, recall, per_second| Search { width, recall, per_second };
        let searches = vec![search(16, 0.9, 500.0), search(32, 0.96, 300.0), search(64, 0.99, 200.0)];
        let run = Run { build_seconds: 2.0, memory_mb: 60.0, mapped_mb: 40.0, searches };
        assert_eq!(rate_at(&run, 0.95), Some((300.0, 32)));
        assert_eq!(rate_at(&run, 0.995), None);
        let slower = Run { build_seconds: 8.0, memory_mb: 400.0, mapped_mb: 0.0, ..run.clone() };
        let flat = |per_second| Run { searches: vec![search(0, 1.0, per_second)], ..run.clone() };
        let report = SearchReport {
            date: "today".to_owned(),
            processor: "a processor".to_owned(),
            rows: 10,
            rows_seconds: 1.0,
            graphs: vec![
                Row::of_graph("mm", std::slice::from_ref(&run)),
                Row::of_graph("hnswlib", &[slower]),
            ],
            flats: vec![
                Row::of_flat("mm", &[flat(50.0)]).unwrap(),
                Row::of_flat("faiss-flat", &[flat(25.0)]).unwrap(),
            ],
        };
        let text = report.markdown();
        for figure in ["60 + 40", "300 (32)", "200 (64)", "4.00x", "1.00x", "0.25x", "2.00x"] {
            assert!(text.contains(figure), "{figure}: {text}");
        }
    }
}
