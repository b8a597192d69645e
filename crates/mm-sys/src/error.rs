//! Errors of libtorch, and the calling convention of the shim.

use std::ffi::{CStr, c_char};
use std::fmt;
use tch::Tensor;
use torch_sys::C_tensor;

/// The message of an exception of libtorch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "libtorch: {}", self.0.lines().next().unwrap_or("unknown error"))
    }
}

impl std::error::Error for Error {}

/// The result of a call into libtorch.
pub type Result<T> = std::result::Result<T, Error>;

unsafe extern "C" {
    fn mm_free_error(error: *mut c_char);
}

/// The result of a shim function from its return value: null, or an error message allocated by the shim.
pub(crate) fn check(error: *mut c_char) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so it is a NUL-terminated string from strdup; it is read once and given back once.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        mm_free_error(error);
        text
    };
    Err(Error(text))
}

/// The tensor that `make` writes to its argument.
///
/// # Safety
/// `make` follows the convention of the shim: it writes a new, unshared at::Tensor and returns null, or
/// returns an error message.
pub(crate) unsafe fn made(make: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    check(make(&mut out))?;
    // SAFETY: no error, so `out` is a new, unshared at::Tensor, which tch takes over.
    Ok(unsafe { Tensor::from_ptr(out) })
}
