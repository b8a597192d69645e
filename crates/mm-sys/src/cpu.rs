//! The vector instructions of the processor.

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    fn mm_cpu_capability() -> *const c_char;
}

/// The vector instructions that libtorch's own kernels use on this processor, as ATen names them: "DEFAULT",
/// "AVX2", "AVX512". The variable `ATEN_CPU_CAPABILITY` lowers them.
pub fn cpu_capability() -> String {
    // SAFETY: the function returns the NUL-terminated text of a string that is made once and never changed or
    // freed.
    unsafe { CStr::from_ptr(mm_cpu_capability()) }.to_string_lossy().into_owned()
}
