//! The processes of a run and their collectives.

use crate::error::first_line;
use crate::rendezvous::rendezvous;
use crate::{Error, Launch, Result};
use mm_sys::{Backend, C10dProcessGroup, ReduceOp, TcpStore};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// The process group of a run. A single process is a group too: its collectives return their input, and no
/// socket is opened.
///
/// Every process calls the same collectives in the same order. Clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct ProcessGroup(Option<Arc<Joined>>);

#[derive(Debug)]
struct Joined {
    rank: usize,
    world: usize,
    /// For tensors on the CPU.
    host: C10dProcessGroup,
    /// For tensors on GPUs, if the run uses any.
    gpu: Option<C10dProcessGroup>,
    /// For gradients during a backward pass, which may run collectives of its own.
    gradients: C10dProcessGroup,
    /// The first failure of a function that returns no error.
    failure: Mutex<Option<String>>,
    store: TcpStore,
    timeout: Duration,
}

impl ProcessGroup {
    /// The group of a single process.
    pub fn alone() -> Self {
        Self(None)
    }

    /// Joins the process group of `launch`, over NCCL where `device` is a GPU, else over Gloo. `timeout`
    /// bounds the rendezvous and every collective.
    ///
    /// # Errors
    /// The rendezvous fails: its address cannot be opened or reached, a process is missing after `timeout`,
    /// or two have the same rank.
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

    /// Rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.rank)
    }

    /// World size: the number of processes.
    pub fn world(&self) -> usize {
        self.0.as_ref().map_or(1, |joined| joined.world)
    }

    /// Whether this is rank 0, which writes files and logs.
    pub fn is_main(&self) -> bool {
        self.rank() == 0
    }

    /// Whether the world size is 1.
    pub fn is_alone(&self) -> bool {
        self.0.is_none()
    }

    /// Broadcasts `tensor` from rank 0, in place.
    ///
    /// # Errors
    /// Another process fails.
    pub fn broadcast(&self, tensor: &mut Tensor) -> Result<()> {
        self.broadcast_from(0, tensor)
    }

    /// Broadcasts `tensor` from rank `root`, in place.
    ///
    /// # Errors
    /// Another process fails.
    pub fn broadcast_from(&self, root: usize, tensor: &mut Tensor) -> Result<()> {
        self.on(tensor, |engine, tensor| engine.broadcast(tensor, root))
    }

    /// Reduces `tensor` over all processes, in place.
    ///
    /// # Errors
    /// Another process fails.
    pub fn all_reduce(&self, tensor: &mut Tensor, op: ReduceOp) -> Result<()> {
        self.on(tensor, |engine, tensor| engine.all_reduce(tensor, op))
    }

    /// `values` reduced over all processes, element by element, on the CPU: for metrics and decisions.
    ///
    /// # Errors
    /// Another process fails.
    pub fn reduce(&self, values: &[f64], op: ReduceOp) -> Result<Vec<f64>> {
        if self.is_alone() || values.is_empty() {
            return Ok(values.to_vec());
        }
        let mut tensor = Tensor::from_slice(values);
        self.all_reduce(&mut tensor, op)?;
        Ok(Vec::try_from(tensor)?)
    }

    /// The factor that makes the mean over processes of their sums over `count` terms the mean over the terms
    /// of all: gradients are averaged over processes, whose numbers of terms differ.
    ///
    /// # Errors
    /// Another process fails.
    pub fn mean_scale(&self, count: usize) -> Result<f64> {
        let all = self.reduce(&[count as f64], ReduceOp::Sum)?[0];
        Ok(self.world() as f64 / all.max(1.0))
    }

    /// Concatenates the rows of `x` of all processes in the order of the ranks. Shapes must be equal.
    ///
    /// # Errors
    /// Another process fails.
    pub fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        let Some(joined) = &self.0 else { return Ok(x.shallow_clone()) };
        let mut shape = x.size();
        shape[0] *= joined.world as i64;
        let mut out = Tensor::empty(shape, (x.kind(), x.device()));
        joined.engine(x.device()).all_gather_into(&mut out, &x.contiguous())?;
        Ok(out)
    }

    /// [`ProcessGroup::all_gather`] with a gradient: a row gets the sum of its gradients in all processes.
    /// With gradients averaged over the processes afterwards, that is the gradient of the mean of their
    /// losses.
    ///
    /// # Errors
    /// Another process fails; so may the backward pass.
    pub fn all_gather_with_gradient(&self, x: &Tensor) -> Result<Tensor> {
        let Some(joined) = &self.0 else { return Ok(x.shallow_clone()) };
        Ok(joined.engine(x.device()).all_gather_with_gradient(x)?)
    }

    /// The sum of `x` over all processes, whose gradient is summed likewise. For use inside a forward pass,
    /// where no error can be returned: if another process fails, the result is `x`, and
    /// [`ProcessGroup::check`] fails from then on.
    pub fn sum_with_gradient(&self, x: &Tensor) -> Tensor {
        let Some(joined) = &self.0 else { return x.shallow_clone() };
        joined.engine(x.device()).all_reduce_with_gradient(x).unwrap_or_else(|error| {
            joined.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.0);
            x.shallow_clone()
        })
    }

    /// Checks the functions that return no error.
    ///
    /// # Errors
    /// Another process failed in one of them.
    pub fn check(&self) -> Result<()> {
        let failure = self
            .0
            .as_ref()
            .and_then(|joined| joined.failure.lock().unwrap_or_else(PoisonError::into_inner).clone());
        failure.map_or(Ok(()), |text| Err(Error::from_torch(&text)))
    }

    /// Sends `x` to the next rank of the ring and returns the tensor that the previous rank sent, of the same
    /// shape.
    ///
    /// # Errors
    /// Another process fails.
    pub fn ring_exchange(&self, x: &Tensor) -> Result<Tensor> {
        let Some(joined) = &self.0 else { return Ok(x.shallow_clone()) };
        let (rank, world) = (joined.rank, joined.world);
        let mut received = x.empty_like();
        let engine = joined.engine(x.device());
        engine.exchange(&x.contiguous(), (rank + 1) % world, &mut received, (rank + world - 1) % world)?;
        Ok(received)
    }

    /// The bytes of each process, in the order of the ranks. Lengths may differ.
    ///
    /// # Errors
    /// Another process fails.
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

    /// Rank 0's bytes, on every rank; those of the other ranks are ignored.
    ///
    /// # Errors
    /// Another process fails.
    pub fn broadcast_bytes(&self, own: &[u8]) -> Result<Vec<u8>> {
        Ok(self.gather_bytes(if self.is_main() { own } else { &[] })?.swap_remove(0))
    }

    /// Concatenates the rows of all processes, whose numbers may differ, in the order of the ranks.
    ///
    /// # Errors
    /// Another process fails.
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

    /// Waits until every process has called this.
    ///
    /// # Errors
    /// Another process fails.
    pub fn barrier(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |joined| Ok(joined.host.barrier()?))
    }

    /// Checks that all processes have the same `text`, a complete description of their `what`. `differences`
    /// describes the difference between the text of rank 0 and that of this process.
    ///
    /// # Errors
    /// Some have another text. The error is the same in every process: the ranks, and how they differ.
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
        // Rank 0 hosts the store and must not exit before the others have read it: all exchange their
        // findings.
        let found = self.gather_bytes(own.as_bytes())?;
        let described: Vec<String> = others
            .iter()
            .map(|&rank| format!("rank {rank} in {}", String::from_utf8_lossy(&found[rank])))
            .collect();
        Err(Error::Differs { what, processes: described.join(", ") })
    }

    /// Runs a collective on the backend of the device of `tensor`; nothing in a single process.
    fn on(
        &self,
        tensor: &mut Tensor,
        run: impl FnOnce(&C10dProcessGroup, &mut Tensor) -> mm_sys::Result<()>,
    ) -> Result<()> {
        let Some(joined) = &self.0 else { return Ok(()) };
        Ok(run(joined.engine(tensor.device()), tensor)?)
    }

    /// The backend for gradients; none in a single process.
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

/// The FNV-1a hash.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Broadcasts `tensors`, all on one device, from rank `root`, in place, as one message for each element type.
///
/// # Errors
/// Another process fails.
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
