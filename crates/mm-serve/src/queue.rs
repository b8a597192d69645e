//! The bounded queue of a model, from which its worker takes batches.

use crate::api_error::{ApiError, ApiResult};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::time::{Duration, Instant};

/// A request to a model.
pub trait Job: Send + 'static {
    /// The texts and images that it adds to a batch.
    fn items(&self) -> usize;

    /// Whether nothing waits for the result any more.
    fn is_cancelled(&self) -> bool;
}

/// The end of a queue that takes jobs.
#[derive(Debug)]
pub struct JobSender<J>(Sender<Queued<J>>);

/// The end of a queue that gives batches.
#[derive(Debug)]
pub struct BatchReceiver<J> {
    jobs: Receiver<Queued<J>>,
    batch_size: usize,
    wait: Duration,
}

#[derive(Debug)]
struct Queued<J> {
    job: J,
    since: Instant,
}

/// A queue of at most `capacity` jobs. A batch is closed at `batch_size` items, or when its first job has
/// waited for `wait`.
pub fn queue<J: Job>(capacity: usize, batch_size: usize, wait: Duration) -> (JobSender<J>, BatchReceiver<J>) {
    let (sender, jobs) = bounded(capacity);
    (JobSender(sender), BatchReceiver { jobs, batch_size, wait })
}

impl<J: Job> JobSender<J> {
    /// Adds a job.
    ///
    /// # Errors
    /// 429 where the queue is full, 503 where the worker has ended.
    pub fn submit(&self, job: J) -> ApiResult<()> {
        self.0.try_send(Queued { job, since: Instant::now() }).map_err(|error| match error {
            TrySendError::Full(_) => {
                ApiError::overloaded("the queue of the model is full: try again").with_code("queue_full")
            }
            TrySendError::Disconnected(_) => ApiError::unavailable("the server is stopping"),
        })
    }

    /// The jobs that wait.
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}

impl<J: Job> BatchReceiver<J> {
    /// Waits for the next batch, without cancelled jobs; none where the queue is closed and empty. The wait
    /// counts from the time that the first job was added: after a long batch, what has come meanwhile is
    /// taken at once. The last job may exceed the size of the batch.
    pub fn next_batch(&self) -> Option<Vec<J>> {
        let mut batch = Vec::new();
        let (mut items, mut deadline) = (0, None);
        while items < self.batch_size {
            let next = match deadline {
                None => self.jobs.recv().ok()?,
                Some(deadline) => match self.jobs.recv_deadline(deadline) {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            if next.job.is_cancelled() {
                continue;
            }
            deadline.get_or_insert(next.since + self.wait);
            items += next.job.items();
            batch.push(next.job);
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbered(usize);

    impl Job for Numbered {
        fn items(&self) -> usize {
            self.0
        }

        fn is_cancelled(&self) -> bool {
            self.0 == 0
        }
    }

    fn taken(jobs: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
        let (sender, receiver) = queue(jobs.len(), batch_size, Duration::ZERO);
        jobs.iter().for_each(|&items| sender.submit(Numbered(items)).unwrap());
        drop(sender);
        let batches = std::iter::from_fn(|| receiver.next_batch());
        batches.map(|batch| batch.iter().map(|job| job.0).collect()).collect()
    }

    #[test]
    fn what_waits_is_taken_together_up_to_the_size_of_a_batch() {
        assert_eq!(taken(&[1, 1, 1, 1, 1], 2), [vec![1, 1], vec![1, 1], vec![1]]);
        assert_eq!(taken(&[3, 2, 9, 1], 4), [vec![3, 2], vec![9], vec![1]]);
        assert_eq!(taken(&[], 4), [[0; 0]; 0]);
    }

    #[test]
    fn cancelled_jobs_are_left_out() {
        assert_eq!(taken(&[0, 1, 0, 0, 2, 0], 8), [vec![1, 2]]);
    }

    #[test]
    fn a_batch_waits_for_the_jobs_that_fill_it() {
        let (sender, receiver) = queue(4, 2, Duration::from_secs(3600));
        sender.submit(Numbered(1)).unwrap();
        let filled = std::thread::spawn(move || receiver.next_batch().map(|batch| batch.len()));
        sender.submit(Numbered(1)).unwrap();
        assert_eq!(filled.join().unwrap(), Some(2));
    }

    #[test]
    fn a_full_queue_and_a_closed_one_refuse_jobs() {
        let (sender, receiver) = queue(1, 8, Duration::ZERO);
        sender.submit(Numbered(1)).unwrap();
        assert_eq!(sender.submit(Numbered(1)).unwrap_err().status, 429);
        assert_eq!(sender.depth(), 1);
        drop(receiver);
        assert_eq!(sender.submit(Numbered(1)).unwrap_err().status, 503);
    }
}
