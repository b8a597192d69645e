use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_clear_gradient(tensor: *mut C_tensor);
}

/// Drops the gradient of `tensor` and its memory, instead of filling it with zeros.
pub fn clear_gradient(tensor: &mut Tensor) {
    // SAFETY: the pointer is the live at::Tensor that `tensor` owns; the call only resets its gradient's handle.
    unsafe { mm_clear_gradient(tensor.as_mut_ptr()) }
}

/// Copies `bytes`, the little-endian elements of a dense row-major tensor of type `kind`, into `target`, converting to its type.
///
/// # Errors
/// `bytes` does not hold exactly as many elements as `target`.
pub fn copy_from_bytes(target: &mut Tensor, bytes: &[u8], kind: Kind) -> Result<(), TchError> {
    let expected = target.numel() * kind.elt_size_in_bytes();
    if bytes.len() != expected {
        return Err(TchError::Shape(format!("{} bytes for a tensor of {expected} bytes", bytes.len())));
    }
    let shape = target.size();
    if (bytes.as_ptr() as usize).is_multiple_of(kind.elt_size_in_bytes()) {
        // SAFETY: the blob views exactly `bytes`, which outlives it (it is dropped before this block ends and nothing else
        // holds it), is aligned for `kind`, is only read from, and has the length that shape and kind ask for.
        let view = unsafe { Tensor::f_from_blob(bytes.as_ptr(), &shape, &[], kind, tch::Device::Cpu)? };
        tch::no_grad(|| target.f_copy_(&view))
    } else {
        let owned = Tensor::f_from_data_size(bytes, &shape, kind)?;
        tch::no_grad(|| target.f_copy_(&owned))
    }
}
