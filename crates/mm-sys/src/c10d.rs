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
    fn mm_group_abort(group: *mut RawGroup) -> *mut c_char;
    fn mm_group_broadcast(group: *mut RawGroup, tensor: *mut C_tensor, root: c_int) -> *mut c_char;
    fn mm_group_all_reduce(group: *mut RawGroup, tensor: *mut C_tensor, op: c_int) -> *mut c_char;
    fn mm_group_all_gather(group: *mut RawGroup, out: *mut C_tensor, input: *const C_tensor) -> *mut c_char;
    fn mm_group_reduce_scatter(
        group: *mut RawGroup,
        out: *mut C_tensor,
        input: *const C_tensor,
    ) -> *mut c_char;
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

/// c10d's TCPStore: keys and values where processes meet before they form groups.
#[derive(Debug)]
pub struct TcpStore {
    raw: *mut RawStore,
}

// SAFETY: c10d's stores lock what they share; the handle is freed once, by whichever thread drops it.
unsafe impl Send for TcpStore {}
// SAFETY: as above.
unsafe impl Sync for TcpStore {}

impl TcpStore {
    /// Connects to the store at `host` and `port` and waits for it up to `timeout`; with `is_server` this
    /// process holds it. All keys begin with `prefix`.
    ///
    /// # Errors
    /// The port is taken, the host is unknown, or nobody answers in time.
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
    /// The store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = text(key)?;
        // SAFETY: the store lives as long as `self`; the shim copies key and value.
        check(unsafe { mm_store_set(self.raw, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// A key's value; waits for it up to `timeout`.
    ///
    /// # Errors
    /// It is not set in time, or the store is gone.
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
    /// The store is gone.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = text(key)?;
        let mut has = false;
        // SAFETY: as in `set`.
        check(unsafe { mm_store_has(self.raw, key.as_ptr(), &mut has) })?;
        Ok(has)
    }

    /// Adds to the number under a key, which begins at 0, and gives the sum.
    ///
    /// # Errors
    /// The store is gone.
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
        // SAFETY: made by `mm_store_open` and freed once. Groups hold the store's parts that they need
        // themselves.
        unsafe { mm_store_free(self.raw) }
    }
}

/// Which engine moves a group's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Tensors on the CPU, over TCP.
    Gloo,
    /// Tensors on NVIDIA GPUs.
    Nccl,
}

/// How the tensors of all processes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ReduceOp {
    /// Their sum.
    Sum = 0,
    /// Their mean.
    Average = 1,
    /// The largest, element by element.
    Max = 4,
}

/// A c10d process group. Every process of the group calls the same functions in the same order, with tensors
/// of one shape and type; a call waits until its tensors are whole (on a GPU: until the current stream does).
#[derive(Debug)]
pub struct C10dProcessGroup {
    pub(crate) raw: *mut RawGroup,
}

// SAFETY: c10d's groups may be used from any thread, and the handle is freed once.
unsafe impl Send for C10dProcessGroup {}
// SAFETY: c10d queues collectives under locks of its own; which of two threads comes first is for the caller
// to settle.
unsafe impl Sync for C10dProcessGroup {}

impl C10dProcessGroup {
    /// Joins the group called `name` of `size` processes that meet in `store`, as process `rank`. A
    /// collective that takes longer than `timeout` fails.
    ///
    /// # Errors
    /// Processes cannot be reached in time, or this libtorch has no NCCL.
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
        // SAFETY: the store is alive, the name NUL-terminated, the place outlives the call. The group holds
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

    /// Ends what is under way, here and, as they find the connection closed, in all other processes.
    ///
    /// # Errors
    /// The engine fails to.
    pub fn abort(&self) -> Result<()> {
        // SAFETY: the group lives as long as `self`.
        check(unsafe { mm_group_abort(self.raw) })
    }

    /// Gives every process the `tensor` of process `root`, in place.
    ///
    /// # Errors
    /// A process is lost or does not come in time.
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

    /// Puts the `input`s of all processes one after the other into `out`, which holds that many rows. Both
    /// are contiguous.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`], or shapes that do not fit.
    pub fn all_gather_into(&self, out: &mut Tensor, input: &Tensor) -> Result<()> {
        // SAFETY: as in `broadcast`; c10d checks the shapes.
        check(unsafe { mm_group_all_gather(self.raw, out.as_mut_ptr(), input.as_ptr()) })
    }

    /// Sums the `input`s of all processes and leaves each process its part of the rows in `out`. Both are
    /// contiguous.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::all_gather_into`].
    pub fn reduce_scatter(&self, out: &mut Tensor, input: &Tensor) -> Result<()> {
        // SAFETY: as in `all_gather_into`.
        check(unsafe { mm_group_reduce_scatter(self.raw, out.as_mut_ptr(), input.as_ptr()) })
    }

    /// Sends one tensor to process `to` while one comes from process `from`.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`].
    pub fn exchange(&self, send: &Tensor, to: usize, receive: &mut Tensor, from: usize) -> Result<()> {
        // SAFETY: as in `broadcast`.
        check(unsafe {
            mm_group_exchange(self.raw, send.as_ptr(), number(to)?, receive.as_mut_ptr(), number(from)?)
        })
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`].
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the group lives as long as `self`.
        check(unsafe { mm_group_barrier(self.raw) })
    }

    /// The rows of `x` of all processes, one after the other. Going back, a row gets the sum of what all
    /// processes want of it.
    ///
    /// # Errors
    /// As [`C10dProcessGroup::broadcast`]; so may the backward pass fail.
    pub fn all_gather_with_gradient(&self, x: &Tensor) -> Result<Tensor> {
        // SAFETY: both handles are alive; the shim makes a new tensor, whose graph holds the group's engine
        // itself.
        unsafe { made(|out| mm_all_gather_with_gradient(self.raw, x.as_ptr(), out)) }
    }

    /// The sum of `x` over all processes. Going back, gradients are summed likewise.
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
        // SAFETY: made by `mm_group_new` and freed once; graphs and reducers hold the engine themselves.
        unsafe { mm_group_free(self.raw) }
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error(format!("{text:?} has a NUL byte within")))
}

fn number(number: usize) -> Result<c_int> {
    c_int::try_from(number).map_err(|_| Error(format!("{number} processes are more than c10d can count")))
}

fn millis(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}
