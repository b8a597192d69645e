//! The thread that owns a model.

use crate::api_error::{ApiError, ApiResult};
use crate::config::ModelConfig;
use crate::metrics::BatchSizes;
use crate::queue::{BatchReceiver, Job, JobSender, queue};
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A model on its thread, as requests see it: a queue of jobs `J`, and the information `F` on the opened
/// model that requests are prepared by, as its tokenizer.
#[derive(Debug)]
pub struct Worker<J, F> {
    jobs: JobSender<J>,
    info: Arc<OnceLock<F>>,
    batches: Arc<BatchSizes>,
}

/// The side of the thread.
#[derive(Debug)]
pub struct WorkerThread<J, F> {
    batches: BatchReceiver<J>,
    sizes: Arc<BatchSizes>,
    info: Arc<OnceLock<F>>,
    opened: Opened,
}

/// Takes the report that a model or an index is opened, or that it cannot be.
pub type Opened = mpsc::UnboundedSender<Result<()>>;

/// Starts a thread that opens something. An error of `body`, or that it panicked, is reported to `opened` as
/// `failed` of it.
///
/// # Errors
/// The system starts no thread.
pub fn spawn(
    opened: &Opened,
    failed: impl FnOnce(String) -> Error + Send + 'static,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let opened = opened.clone();
    let thread = move || {
        let problem = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_) => "its thread panicked".to_owned(),
        };
        let _ = opened.send(Err(failed(problem))); // the server may have ended
    };
    std::thread::Builder::new().spawn(thread).map_err(Error::Start)
}

/// The place of a job's result. It is cancelled where the request is gone: its client has closed the
/// connection, or its time is over.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<ApiResult<T>>);

/// The result of a job, not there yet.
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<ApiResult<T>>);

/// A reply and the result that it becomes.
pub fn reply<T>() -> (Reply<T>, Pending<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(sender), Pending(receiver))
}

impl<T> Reply<T> {
    /// Gives the result.
    pub fn send(self, result: ApiResult<T>) {
        let _ = self.0.send(result); // a request that is gone has no use for it
    }

    /// Whether the request is gone.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Pending<T> {
    /// Waits for the result.
    ///
    /// # Errors
    /// Those of the job; 500 where the model panicked.
    pub async fn wait(self) -> ApiResult<T> {
        self.0.await.unwrap_or_else(|_| Err(ApiError::internal(&"the batch of the request panicked")))
    }
}

impl<J: Job, F: Send + Sync + 'static> Worker<J, F> {
    /// Starts the thread of the model `name`, which runs `body`: opens the model, calls
    /// [`WorkerThread::ready`], then [`WorkerThread::run`].
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(
        name: &str,
        config: &ModelConfig,
        opened: &Opened,
        body: fn(&ModelConfig, WorkerThread<J, F>) -> Result<(), String>,
    ) -> Result<(Self, JoinHandle<()>)> {
        let wait = Duration::from_millis(config.wait_ms);
        let (jobs, batches) = queue(config.queue, config.batch_size, wait);
        let (info, sizes) = (Arc::new(OnceLock::new()), Arc::new(BatchSizes::default()));
        let worker = Self { jobs, info: Arc::clone(&info), batches: Arc::clone(&sizes) };
        let thread = WorkerThread { batches, sizes, info, opened: opened.clone() };
        let (config, name) = (config.clone(), name.to_owned());
        let failed = move |problem| Error::Model { name, problem };
        let handle = spawn(opened, failed, move || body(&config, thread))?;
        Ok((worker, handle))
    }

    /// Adds a job.
    ///
    /// # Errors
    /// As [`JobSender::submit`].
    pub fn submit(&self, job: J) -> ApiResult<()> {
        self.jobs.submit(job)
    }

    /// The information on the model.
    ///
    /// # Errors
    /// 503: it is not opened yet.
    pub fn info(&self) -> ApiResult<&F> {
        self.info.get().ok_or_else(|| ApiError::unavailable("the model is being opened: try again"))
    }

    /// The jobs that wait.
    pub fn depth(&self) -> usize {
        self.jobs.depth()
    }

    /// The sizes of its batches.
    pub fn batches(&self) -> &BatchSizes {
        &self.batches
    }
}

impl<J: Job, F> WorkerThread<J, F> {
    /// Reports that the model is opened.
    pub fn ready(&self, info: F) {
        let _ = self.info.set(info); // once a thread
        let _ = self.opened.send(Ok(())); // the server may have ended
    }

    /// Runs batches by `compute` until the queue is closed. A panic fails its batch alone.
    pub fn run(self, mut compute: impl FnMut(Vec<J>)) {
        let Self { batches, sizes, opened, .. } = self;
        drop(opened);
        while let Some(batch) = batches.next_batch() {
            sizes.record(batch.iter().map(Job::items).sum());
            if catch_unwind(AssertUnwindSafe(|| compute(batch))).is_err() {
                tracing::error!("a batch panicked: its requests have failed");
            }
        }
    }
}

/// The results of `inputs` by one call of `compute`, which gives one each. Where the call fails, each input
/// is computed alone, so that one that is at fault fails alone.
pub fn compute_together<I, T>(
    inputs: &[I],
    compute: impl Fn(&[I]) -> ApiResult<Vec<T>>,
) -> Vec<ApiResult<T>> {
    let alone = |input| {
        let mut results = compute(std::slice::from_ref(input))?;
        results.pop().ok_or_else(|| ApiError::internal(&"the model gives no result"))
    };
    match compute(inputs) {
        Ok(results) if results.len() == inputs.len() => results.into_iter().map(Ok).collect(),
        Err(error) if inputs.len() == 1 => vec![Err(error)],
        _ => inputs.iter().map(alone).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn an_input_that_is_at_fault_fails_alone() {
        let halves = |inputs: &[u32]| {
            let half = |&input: &u32| match input % 2 {
                0 => Ok(input / 2),
                _ => Err(ApiError::new(StatusCode::BAD_REQUEST, "odd")),
            };
            inputs.iter().map(half).collect()
        };
        let found = |inputs: &[u32]| -> Vec<Option<u32>> {
            compute_together(inputs, halves).into_iter().map(Result::ok).collect()
        };
        assert_eq!(found(&[2, 4]), [Some(1), Some(2)]);
        assert_eq!(found(&[2, 3, 4]), [Some(1), None, Some(2)]);
        assert_eq!(found(&[3]), [None]);
    }
}
