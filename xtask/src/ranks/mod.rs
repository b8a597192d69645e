//! `--nproc N`: the processes of a group on this node, from their start to the end of the last.
//!
//! Each is an `mm` with torchrun's variables, in a system process group of its own. A terminal's Ctrl-C
//! therefore reaches the launcher alone, which forwards it: a rank gets it exactly once, and the processes
//! that a rank started can be ended with it. When one rank fails, the others, which may wait for it for ever,
//! are ended too, and the error names the rank that failed first.

mod end;
mod group;
mod lines;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use self::group::{Group, MAX_NPROC, Options};

use self::end::{End, breaks_the_group, outcome};
use self::lines::LastLines;
use crate::terminal::is_coloured;

/// After a rank fails, the others have this long to notice and to end with an error of their own.
const UNTIL_TERM: Duration = Duration::from_secs(4);
/// After this long they are killed.
const UNTIL_KILL: Duration = Duration::from_secs(7);
/// After this long those that the system cannot kill, because they wait for a device, are left behind.
const UNTIL_LEFT: Duration = Duration::from_secs(9);
/// How long the last lines may take to arrive after every rank has ended: a program that left its process
/// group may hold the pipe open.
const LAST_LINES: Duration = Duration::from_secs(1);

struct Rank {
    number: u32,
    child: Child,
    last_lines: Arc<Mutex<LastLines>>,
    end: Option<End>,
    /// Whether the launcher ended it.
    ended_by_launcher: bool,
}

enum Event {
    /// The rank at this index ended and is not yet reaped: until then its process id cannot be reused.
    Ended(usize),
    /// A stream of a rank ended.
    Closed,
    /// Ctrl-C, SIGTERM or SIGHUP.
    Interrupted,
}

enum Step {
    Send(Signal),
    Leave,
}

/// Runs `mm` once for each rank of this node and waits for all ranks.
///
/// # Errors
/// [`Ended`](crate::workspace::Ended) with the exit code of the rank that failed first, once its error is
/// printed, or with 130 after Ctrl-C; any other where a rank cannot be started.
pub fn run(group: &Group, mm: &dyn Fn() -> Command) -> Result<()> {
    let (sender, events) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for Ctrl-C")?;
    let interrupt = sender.clone();
    thread::spawn(move || signals.forever().try_for_each(|_| interrupt.send(Event::Interrupted)));

    let mut ranks = Vec::new();
    let mut streams = 0;
    for local in 0..group.nproc {
        let mut rank = Rank::start(group, local, mm())?;
        streams += rank.listen(ranks.len(), group.world_size(), &sender);
        ranks.push(rank);
    }
    let interrupted = watch(&mut ranks, streams, &events)?;
    outcome(&ranks, interrupted)
}

/// Waits until all ranks have ended and their lines are copied; returns whether they were interrupted.
fn watch(ranks: &mut [Rank], mut streams: usize, events: &Receiver<Event>) -> Result<bool> {
    let mut interrupted = false;
    let mut running = ranks.len();
    let mut plan = VecDeque::new();
    while running > 0 || streams > 0 {
        let event = match plan.front() {
            Some((when, _)) => events.recv_timeout(Instant::saturating_duration_since(when, Instant::now())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(Event::Closed) => streams -= 1,
            Ok(Event::Ended(index)) => {
                running -= 1;
                let code = ranks[index].reap(ranks.len() - running)?;
                if running == 0 {
                    plan = [(Instant::now() + LAST_LINES, Step::Leave)].into();
                } else if breaks_the_group(code) && plan.is_empty() {
                    plan = ending(UNTIL_TERM, UNTIL_KILL, UNTIL_LEFT);
                }
            }
            Ok(Event::Interrupted) if running == 0 => {}
            Ok(Event::Interrupted) if !interrupted && plan.is_empty() => {
                interrupted = true;
                // To the rank alone: it may need the processes that it started while it saves.
                for rank in ranks.iter().filter(|rank| rank.end.is_none()) {
                    rank.send(kill_process, Signal::INT);
                }
            }
            Ok(Event::Interrupted) => {
                interrupted = true;
                plan = ending(Duration::ZERO, Duration::ZERO, UNTIL_LEFT - UNTIL_KILL);
            }
            Err(_) => match plan.pop_front() {
                Some((_, Step::Send(signal))) => {
                    for rank in ranks.iter_mut().filter(|rank| rank.end.is_none()) {
                        rank.ended_by_launcher = true;
                        rank.send(kill_process_group, signal);
                    }
                }
                Some((_, Step::Leave)) | None => break,
            },
        }
    }
    Ok(interrupted)
}

/// The steps that end the ranks that still run, and their times.
fn ending(term: Duration, kill: Duration, leave: Duration) -> VecDeque<(Instant, Step)> {
    let now = Instant::now();
    let steps = [(term, Step::Send(Signal::TERM)), (kill, Step::Send(Signal::KILL)), (leave, Step::Leave)];
    steps.into_iter().map(|(after, step)| (now + after, step)).collect()
}

impl Rank {
    fn start(group: &Group, local: u32, mut mm: Command) -> Result<Self> {
        let number = group.rank(local);
        group.set_env(local, &mut mm);
        mm.process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
        if number > 0 {
            mm.stdout(Stdio::piped()); // only rank 0 prints results, and its output is not changed
        }
        let child = mm.spawn().with_context(|| format!("cannot start {}", mm.get_program().display()))?;
        Ok(Self { number, child, last_lines: Arc::default(), end: None, ended_by_launcher: false })
    }

    /// Starts threads that send the end of the rank and of its streams to `events` and copy its lines.
    /// Returns the number of streams.
    fn listen(&mut self, index: usize, world_size: u32, events: &Sender<Event>) -> usize {
        let (pid, ended) = (self.pid(), events.clone());
        thread::spawn(move || {
            let waiting = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = rustix::io::retry_on_intr(waiting);
            let _ = ended.send(Event::Ended(index));
        });
        let prefix = lines::prefix(self.number, world_size, is_coloured());
        let stdout = self.child.stdout.take().map(OwnedFd::from);
        let streams: Vec<_> = stdout.into_iter().chain(self.child.stderr.take().map(OwnedFd::from)).collect();
        let count = streams.len();
        for stream in streams {
            let (prefix, last, closed) = (prefix.clone(), Arc::clone(&self.last_lines), events.clone());
            thread::spawn(move || {
                let record = |line: &str| last.lock().unwrap_or_else(PoisonError::into_inner).record(line);
                lines::copy(File::from(stream), &prefix, &mut io::stderr(), record);
                let _ = closed.send(Event::Closed);
            });
        }
        count
    }

    /// Reads the exit status of the rank, the `order`th to end, and returns its exit code. Processes that it
    /// left running are killed.
    fn reap(&mut self, order: usize) -> Result<u8> {
        self.send(kill_process_group, Signal::KILL);
        let status = self.child.wait().with_context(|| format!("cannot wait for rank {}", self.number))?;
        Ok(self.end.insert(End { status, order, by_itself: !self.ended_by_launcher }).code())
    }

    /// Sends a signal to the rank or its process group. A failure means that it has ended.
    fn send(&self, to: fn(Pid, Signal) -> rustix::io::Result<()>, signal: Signal) {
        let _ = to(self.pid(), signal);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Rank {
    /// No rank outlives the launcher.
    fn drop(&mut self) {
        if self.end.is_none() {
            self.send(kill_process_group, Signal::KILL);
        }
    }
}
