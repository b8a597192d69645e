//! `mm serve`: an HTTP API and a web page over models.

use crate::{INTERRUPTED, output};
use anyhow::{Context, Result};
use mm_serve::{Keys, ServeConfig, Server, StopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

/// Serve models over HTTP, with a web page.
#[derive(clap::Args)]
#[command(after_help = "A table of the models file for each model:\n\n  \
    [models.clip]\n  \
    task = \"clip\"            # or caption, vqa, diffusion, reward\n  \
    from = \"runs/demo/model\" # a folder or a hub name\n\n\
    docs/serving.md has all keys and every route. The server speaks HTTP without TLS: put a proxy in front \
    of it where others can reach it. Ctrl-C or SIGTERM finishes the requests in progress; the second ends at \
    once.\n\n\
    Example: mm serve --models models.toml --listen 127.0.0.1:8080 --keys keys.txt")]
pub struct Args {
    /// The models and the limits, in TOML.
    #[arg(long, value_name = "FILE")]
    models: PathBuf,
    /// The address; port 0 is any free one, which is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A file of lines NAME:KEY or NAME:KEY:REQUESTS_PER_MINUTE; requests then need one of the keys.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let config = ServeConfig::read(&args.models)?;
    let keys = args.keys.as_deref().map(Keys::read).transpose()?;
    if keys.is_none() && !args.listen.ip().is_loopback() {
        tracing::warn!("every host that reaches {} may use the models: give --keys FILE", args.listen);
    }
    let server = Server::bind(&config, args.listen, keys)?;
    stop_on_signals(server.stop_handle())?;
    output::note(format_args!("listening on http://{}", server.address()));
    let models = config.models.len();
    Ok(server.run(|| {
        tracing::info!("{models} models opened in {:.1} s", start.elapsed().as_secs_f64());
    })?)
}

/// Stops the server on the first SIGINT or SIGTERM, and the process on the second.
fn stop_on_signals(server: StopHandle) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            output::note("finishing the requests in progress; once more to stop at once");
            server.stop();
        }
        if signals.next().is_some() {
            std::process::exit(INTERRUPTED.into());
        }
    });
    Ok(())
}
