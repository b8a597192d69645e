//! Shards that can only be read from their beginning: commands, standard input, compressed tars.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use flate2::bufread::MultiGzDecoder;
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process_group};
use tar::Archive;

use super::groups::{Ended, Group, Groups, Keys};
use super::members::{self, MAX_SAMPLE_BYTES};
use super::names::Shard;
use super::walk;
use mm_image::{GIT_LFS_POINTER, is_git_lfs_pointer};

use crate::file_kind::{Compression, HEAD_BYTES};
use crate::rng::{Domain, rng};
use crate::{
    BadSample, Dataset, Error, Fault, Result, Sample, SampleRng, StreamHandle, StreamOrder, StreamReader,
    StreamingDataset,
};

/// The number of samples that the reading thread may be ahead of the shuffle buffer.
const AHEAD: usize = 8;

/// The number of keys of a tar that are remembered: a stream may be a single endless tar.
const KEYS: usize = 1 << 20;

/// Shards as a [`StreamingDataset`].
pub(super) struct TarStream {
    pub name: String,
    pub shards: Vec<Shard>,
    /// The number of samples in an epoch.
    pub samples: usize,
    /// The number of samples in the shuffle buffer.
    pub buffer: usize,
    pub caption_field: String,
}

impl Dataset for TarStream {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples
    }

    fn sample(&self, _: usize) -> Result<Sample> {
        Err(Error::Setting(format!(
            "`{}` is a stream, which cannot be read by index: use plain local tars here",
            self.name
        )))
    }

    fn stream(&self) -> Option<&dyn StreamingDataset> {
        Some(self)
    }
}

impl StreamingDataset for TarStream {
    fn read(&self, order: StreamOrder) -> Result<Box<dyn StreamReader>> {
        let count = self.shards.len();
        let rank = order.rank;
        if !order.resample && count < rank.world {
            return Err(Error::Setting(format!(
                "`{}`: {count} shards for {} processes: make more shards, or set data.resample = true",
                self.name, rank.world
            )));
        }
        let (samples, received) = bounded(AHEAD);
        let (until_stopped, stopped) = bounded(0);
        let handle = Arc::new(StreamHandle::default());
        let running = Arc::new(Mutex::new(Running::default()));
        let stop = running.clone();
        *locked(&handle.on_stop) = Some(Box::new(move || {
            drop(until_stopped);
            locked(&stop).stop();
        }));
        let reader = ShardReader {
            source: self.name.clone(),
            shards: self.shards.clone(),
            caption_field: self.caption_field.clone(),
            order,
            samples,
            handle: handle.clone(),
            running,
        };
        let name = "mm-data-stream";
        std::thread::Builder::new().name(name.into()).spawn(move || reader.run()).map_err(Error::io(name))?;
        let shuffle = order.seed.map(|seed| rng(seed, rank.index as u64, 0, Domain::StreamBuffer));
        let size = if shuffle.is_some() { self.buffer.max(1) } else { 1 };
        Ok(Box::new(TarReading { samples: received, stopped, shuffle, buffer: Vec::new(), size, handle }))
    }
}

/// The receiving end of a stream, with its shuffle buffer.
struct TarReading {
    samples: Receiver<std::result::Result<Sample, BadSample>>,
    stopped: Receiver<()>,
    shuffle: Option<SampleRng>,
    buffer: Vec<Sample>,
    size: usize,
    handle: Arc<StreamHandle>,
}

impl StreamReader for TarReading {
    fn next(&mut self) -> Option<std::result::Result<Sample, BadSample>> {
        while self.buffer.len() < self.size {
            let received = select! {
                recv(self.samples) -> received => received,
                recv(self.stopped) -> _ => return None,
            };
            match received {
                Ok(Ok(sample)) => self.buffer.push(sample),
                Ok(Err(bad)) => return Some(Err(bad)),
                Err(_) => break,
            }
            self.handle.buffered.store(self.buffer.len(), Ordering::Relaxed);
        }
        if self.buffer.is_empty() {
            return None;
        }
        let place = self.shuffle.as_mut().map_or(0, |rng| rng.random_range(0..self.buffer.len()));
        Some(Ok(self.buffer.swap_remove(place)))
    }

    fn handle(&self) -> Arc<StreamHandle> {
        self.handle.clone()
    }
}

impl Drop for TarReading {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a command and the processes that it started.
fn kill(child: &Child) {
    let _ = Pid::from_raw(child.id() as i32).map(|pid| kill_process_group(pid, Signal::KILL));
}

/// The command that is being read, if there is one.
#[derive(Default)]
struct Running {
    child: Option<Child>,
    stopped: bool,
}

impl Running {
    /// Kills the command, so that one that hangs does not outlive its reader.
    fn stop(&mut self) {
        self.stopped = true;
        self.child.iter().for_each(kill);
    }
}

/// The receiving end was dropped.
struct Gone;

/// The reading end, on its own thread.
struct ShardReader {
    source: String,
    shards: Vec<Shard>,
    caption_field: String,
    order: StreamOrder,
    samples: Sender<std::result::Result<Sample, BadSample>>,
    handle: Arc<StreamHandle>,
    running: Arc<Mutex<Running>>,
}

impl ShardReader {
    fn run(self) {
        for epoch in 0.. {
            for number in self.epoch(epoch) {
                let shard = &self.shards[number];
                *locked(&self.handle.shard) = shard.to_string();
                if self.shard(shard).is_err() || *shard == Shard::Stdin {
                    return;
                }
            }
        }
    }

    /// The shards of this process in an epoch, in order.
    fn epoch(&self, epoch: u64) -> Vec<usize> {
        let StreamOrder { seed, resample, rank } = self.order;
        let mut all: Vec<usize> = (0..self.shards.len()).collect();
        if let Some(seed) = seed {
            // With replacement, each process draws its own shards.
            let number = if resample { rank.index as u64 + 1 } else { 0 };
            let mut rng = rng(seed, epoch, number, Domain::StreamShards);
            if resample {
                return all.iter().map(|_| rng.random_range(0..all.len())).collect();
            }
            crate::rng::shuffle(&mut all, &mut rng);
        }
        all.into_iter().skip(rank.index).step_by(rank.world).collect()
    }

    /// Sends all samples of a shard, and then a bad sample if the shard is broken.
    fn shard(&self, shard: &Shard) -> std::result::Result<(), Gone> {
        let name = shard.to_string();
        let whole = match shard {
            Shard::Stdin => self.tar(&name, std::io::stdin())?,
            Shard::Pipe(command) => self.command(&name, command)?,
            Shard::File(path) => match File::open(path) {
                Ok(file) => self.tar(&name, file)?,
                Err(error) => Err(Error::bad(Fault::Shard, error.to_string())),
            },
        };
        whole.or_else(|error| self.send(Err(self.bad(name, &error))))
    }

    fn command(&self, name: &str, command: &str) -> std::result::Result<Result<()>, Gone> {
        let failed = |reason: String| Error::bad(Fault::Pipe, reason);
        let mut running = locked(&self.running);
        if running.stopped {
            return Err(Gone);
        }
        let started = tempfile::tempfile().and_then(|errors| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", command])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(errors.try_clone()?);
            // Its own process group, so that it can be killed with all processes that it started.
            shell.process_group(0).spawn().map(|child| (child, errors))
        });
        let (mut child, mut errors) = match started {
            Ok(started) => started,
            Err(error) => return Ok(Err(failed(format!("cannot start: {error}")))),
        };
        let output = child.stdout.take().expect("standard output is piped");
        running.child = Some(child);
        drop(running);
        let whole = self.tar(name, output);
        let child = locked(&self.running).child.take();
        let status = child.map(|mut child| {
            if whole.is_err() {
                kill(&child);
            }
            child.wait()
        });
        let whole = whole?;
        match status {
            Some(Ok(status)) if !status.success() => {
                let mut output = String::new();
                let _ = errors
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| errors.take(1 << 16).read_to_string(&mut output));
                let last = output.trim().lines().last().unwrap_or("no message").to_owned();
                Ok(Err(failed(format!("the command failed ({status}): {last}"))))
            }
            _ => Ok(whole),
        }
    }

    /// Sends the samples of a tar, compressed or not. The inner error is the reason why the tar is
    /// incomplete.
    fn tar(&self, name: &str, input: impl Read) -> std::result::Result<Result<()>, Gone> {
        let broken = |error: std::io::Error| Error::bad(Fault::Shard, error.to_string());
        let mut input = BufReader::with_capacity(1 << 18, Counted { input, handle: &self.handle });
        let mut head = Vec::new();
        if let Err(error) = input.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head) {
            return Ok(Err(broken(error)));
        }
        let kind = Compression::of(&head);
        let refused = match kind {
            None if is_git_lfs_pointer(&head) => Some(GIT_LFS_POINTER.to_owned()),
            None | Some(Compression::Gzip | Compression::Zstd) => None,
            Some(other) => Some(other.unread(name)),
        };
        if let Some(reason) = refused {
            // Read on, because a command fails if its output is not read to the end, and that error would
            // hide this.
            let _ = std::io::copy(&mut input, &mut std::io::sink());
            return Ok(Err(Error::bad(Fault::Shard, reason)));
        }
        let input = Cursor::new(head).chain(input);
        let mut input: Box<dyn Read> = match kind {
            Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(input)),
            Some(Compression::Zstd) => match zstd::Decoder::with_buffer(input) {
                Ok(input) => Box::new(input),
                Err(error) => return Ok(Err(broken(error))),
            },
            _ => Box::new(input),
        };
        let mut ended = false;
        let whole = self.members(name, Watched { input: &mut input, ended: &mut ended })?;
        let rest = walk::drain(&mut input).map_err(broken);
        Ok(whole.and_then(|(samples, end)| match rest? {
            _ if samples == 0 => Err(Error::bad(Fault::Shard, "it has no sample")),
            _ if ended => Err(Error::bad(Fault::Shard, "truncated between two members: it has no end mark")),
            Some(zeros) => Err(Error::bad(Fault::Shard, walk::more(end + 512 + zeros))),
            None => Ok(()),
        }))
    }

    /// Sends the samples of a tar. Returns their number and the end of the last member.
    fn members(&self, name: &str, input: impl Read) -> std::result::Result<Result<(usize, u64)>, Gone> {
        let broken = |error: std::io::Error| Error::bad(Fault::Shard, format!("the rest is lost: {error}"));
        let mut archive = Archive::new(input);
        let entries = match archive.entries() {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(broken(error))),
        };
        let mut groups = Groups::default();
        let mut keys = Keys::of(KEYS);
        let mut sent = 0;
        let mut end = 0;
        let mut send_all = |mut groups: Ended<Vec<u8>>| {
            groups.try_for_each(|group| {
                sent += 1;
                self.send_group(name, &mut keys, group)
            })
        };
        for entry in entries {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    send_all(groups.finish())?;
                    return Ok(Err(broken(error)));
                }
            };
            let begin = end;
            end = members::padded_end(&entry);
            let Some(name) = members::of_sample(&entry) else { continue };
            let field = name.field();
            send_all(groups.begin(&name, &field, begin))?;
            let mut bytes = Vec::new();
            // A sample that is too large is refused at its end; its bytes are skipped.
            let read = if groups.length_to(end) > MAX_SAMPLE_BYTES {
                Ok(entry.size())
            } else {
                entry.read_to_end(&mut bytes).map(|read| read as u64)
            };
            let cut = match read {
                Ok(read) if read == entry.size() => None,
                Ok(_) => {
                    Some(Error::bad(Fault::Shard, format!("truncated in {}.{}", name.key, name.extension)))
                }
                Err(error) => Some(broken(error)),
            };
            if let Some(error) = cut {
                send_all(groups.abandon())?;
                return Ok(Err(error));
            }
            groups.add(name, field, begin..end, bytes);
        }
        send_all(groups.finish())?;
        Ok(Ok((sent, end)))
    }

    fn send_group(
        &self,
        shard: &str,
        keys: &mut Keys,
        group: Group<Vec<u8>>,
    ) -> std::result::Result<(), Gone> {
        let length = group.bytes.end - group.bytes.start;
        let (key, before) = keys.name(group.key.clone(), group.bytes.start);
        let key = format!("{shard}/{key}");
        let sample = if length > MAX_SAMPLE_BYTES {
            Err(Error::bad(Fault::Shard, format!("a sample of {length} bytes, more than {MAX_SAMPLE_BYTES}")))
        } else {
            members::of_group(group)
                .and_then(|members| members::sample(&key, members, &self.caption_field))
                .map_err(|error| members::with_other_place(error, before))
        };
        self.send(sample.map_err(|error| self.bad(key, &error)))
    }

    fn send(&self, sample: std::result::Result<Sample, BadSample>) -> std::result::Result<(), Gone> {
        self.samples.send(sample).map_err(|_| Gone)
    }

    fn bad(&self, key: String, error: &Error) -> BadSample {
        BadSample { source: self.source.clone(), key, fault: error.fault(), reason: error.to_string() }
    }
}

/// Counts the bytes that are read.
struct Counted<'a, R> {
    input: R,
    handle: &'a StreamHandle,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.handle.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Records whether the end was reached: the tar library treats it as an end mark.
struct Watched<'a> {
    input: &'a mut dyn Read,
    ended: &'a mut bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        *self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}
