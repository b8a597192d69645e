//! c10d: stores, process groups and collectives.

use crate::error::{Error, Result, check, made};
use std::ffi::{CString, c_char, c_int};
use std::time::Duration;
use tch::Tensor;
use torch_sys::C_tensor;

#[repr(C)]
struct RawStore {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(crate) struct RawGroup {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn mm_store_open(
        host: *const c_char,
        port: u16,
        is_server: bool,
        timeout_ms: i64,
        prefix: *const c_char,
        out: *mut *mut RawStore,
    ) -> *mut c_char;
    fn mm_store_free(store: *mut RawStore);
    fn mm_store_set(store: *mut RawStore, key: *const c_char, bytes: *const u8, count: usize) -> *mut c_char;
    fn mm_store_get(
        store: *mut RawStore,
        key: *const c_char,
        timeout_ms: i64,
        bytes: *mut *mut u8,
        count: *mut usize,
    ) -> *mut c_char;
    fn mm_free_bytes(bytes: *mut u8);
    fn mm_store_has(store: *mut RawStore, key: *const c_char, has: *mut bool) -> *mut c_char;
    fn mm_store_add(store: *mut RawStore, key: *const c_char, amount: i64, sum: *mut i64) -> *mut c_char;
    fn mm_group_new(
        store: *mut RawStore,
        name: *const c_char,
        nccl: bool,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        out: *mut *mut RawGroup,
    ) -> *mut c_char;
    fn mm_group_free(group: *mut RawGroup);
    fn mm_group_broadcast(group: *mut RawGroup, tensor: *mut C_tensor, root: c_int) -> *mut c_char;
    fn mm_group_all_reduce(group: *mut RawGroup, tensor: *mut C_tensor, op: c_int) -> *mut c_char;
    fn mm_group_all_gather(group: *mut RawGroup, out: *mut C_tensor, input: *const C_tensor) -> *mut c_char;
    fn mm_group_exchange(
        group: *mut RawGroup,
        send: *const C_tensor,
        to: c_int,
        receive: *mut C_tensor,
        from: c_int,
    ) -> *mut c_char;
    fn mm_group_barrier(group: *mut RawGroup) -> *mut c_char;
    fn mm_all_gather_with_gradient(
        group: *mut RawGroup,
        x: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mm_all_reduce_with_gradient(
        group: *mut RawGroup,
        x: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// c10d's TCPStore: keys and values for the rendezvous of processes.
#[derive(Debug)]
pub struct TcpStore {
    raw: *mut RawStore,
}

// SAFETY: c10d's stores lock what they share; the handle is freed once, by the thread that drops it.
unsafe impl Send for TcpStore {}
// SAFETY: as above.
unsafe impl Sync for TcpStore {}

impl TcpStore {
    /// Connects to the store at `host` and `port` within `timeout`; with `is_server` this process hosts it.
    /// All keys get the prefix `prefix`.
    ///
    /// # Errors
    /// The port is in use, the host is unknown, or there is no response within `timeout`.
    pub fn open(host: &str, port: u16, is_server: bool, timeout: Duration, prefix: &str) -> Result<Self> {
        let (host, prefix) = (text(host)?, text(prefix)?);
        let mut raw = std::ptr::null_mut();
        // SAFETY: two NUL-terminated strings and a place to write to that outlive the call.
        check(unsafe {
            mm_store_open(host.as_ptr(), port, is_server, millis(timeout), prefix.as_ptr(), &mut raw)
        })?;
        Ok(Self { raw })
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The store is closed.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = text(key)?;
        // SAFETY: the store lives as long as `self`; the shim copies key and value.
        check(unsafe { mm_store_set(self.raw, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value of a key; waits for it up to `timeout`.
    ///
    /// # Errors
    /// It is not set in time, or the store is closed.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let key = text(key)?;
        let (mut bytes, mut count) = (std::ptr::null_mut(), 0);
        // SAFETY: as in `set`; the two places outlive the call.
        check(unsafe { mm_store_get(self.raw, key.as_ptr(), millis(timeout), &mut bytes, &mut count) })?;
        // SAFETY: no error, so `bytes` holds `count` bytes that are ours; they are read and given back once.
        unsafe {
            let value = std::slice::from_raw_parts(bytes, count).to_vec();
            mm_free_bytes(bytes);
            Ok(value)
        }
    }

    /// Whether a key is set.
    ///
    /// # Errors
    /// The store is closed.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = text(key)?;
        let mut has = false;
        // SAFETY: as in `set`.
        check(unsafe { mm_store_has(self.raw, key.as_ptr(), &mut has) })?;
        Ok(has)
    }

    /// Adds to the number of a key, initially 0, and returns the sum.
    ///
    /// # Errors
    /// The store is closed.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = text(key)?;
        let mut sum = 0;
        // SAFETY: as in `set`.
        check(unsafe { mm_store_add(self.raw, key.as_ptr(), amount, &mut sum) })?;
        Ok(sum)
    }
}

impl Drop for TcpStore {
    fn drop(&mut self) {
        // SAFETY: made by `mm_store_open` and freed once. Groups keep the parts of the store that they need.
        unsafe { mm_store_free(self.raw) }
    }
}

/// The communication backend of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// For tensors on the CPU, over TCP.
    Gloo,
    /// For tensors on NVIDIA GPUs.
    Nccl,
}

/// The reduction of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ReduceOp {
    /// The sum.
    Sum = 0,
    /// The mean.
    Average = 1,
    /// The element-wise maximum.
    Max = 4,
}

/// A c10d process group. Every process of the group calls the same functions in the same order, with tensors
/// of the same shape and type; a call returns when its tensors are complete (on a GPU: ordered in the current
/// stream).
#[derive(Debug)]
pub struct C10dProcessGroup {
    pub(crate) raw: *mut RawGroup,
}

// SAFETY: c10d's groups may be used from any thread, and the handle is freed once.
unsafe impl Send for C10dProcessGroup {}
// SAFETY: c10d queues collectives under its own locks; the order of calls from several threads is up to the
// caller.
unsafe impl Sync for C10dProcessGroup {}

impl C10dProcessGroup {
    /// Joins the group `name` of `size` processes with a rendezvous in `store`, as rank `rank`. `timeout`
    /// bounds every collective.
    ///
    /// # Errors
    /// Processes cannot be reached within `timeout`, or this libtorch has no NCCL.
    pub fn join(
        store: &TcpStore,
        name: &str,
        backend: Backend,
        rank: usize,
        size: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let name = text(name)?;
        let (rank, size) = (number(rank)?, number(size)?);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the store is alive, the name NUL-terminated, the place outlives the call. The group keeps
        // what it needs of the store.
        check(unsafe {
            mm_group_new(
                store.raw,
                name.as_ptr(),
                backend == Backend::Nccl,
                rank,
                size,
                millis(timeout),
                &mut raw,
            )
        })?;
        Ok(Self { raw })
    }

    /// Broadcasts `tensor` from rank `root`, in place.
    ///
    /// # Errors
    /// Another process fails or does not respond within the timeout.
    pub fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<()> {
        // SAFETY: both handles are alive through the call, which waits for the end; the tensor is changed in
        // place as by tch's own.
        check(unsafe { mm_group_broadcast(self.raw, tensor.as_mut_ptr(), number(root)?) })
    }

    /// Reduces `tensor` over the processes, in place.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`].
    pub fn all_reduce(&self, tensor: &mut Tensor, op: ReduceOp) -> Result<()> {
        // SAFETY: as in `broadcast`; the number is c10d's own for the operation.
        check(unsafe { mm_group_all_reduce(self.raw, tensor.as_mut_ptr(), op as c_int) })
    }

    /// Concatenates the `input`s of all processes in `out`, which has as many rows. Both are contiguous.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`], or shapes that do not fit.
    pub fn all_gather_into(&self, out: &mut Tensor, input: &Tensor) -> Result<()> {
        // SAFETY: as in `broadcast`; c10d checks the shapes.
        check(unsafe { mm_group_all_gather(self.raw, out.as_mut_ptr(), input.as_ptr()) })
    }

    /// Sends a tensor to rank `to` and receives one from rank `from`.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`].
    pub fn exchange(&self, send: &Tensor, to: usize, receive: &mut Tensor, from: usize) -> Result<()> {
        // SAFETY: as in `broadcast`.
        check(unsafe {
            mm_group_exchange(self.raw, send.as_ptr(), number(to)?, receive.as_mut_ptr(), number(from)?)
        })
    }

    /// Waits until every process has called this.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`].
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the group lives as long as `self`.
        check(unsafe { mm_group_barrier(self.raw) })
    }

    /// The concatenated rows of `x` of all processes. The gradient of a row is the sum of its gradients in
    /// all processes.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`]; so may the backward pass fail.
    pub fn all_gather_with_gradient(&self, x: &Tensor) -> Result<Tensor> {
        // SAFETY: both handles are alive; the shim makes a new tensor, whose graph keeps the backend.
        unsafe { made(|out| mm_all_gather_with_gradient(self.raw, x.as_ptr(), out)) }
    }

    /// The sum of `x` over all processes. Gradients are summed likewise.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::all_gather_with_gradient`].
    pub fn all_reduce_with_gradient(&self, x: &Tensor) -> Result<Tensor> {
        // SAFETY: as in `all_gather_with_gradient`.
        unsafe { made(|out| mm_all_reduce_with_gradient(self.raw, x.as_ptr(), out)) }
    }
}

impl Drop for C10dProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by `mm_group_new` and freed once; graphs and reducers keep the backend.
        unsafe { mm_group_free(self.raw) }
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error(format!("{text:?} contains a NUL byte")))
}

fn number(number: usize) -> Result<c_int> {
    c_int::try_from(number).map_err(|_| Error(format!("{number} processes are more than c10d supports")))
}

fn millis(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}
