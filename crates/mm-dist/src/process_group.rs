use crate::error::first_line;
use crate::rendezvous::rendezvous;
use crate::{Error, Launch, Result};
use mm_sys::{Backend, C10dProcessGroup, ReduceOp, TcpStore};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// The processes of a run, as one of them sees them. One process alone is a group as well: then nothing is
/// sent and no socket opened.
///
/// Every process calls the same functions in the same order. Clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct ProcessGroup(Option<Arc<Joined>>);

#[derive(Debug)]
struct Joined {
    rank: usize,
    world: usize,
    /// Moves what lies on the CPU.
    host: C10dProcessGroup,
    /// Moves what lies on GPUs, if the run computes there.
    gpu: Option<C10dProcessGroup>,
    /// Moves gradients while a backward pass runs, beside whatever that pass itself sends.
    gradients: C10dProcessGroup,
    /// The first failure where there was nobody to give it to.
    failure: Mutex<Option<String>>,
    store: TcpStore,
    timeout: Duration,
}

impl ProcessGroup {
    /// One process.
    pub fn alone() -> Self {
        Self(None)
    }

    /// Meets the other processes of `launch`, over NCCL where `device` is a GPU and Gloo where it is not. Who
    /// does not come, or does not answer later, within `timeout` fails the run.
    ///
    /// # Errors
    /// The meeting place cannot be held or reached, a process does not come, or two claim one rank.
    pub fn join(launch: &Launch, device: Device, timeout: Duration) -> Result<Self> {
        let Launch { rank, world, .. } = *launch;
        if world == 1 {
            return Ok(Self::alone());
        }
        let store = rendezvous(launch, timeout)?;
        let join = |name: &str, backend| {
            let joined = C10dProcessGroup::join(&store, name, backend, rank, world, timeout);
            joined.map_err(|error| {
                Error::rendezvous(format!("rank {rank} cannot reach the others: {}", first_line(&error.0)))
            })
        };
        let host = join("host", Backend::Gloo)?;
        let (gpu, gradients) = match device {
            Device::Cuda(_) => (Some(join("gpu", Backend::Nccl)?), join("gradients", Backend::Nccl)?),
            _ => (None, join("gradients", Backend::Gloo)?),
        };
        let failure = Mutex::new(None);
        Ok(Self(Some(Arc::new(Joined { rank, world, host, gpu, gradients, failure, store, timeout }))))
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.rank)
    }

    /// How many processes there are.
    pub fn world(&self) -> usize {
        self.0.as_ref().map_or(1, |joined| joined.world)
    }

    /// Whether this is the process that writes what all have in common: rank 0.
    pub fn is_main(&self) -> bool {
        self.rank() == 0
    }

    /// Whether this is the only process.
    pub fn is_alone(&self) -> bool {
        self.0.is_none()
    }

    /// Gives every process rank 0's `tensor`, in place.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn broadcast(&self, tensor: &mut Tensor) -> Result<()> {
        self.broadcast_from(0, tensor)
    }

    /// Gives every process the `tensor` of process `root`, in place.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn broadcast_from(&self, root: usize, tensor: &mut Tensor) -> Result<()> {
        self.on(tensor, |engine, tensor| engine.broadcast(tensor, root))
    }

    /// Reduces `tensor` over all processes, in place.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn all_reduce(&self, tensor: &mut Tensor, op: ReduceOp) -> Result<()> {
        self.on(tensor, |engine, tensor| engine.all_reduce(tensor, op))
    }

    /// `values` reduced over all processes, element by element. They go through the CPU: for numbers that are
    /// printed or decided on.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn reduce(&self, values: &[f64], op: ReduceOp) -> Result<Vec<f64>> {
        if self.is_alone() || values.is_empty() {
            return Ok(values.to_vec());
        }
        let mut tensor = Tensor::from_slice(values);
        self.all_reduce(&mut tensor, op)?;
        Ok(Vec::try_from(tensor)?)
    }

    /// The rows of all processes' `x`, which have one shape, one after the other.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        let Some(joined) = &self.0 else { return Ok(x.shallow_clone()) };
        let mut shape = x.size();
        shape[0] *= joined.world as i64;
        let mut out = Tensor::empty(shape, (x.kind(), x.device()));
        joined.engine(x.device()).all_gather_into(&mut out, &x.contiguous())?;
        Ok(out)
    }

    /// As [`ProcessGroup::all_gather`], for training: going back, a row gets the sum of what all processes want of
    /// it. With gradients averaged over the processes afterwards, that is the gradient of the mean of their
    /// losses.
    ///
    /// # Errors
    /// Another process is lost; the backward pass then fails likewise.
    pub fn all_gather_with_gradient(&self, x: &Tensor) -> Result<Tensor> {
        let Some(joined) = &self.0 else { return Ok(x.shallow_clone()) };
        Ok(joined.engine(x.device()).all_gather_with_gradient(x)?)
    }

    /// The sum of all processes' `x`, which going back sums gradients likewise, for use deep inside a forward
    /// pass, where no error can be returned: a lost process makes the sum this process's own, and
    /// [`ProcessGroup::check`] fails ever after.
    pub fn sum_with_gradient(&self, x: &Tensor) -> Tensor {
        let Some(joined) = &self.0 else { return x.shallow_clone() };
        joined.engine(x.device()).all_reduce_with_gradient(x).unwrap_or_else(|error| {
            joined.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.0);
            x.shallow_clone()
        })
    }

    /// Whether everything that had no way to tell of a lost process went well.
    ///
    /// # Errors
    /// It did not.
    pub fn check(&self) -> Result<()> {
        let failure = self
            .0
            .as_ref()
            .and_then(|joined| joined.failure.lock().unwrap_or_else(PoisonError::into_inner).clone());
        failure.map_or(Ok(()), |text| Err(Error::from_torch(&text)))
    }

    /// Sends `x` to the next process of the ring and gives what the one before sent, of the same shape.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn pass_on(&self, x: &Tensor) -> Result<Tensor> {
        let Some(joined) = &self.0 else { return Ok(x.shallow_clone()) };
        let (rank, world) = (joined.rank, joined.world);
        let mut received = x.empty_like();
        let engine = joined.engine(x.device());
        engine.exchange(&x.contiguous(), (rank + 1) % world, &mut received, (rank + world - 1) % world)?;
        Ok(received)
    }

    /// What each process gives, in the order of the ranks. The pieces may have different lengths.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.is_alone() {
            return Ok(vec![own.to_vec()]);
        }
        let lengths: Vec<i64> = Vec::try_from(self.all_gather(&Tensor::from_slice(&[own.len() as i64]))?)?;
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut padded = own.to_vec();
        padded.resize(longest.max(1), 0);
        let all: Vec<u8> = Vec::try_from(self.all_gather(&Tensor::from_slice(&padded))?)?;
        let pieces = all.chunks(padded.len()).zip(lengths);
        Ok(pieces.map(|(piece, length)| piece[..length as usize].to_vec()).collect())
    }

    /// The rows of all processes, which may have different numbers of them, in the order of the ranks.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn gather_rows(&self, own: &Tensor) -> Result<Tensor> {
        if self.is_alone() {
            return Ok(own.shallow_clone());
        }
        let count = own.size()[0];
        let counts: Vec<i64> = Vec::try_from(self.all_gather(&Tensor::from_slice(&[count]))?)?;
        let most = counts.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return Ok(own.shallow_clone());
        }
        let mut shape = own.size();
        shape[0] = most - count;
        let padding = Tensor::zeros(shape, (own.kind(), own.device()));
        let all = self.all_gather(&Tensor::f_cat(&[own, &padding], 0)?)?;
        let pieces: Vec<Tensor> = counts
            .iter()
            .enumerate()
            .map(|(rank, &count)| all.narrow(0, rank as i64 * most, count))
            .collect();
        Ok(Tensor::f_cat(&pieces, 0)?)
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn barrier(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |joined| Ok(joined.host.barrier()?))
    }

    /// Makes sure that all processes have the same `text`, which says all there is to their `what`.
    /// `differences` tells wherein rank 0's text and this process's differ.
    ///
    /// # Errors
    /// Some have another; every process then says which, and wherein.
    pub fn assert_same_on_all_ranks(
        &self,
        what: &'static str,
        text: &str,
        differences: impl Fn(&str, &str) -> String,
    ) -> Result<()> {
        let Some(joined) = &self.0 else { return Ok(()) };
        if joined.rank == 0 {
            joined.store.set(what, text.as_bytes())?;
        }
        let hash = fnv(text.as_bytes()) as i64;
        let hashes: Vec<i64> = Vec::try_from(self.all_gather(&Tensor::from_slice(&[hash]))?)?;
        let others: Vec<usize> = (0..joined.world).filter(|&rank| hashes[rank] != hashes[0]).collect();
        if others.is_empty() {
            return Ok(());
        }
        let mut own = String::new();
        if others.contains(&joined.rank) {
            let main = joined.store.get(what, joined.timeout)?;
            own = differences(&String::from_utf8_lossy(&main), text);
        }
        // Rank 0 holds the store and must not end before the others have read it; what each found is told by
        // all.
        let found = self.gather_bytes(own.as_bytes())?;
        let told =
            others.iter().map(|&rank| format!("rank {rank} in {}", String::from_utf8_lossy(&found[rank])));
        Err(Error::Differs { what, processes: told.collect::<Vec<_>>().join(", ") })
    }

    /// Runs a collective on the engine that moves what lies where `tensor` does; nothing for a process alone.
    fn on(
        &self,
        tensor: &mut Tensor,
        run: impl FnOnce(&C10dProcessGroup, &mut Tensor) -> mm_sys::Result<()>,
    ) -> Result<()> {
        let Some(joined) = &self.0 else { return Ok(()) };
        Ok(run(joined.engine(tensor.device()), tensor)?)
    }

    /// The engine for gradients; none for a process alone.
    pub(crate) fn gradients(&self) -> Option<&C10dProcessGroup> {
        self.0.as_ref().map(|joined| &joined.gradients)
    }
}

impl Joined {
    fn engine(&self, device: Device) -> &C10dProcessGroup {
        match (device, &self.gpu) {
            (Device::Cuda(_), Some(gpu)) => gpu,
            _ => &self.host,
        }
    }
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Gives every process the `tensors` of process `root`, in place, as one message for each type. They lie on
/// one device.
///
/// # Errors
/// Another process is lost.
pub fn broadcast_together(group: &ProcessGroup, root: usize, tensors: &[Tensor]) -> Result<()> {
    if group.is_alone() {
        return Ok(());
    }
    let mut by_kind: Vec<(Kind, Vec<Tensor>)> = Vec::new();
    for tensor in tensors {
        let (kind, tensor) = (tensor.kind(), tensor.detach());
        match by_kind.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, alike)) => alike.push(tensor),
            None => by_kind.push((kind, vec![tensor])),
        }
    }
    for (_, mut alike) in by_kind {
        let flat: Vec<Tensor> = alike.iter().map(|tensor| tensor.reshape([-1])).collect();
        let mut message = Tensor::f_cat(&flat, 0)?;
        group.broadcast_from(root, &mut message)?;
        let mut start = 0;
        for tensor in alike.iter_mut().filter(|_| group.rank() != root) {
            let count = tensor.numel() as i64;
            tensor.copy_(&message.narrow(0, start, count).view_as(tensor));
            start += count;
        }
    }
    Ok(())
}
