use std::ffi::{CStr, c_char};
use std::fmt;
use tch::Tensor;
use torch_sys::C_tensor;

/// What libtorch said when it threw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "libtorch: {}", self.0.lines().next().unwrap_or("unknown error"))
    }
}

impl std::error::Error for Error {}

/// A result of a call into libtorch.
pub type Result<T> = std::result::Result<T, Error>;

unsafe extern "C" {
    fn mm_free_error(error: *mut c_char);
}

/// Turns what a shim function returned into a result. The pointer is null or one that the shim allocated for
/// us.
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

/// The tensor that `make` puts into the place it is given.
///
/// # Safety
/// `make` keeps to the shim's rule: it returns null and puts a new at::Tensor there that nobody else owns, or
/// returns an error's text.
pub(crate) unsafe fn made(make: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    check(make(&mut out))?;
    // SAFETY: no error, so `out` is a new at::Tensor that we alone own and hand to tch.
    Ok(unsafe { Tensor::from_ptr(out) })
}
