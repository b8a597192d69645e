//! The server: connections, start and end.

use crate::app::App;
use crate::config::ServeConfig;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::middleware::router;
use crate::{Error, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

/// Threads of the runtime: requests wait for models most of the time, which need the cores.
const RUNTIME_THREADS: usize = 2;

/// The least number of threads that decode images.
const LEAST_DECODING_THREADS: usize = 2;

/// Files that the process opens beside connections.
const OTHER_FILES: u64 = 256;

/// The pause after a connection that could not be accepted, as where the system has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that listens, with its models being opened.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    threads: Vec<JoinHandle<()>>,
    opened: mpsc::UnboundedReceiver<Result<()>>,
    stop: StopHandle,
}

/// Stops a server from another thread.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<Notify>);

impl StopHandle {
    /// Ends the server: no new connections, and what runs is finished.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

impl Server {
    /// Listens on `address`, where port 0 is any free one, and begins to open the models of `config`. With
    /// `keys`, requests need one.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(config: &ServeConfig, address: SocketAddr, keys: Option<Keys>) -> Result<Self> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (report, opened) = mpsc::unbounded_channel();
        let (app, threads) = App::start(config, keys, &report)?;
        let (app, stop) = (Arc::new(app), StopHandle::default());
        Ok(Self { listener, address, app, threads, opened, stop })
    }

    /// The address, with the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handle that ends [`Server::run`].
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Serves until [`StopHandle::stop`], then finishes the requests in progress, at most for the time limit
    /// of a request. `on_ready` is called once all models are opened.
    ///
    /// # Errors
    /// A model cannot be opened, or the system starts no threads.
    pub fn run(self, on_ready: impl FnOnce()) -> Result<()> {
        let Self { listener, address, app, threads, mut opened, stop } = self;
        let connections = connection_limit(&app.limits);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .max_blocking_threads(cores.max(LEAST_DECODING_THREADS))
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(Error::Start)?;
        let seconds = Duration::from_secs(app.limits.request_seconds);
        let read_timeout = Duration::from_secs(app.limits.read_seconds);
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Start)?;
            let connections = Connections {
                router: router(&app, address),
                limit: Arc::new(Semaphore::new(connections)),
                read_timeout,
            };
            let graceful = GracefulShutdown::new();
            let ready = async {
                all_opened(&mut opened, threads.len()).await?;
                on_ready();
                std::future::pending().await
            };
            let ended = tokio::select! {
                ended = ready => ended,
                () = connections.accept(&listener, &graceful) => Ok(()),
                () = stop.0.notified() => Ok(()),
            };
            drop((listener, connections));
            if ended.is_ok() && timeout(seconds, graceful.shutdown()).await.is_err() {
                tracing::warn!(
                    "requests are still in progress after {} s: they are cancelled",
                    seconds.as_secs()
                );
            }
            ended
        });
        // Requests that are left are dropped, and with them the senders of the queues.
        drop(runtime);
        drop(app);
        // A thread that still opens a model while the process exits panics inside libtorch.
        for thread in threads {
            let _ = thread.join(); // a panic is logged where it happens
        }
        served
    }
}

/// Waits until all models and indexes are opened.
async fn all_opened(opened: &mut mpsc::UnboundedReceiver<Result<()>>, count: usize) -> Result<()> {
    for _ in 0..count {
        // Every thread reports, so that none of the senders is gone before.
        if let Some(outcome) = opened.recv().await {
            outcome?;
        }
    }
    Ok(())
}

struct Connections {
    router: Router,
    limit: Arc<Semaphore>,
    read_timeout: Duration,
}

impl Connections {
    /// Serves connections, each as a task. One ends where no head comes, or no byte of an answer is taken,
    /// within the time limit.
    async fn accept(&self, listener: &tokio::net::TcpListener, graceful: &GracefulShutdown) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.read_timeout);
        loop {
            let Ok(permit) = Arc::clone(&self.limit).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!("a connection was not accepted: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // An answer is one write: waiting for the acknowledgement of the last would add its delay.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("TCP_NODELAY: {error}");
            }
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(self.read_timeout));
            let service = TowerToHyperService::new(self.router.clone());
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("a connection ended: {error}");
                }
                drop(permit);
            });
        }
    }
}

/// The connections that the limit on open files leaves room for, which is raised as far as it may be.
fn connection_limit(limits: &Limits) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = limits.connections as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let allowed = wanted.min(maximum.unwrap_or(u64::MAX));
    let current = current.unwrap_or(u64::MAX);
    let raised =
        current < allowed && setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }).is_ok();
    let files = if raised { allowed } else { current };
    let connections = (limits.connections as u64).min(files.saturating_sub(OTHER_FILES).max(1));
    if connections < limits.connections as u64 {
        tracing::warn!("limits.connections is {connections}: the system allows {files} open files");
    }
    connections as usize
}
