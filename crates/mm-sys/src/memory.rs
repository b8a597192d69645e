//! Gradients and elements of tensors, in place, and the memory of tensors.

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_clear_gradient(tensor: *mut C_tensor);
}

/// Drops the gradient of `tensor` and its memory, instead of filling it with zeros.
pub fn clear_gradient(tensor: &mut Tensor) {
    // SAFETY: the pointer is the live at::Tensor that `tensor` owns; the call only resets its gradient's
    // handle.
    unsafe { mm_clear_gradient(tensor.as_mut_ptr()) }
}

/// Copies `bytes`, the little-endian elements of a dense row-major tensor of type `kind`, into `target`,
/// converting to its type.
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
        // SAFETY: the blob views exactly `bytes`, which outlives it (it is dropped before this block ends and
        // nothing else holds it), is aligned for `kind`, is only read from, and has the length that shape and
        // kind ask for.
        let view = unsafe { Tensor::f_from_blob(bytes.as_ptr(), &shape, &[], kind, tch::Device::Cpu)? };
        tch::no_grad(|| target.f_copy_(&view))
    } else {
        let owned = Tensor::f_from_data_size(bytes, &shape, kind)?;
        tch::no_grad(|| target.f_copy_(&owned))
    }
}

/// A new f32 tensor on the CPU, whose row-major elements `fill` writes in place, without a copy. They start
/// at zero.
pub fn filled(shape: &[i64], fill: impl FnOnce(&mut [f32])) -> Tensor {
    let tensor = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
    // SAFETY: the tensor was made just now, so its memory is unshared; it is contiguous and holds
    // `numel` initialized f32 from `data_ptr` on, which libtorch aligns to 64 bytes. The slice ends with this
    // block, before the tensor is given away. An empty tensor has no memory to point to.
    if tensor.numel() > 0 {
        fill(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) });
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_tensor_holds_what_was_written() {
        let tensor = filled(&[2, 2], |out| out.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(Vec::<f32>::try_from(tensor.get(1)).unwrap(), [3.0, 4.0]);
        assert_eq!(filled(&[0, 3], |_| panic!("there is nothing to fill")).size(), [0, 3]);
    }

    #[test]
    fn bytes_of_another_length_are_refused_and_others_converted() {
        let mut target = Tensor::zeros([2], (Kind::Float, tch::Device::Cpu));
        assert!(copy_from_bytes(&mut target, &[0; 7], Kind::Float).is_err());
        copy_from_bytes(&mut target, &[0x80, 0x3f, 0x00, 0x40], Kind::BFloat16).unwrap();
        assert_eq!(Vec::<f32>::try_from(target).unwrap(), [1.0, 2.0]);
    }
}
