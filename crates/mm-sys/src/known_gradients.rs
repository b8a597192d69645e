//! Scalars with known gradients.

use crate::error::{Result, made};
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_grad_mode() -> bool;
    fn mm_scalar_with_gradients(
        value: *const C_tensor,
        inputs: *const *const C_tensor,
        gradients: *const *const C_tensor,
        count: usize,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Whether this thread builds graphs: false within `tch::no_grad` and
/// [`inference_mode`](crate::inference_mode).
pub fn grad_mode() -> bool {
    // SAFETY: reads a thread-local flag.
    unsafe { mm_grad_mode() }
}

/// The scalar `value` as a node of the graph with known gradients: pairs of an input and the gradient of
/// `value` for it, of the input's shape. A loss that computes its gradients together with its value, piece by
/// piece, needs no graph for the pieces.
///
/// The backward pass multiplies the gradients in place by the incoming one and passes them on. So they are
/// taken by value, and a second backward pass or a second derivative is an error. An input that requires no
/// gradient is left out of the graph.
///
/// # Errors
/// `value` is not a scalar, or a gradient does not have the shape of its input.
pub fn scalar_with_gradients(value: &Tensor, gradients: Vec<(&Tensor, Tensor)>) -> Result<Tensor> {
    let inputs: Vec<_> = gradients.iter().map(|(input, _)| input.as_ptr()).collect();
    let known: Vec<_> = gradients.iter().map(|(_, gradient)| gradient.as_ptr()).collect();
    // SAFETY: both arrays hold as many pointers as is said, to tensors that live through the call; the shim
    // keeps handles of its own, which share the gradients' memory by libtorch's reference counts. `gradients`
    // is taken by value so that no caller reads what backward rescales.
    unsafe {
        made(|out| {
            mm_scalar_with_gradients(value.as_ptr(), inputs.as_ptr(), known.as_ptr(), inputs.len(), out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    #[test]
    fn known_gradients_reach_their_inputs_times_what_comes_in() {
        let (x, y, locked) = (leaf(&[1.0, 2.0]), leaf(&[3.0]), Tensor::from_slice(&[5.0f32]));
        let doubled = &x * 2.0;
        let gradients = vec![
            (&doubled, Tensor::from_slice(&[10.0f32, 20.0])),
            (&y, Tensor::from_slice(&[30.0f32])),
            (&locked, Tensor::from_slice(&[40.0f32])),
        ];
        let loss = scalar_with_gradients(&Tensor::from(7.0f32), gradients).unwrap();
        assert_eq!(loss.double_value(&[]), 7.0);
        (&loss * 0.5).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [10.0, 20.0]);
        assert_eq!(Vec::<f32>::try_from(y.grad()).unwrap(), [15.0]);
        assert!(!locked.grad().defined());
    }

    #[test]
    fn a_leaf_takes_over_the_memory_of_its_gradient() {
        let (x, gradient) = (leaf(&[1.0, 2.0]), Tensor::from_slice(&[3.0f32, 4.0]));
        let place = gradient.data_ptr();
        scalar_with_gradients(&Tensor::from(0.0f32), vec![(&x, gradient)]).unwrap().backward();
        assert_eq!(x.grad().data_ptr(), place);
    }

    #[test]
    fn a_second_backward_pass_is_an_error_in_words() {
        let x = leaf(&[1.0]);
        let loss =
            scalar_with_gradients(&Tensor::from(0.0f32), vec![(&x, Tensor::from_slice(&[1.0f32]))]).unwrap();
        Tensor::f_run_backward(&[&loss], &[&x], true, false).unwrap();
        for keep_graph in [true, false] {
            let error = Tensor::f_run_backward(&[&loss], &[&x], keep_graph, false).unwrap_err().to_string();
            assert!(error.contains("compute the loss again"), "{error}");
        }
        let again =
            scalar_with_gradients(&Tensor::from(0.0f32), vec![(&x, Tensor::from_slice(&[1.0f32]))]).unwrap();
        let error = Tensor::f_run_backward(&[&again], &[&x], true, true).unwrap_err().to_string();
        assert!(error.contains("no second"), "{error}");
    }

    #[test]
    fn without_grad_mode_or_inputs_that_need_gradients_there_is_no_graph() {
        let (x, gradient) = (leaf(&[1.0]), || Tensor::from_slice(&[1.0f32]));
        let value = Tensor::from(0.0f32);
        assert!(grad_mode() && !tch::no_grad(grad_mode));
        assert!(
            !tch::no_grad(|| scalar_with_gradients(&value, vec![(&x, gradient())])).unwrap().requires_grad()
        );
        assert!(!scalar_with_gradients(&value, vec![(&x.detach(), gradient())]).unwrap().requires_grad());
    }

    #[test]
    fn gradients_of_another_shape_and_losses_of_many_numbers_are_refused() {
        let x = leaf(&[1.0, 2.0]);
        let gradient = || Tensor::from_slice(&[1.0f32]);
        let error =
            scalar_with_gradients(&Tensor::from(0.0f32), vec![(&x, gradient())]).unwrap_err().to_string();
        assert!(error.contains("[1] for an input [2]"), "{error}");
        assert!(scalar_with_gradients(&x.detach(), vec![]).is_err());
    }
}
