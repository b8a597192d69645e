//! `bench serve`: text embeddings over HTTP beside the model alone, and beside FastAPI with transformers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::Output;
use super::clip::write_captions;
use super::embed::make_model;
use super::load::{self, Connection, Latencies};
use super::program::{Program, Work, median};
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script};

/// Options of `bench serve`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    #[command(flatten)]
    output: Output,
}

const CONNECTIONS: usize = 64;
const TIMES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(15));
/// Iterations and warm-up of the model alone, on captions in batches of 16.
const ALONE: (u32, u32) = (60, 10);
/// The time in which a server starts.
const START: Duration = Duration::from_secs(120);

/// A server: medians over the rounds.
#[derive(Serialize)]
struct Row {
    program: &'static str,
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Start of the process to its first answer.
    start_seconds: f64,
}

#[derive(Serialize)]
struct ServeReport {
    date: String,
    processor: String,
    /// Texts per second of the model in batches of 16 that are in memory.
    model_per_second: f64,
    rows: Vec<Row>,
}

/// One round of a server.
struct Round {
    latencies: Latencies,
    start: f64,
}

/// A server, killed when the value is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs and their files.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    mm: PathBuf,
    python: &'a Path,
    model: PathBuf,
    models_file: PathBuf,
    bodies: Vec<String>,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let model = example.with_file_name("bench_embed_model");
    make_model(workspace, &libtorch, &example, &model)?;
    let captions = write_captions(workspace, &example, &libtorch)?;
    let models_file = example.with_file_name("bench_serve_models.toml");
    let text = format!(
        "[models.clip]\ntask = \"clip\"\nfrom = {:?}\nbatch_size = {CONNECTIONS}\n",
        model.display().to_string()
    );
    fs::write(&models_file, text).with_context(|| format!("cannot write {}", models_file.display()))?;
    let texts = fs::read_to_string(&captions).context("cannot read the captions")?;
    let body = |text: &str| serde_json::json!({ "model": "clip", "input": text }).to_string();
    let bodies = texts.lines().map(body).collect();
    let alone = Program::ours(example, libtorch.lib(), captions);
    let python = &options.peer_python;
    let bench = Bench { workspace, libtorch, mm, python, model, models_file, bodies };
    let (mut model_rates, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in options.output.rounds() {
        model_rates.push(alone.measure(Work::new("texts", "f32", ALONE))?.rate());
        for (name, command, rounds) in
            [("mm", bench.ours()?, &mut ours), ("FastAPI", bench.peer()?, &mut theirs)]
        {
            let round = bench.measure(command).with_context(|| format!("{name} cannot be measured"))?;
            let (rate, p99) = (round.latencies.rate(), round.latencies.quantile_ms(0.99));
            eprintln!("  {name}: {rate:.0} requests/s, p99 {p99:.0} ms, started in {:.2} s", round.start);
            rounds.push(round);
        }
    }
    let report = ServeReport {
        date: today(),
        processor: processor::name(),
        model_per_second: median(&model_rates),
        rows: vec![Row::new("mm serve", &ours), Row::new("FastAPI and transformers", &theirs)],
    };
    let text = report.markdown();
    write_section(&workspace.path("docs/benchmarks.md"), "bench serve", &text)?;
    options.output.print(&report, &text)
}

impl Bench<'_> {
    /// Our server with its address.
    fn ours(&self) -> Result<(Command, SocketAddr)> {
        let address = free_address()?;
        let mut command = self.workspace.program(&self.mm, &self.libtorch);
        command.arg("serve").arg("--models").arg(&self.models_file).args(["--listen", &address.to_string()]);
        Ok((command, address))
    }

    /// The peer's server with its address.
    fn peer(&self) -> Result<(Command, SocketAddr)> {
        let address = free_address()?;
        let mut command = peer_script(self.python, &self.workspace.path("xtask/peers/serve.py"));
        command.arg(&self.model).arg(address.port().to_string());
        Ok((command, address))
    }

    /// Starts a server, and sends it the load.
    fn measure(&self, (mut command, address): (Command, SocketAddr)) -> Result<Round> {
        let begun = Instant::now();
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut server = Server(started.context("the server does not start")?);
        let first = &self.bodies[0];
        while Connection::open(address).and_then(|mut open| open.request("POST", PATH, first)).is_err() {
            if let Some(status) = server.0.try_wait()? {
                let error = server.0.stderr.take().map(BufReader::new);
                let last = error.and_then(|error| error.lines().map_while(Result::ok).last());
                anyhow::bail!("the server ended with {status}: {}", last.unwrap_or_default());
            }
            ensure!(begun.elapsed() < START, "the server does not answer within {} s", START.as_secs());
            std::thread::sleep(Duration::from_millis(5));
        }
        let start = begun.elapsed().as_secs_f64();
        let latencies = load::post(address, PATH, &self.bodies, CONNECTIONS, TIMES)?;
        Ok(Round { latencies, start })
    }
}

const PATH: &str = "/v1/embeddings";

/// An address of this machine that nothing listens on.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?)
}

impl Row {
    fn new(program: &'static str, rounds: &[Round]) -> Self {
        let middle = |figure: &dyn Fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        Self {
            program,
            requests_per_second: middle(&|round| round.latencies.rate()),
            p50_ms: middle(&|round| round.latencies.quantile_ms(0.5)),
            p99_ms: middle(&|round| round.latencies.quantile_ms(0.99)),
            start_seconds: middle(&|round| round.start),
        }
    }
}

impl ServeReport {
    fn markdown(&self) -> String {
        let head = ["server", "requests/s", "of the model alone", "p50 ms", "p99 ms", "start s", "mm is"];
        let mut lines = vec![head.map(String::from)];
        for row in &self.rows {
            let rate = row.requests_per_second;
            let ratio = match self.rows.first().filter(|ours| ours.program != row.program) {
                Some(ours) => format!("{:.2}x", ours.requests_per_second / rate),
                None => String::new(),
            };
            lines.push([
                row.program.to_owned(),
                format!("{rate:.0}"),
                format!("{:.0}%", 100.0 * rate / self.model_per_second),
                format!("{:.0}", row.p50_ms),
                format!("{:.0}", row.p99_ms),
                format!("{:.2}", row.start_seconds),
                ratio,
            ]);
        }
        let (date, processor, alone) = (&self.date, &self.processor, self.model_per_second);
        format!(
            "Measured on {date}, {processor}, medians. The model alone, batches of 16 in memory: {alone:.0} \
             texts/s.\n\n{}",
            table(&lines)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_compared_with_the_model_and_the_peer() {
        let row = |program, requests_per_second| Row {
            program,
            requests_per_second,
            p50_ms: 10.0,
            p99_ms: 20.0,
            start_seconds: 0.5,
        };
        let report = ServeReport {
            date: "today".to_owned(),
            processor: "a processor".to_owned(),
            model_per_second: 200.0,
            rows: vec![row("mm serve", 190.0), row("FastAPI", 50.0)],
        };
        let text = report.markdown();
        assert!(["95%", "25%", "3.80x"].iter().all(|figure| text.contains(figure)), "{text}");
    }
}
