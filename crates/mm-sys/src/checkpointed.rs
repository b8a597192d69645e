//! Gradient checkpointing.

use crate::error::{Result, made};
use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_checkpointed(
        input: *const C_tensor,
        context: *mut c_void,
        run: unsafe extern "C" fn(*mut c_void, *mut C_tensor, *mut c_void) -> *mut C_tensor,
        drop: unsafe extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mm_tell_failure(failure: *mut c_void, bytes: *const c_char, length: usize);
}

/// `body(input)` with a graph that keeps only the input: the backward pass runs `body` again for its
/// intermediate values (Chen et al. 2016, "Training deep nets with sublinear memory cost"). The second run
/// draws the same random numbers under the same autocast as the first, so that gradients, also those of
/// parameters that `body` owns, equal those without checkpointing. If nothing in `body` requires a gradient,
/// this is a plain call.
///
/// `body` is `Send` because the backward pass may run on a thread of libtorch (on a GPU it does). Only full
/// backward passes are supported: gradients of chosen inputs (`Tensor::run_backward`) and second derivatives
/// are errors.
///
/// # Errors
/// `body` panics. A panic in the backward pass makes that pass fail with its message.
pub fn checkpointed<F>(input: &Tensor, body: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Tensor + Send + 'static,
{
    let context = Box::into_raw(Box::new(body)).cast::<c_void>();
    // SAFETY: `input` lives through the call. The shim takes `context` over, whether it fails or not: it
    // gives it to `run::<F>` any number of times, never to two at a time (a node of the graph locks itself),
    // and at last once to `drop::<F>`. F is 'static and Send, so it may live as long as the graph and be run
    // and dropped on whichever thread that is on.
    unsafe { made(|out| mm_checkpointed(input.as_ptr(), context, run::<F>, drop::<F>, out)) }
}

/// # Safety
/// `context` is a live, unshared `Box<F>` made raw, `input` a live at::Tensor, `failure` a live std::string
/// of the shim's.
unsafe extern "C" fn run<F: Fn(&Tensor) -> Tensor>(
    context: *mut c_void,
    input: *mut C_tensor,
    failure: *mut c_void,
) -> *mut C_tensor {
    // SAFETY: as promised by the caller; the input is a handle of its own, so `body` may keep it. What a
    // panic leaves half done is `body`'s own and is only ever given back to it.
    let output = catch_unwind(AssertUnwindSafe(|| unsafe {
        let body = &*context.cast::<F>();
        body(&Tensor::clone_from_ptr(input))
    }));
    match output {
        // The shim owns the at::Tensor from here on.
        Ok(output) => ManuallyDrop::new(output).as_mut_ptr(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "panicked".to_owned());
            // SAFETY: `failure` is live, and the bytes are read within the call.
            unsafe { mm_tell_failure(failure, text.as_ptr().cast(), text.len()) };
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// `context` is a `Box<F>` made raw, which is not used after this.
unsafe extern "C" fn drop<F>(context: *mut c_void) {
    // SAFETY: as promised by the caller.
    std::mem::drop(unsafe { Box::from_raw(context.cast::<F>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GENERATOR;
    use crate::autocast_bf16;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tch::{Device, Kind};

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Two layers with dropout between them, and the number of their runs.
    struct Layers {
        weight: Tensor,
        runs: Arc<AtomicUsize>,
    }

    impl Layers {
        fn new() -> Self {
            let weight = (Tensor::arange(64, F32) * 0.7).sin().view([8, 8]).set_requires_grad(true);
            Self { weight, runs: Arc::default() }
        }

        fn body(&self) -> impl Fn(&Tensor) -> Tensor + Send + 'static {
            let (weight, runs) = (self.weight.shallow_clone(), Arc::clone(&self.runs));
            move |x| {
                runs.fetch_add(1, Ordering::Relaxed);
                x.linear(&weight, None::<Tensor>)
                    .gelu("none")
                    .dropout(0.4, true)
                    .linear(&weight, None::<Tensor>)
            }
        }

        fn runs(&self) -> usize {
            self.runs.load(Ordering::Relaxed)
        }
    }

    fn input(requires_grad: bool) -> Tensor {
        (Tensor::arange(24, F32) * 0.3).cos().view([3, 8]).set_requires_grad(requires_grad)
    }

    /// The loss, the gradients of input and weight, and the next random numbers, under a fixed seed.
    fn gradients(forward: impl Fn(&Layers, &Tensor) -> Tensor) -> (Vec<Tensor>, usize) {
        tch::manual_seed(3);
        let (layers, x) = (Layers::new(), input(true));
        let loss = forward(&layers, &(&x * 2.0)).square().sum(Kind::Float);
        let drawn = Tensor::rand([2], F32);
        loss.backward();
        (vec![loss.detach(), x.grad(), layers.weight.grad(), drawn, Tensor::rand([2], F32)], layers.runs())
    }

    #[test]
    fn gradients_and_random_numbers_are_those_of_the_plain_call() {
        let _turn = GENERATOR.lock();
        let (expected, runs) = gradients(|layers, x| layers.body()(x));
        assert_eq!(runs, 1);
        let (found, runs) = gradients(|layers, x| checkpointed(x, layers.body()).unwrap());
        assert_eq!((found, runs), (expected, 2));
    }

    #[test]
    fn the_second_run_is_under_the_autocast_of_the_first() {
        let _turn = GENERATOR.lock();
        let (expected, _) = gradients(|layers, x| autocast_bf16(Device::Cpu, || layers.body()(x)));
        let (found, runs) =
            gradients(|layers, x| autocast_bf16(Device::Cpu, || checkpointed(x, layers.body()).unwrap()));
        assert_eq!(runs, 2);
        for (found, expected) in found.iter().zip(&expected) {
            let difference = (found - expected).abs().max().double_value(&[]);
            // Without checkpointing, both uses of the weight share one bf16 copy and so one bf16 gradient.
            assert!(difference <= 0.01 * expected.abs().max().double_value(&[]), "{difference}");
        }
        let (in_f32, _) = gradients(|layers, x| layers.body()(x));
        assert_ne!(in_f32[1], found[1]);
    }

    #[test]
    fn a_weight_that_autocast_narrowed_in_a_checkpoint_still_learns_outside_of_it() {
        let _turn = GENERATOR.lock();
        let layers = Layers::new();
        let loss = autocast_bf16(Device::Cpu, || {
            let _ = tch::no_grad(|| checkpointed(&input(false), layers.body()).unwrap());
            input(false).linear(&layers.weight, None::<Tensor>).sum(Kind::Float)
        });
        loss.backward();
        assert!(layers.weight.grad().defined());
    }

    #[test]
    fn parameters_learn_where_the_input_needs_no_gradient() {
        let _turn = GENERATOR.lock();
        let layers = Layers::new();
        checkpointed(&input(false), layers.body()).unwrap().sum(Kind::Float).backward();
        assert!(layers.weight.grad().abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn what_needs_no_gradient_runs_once() {
        let _turn = GENERATOR.lock();
        let (layers, locked) = (Layers::new(), Layers::new());
        let _ = locked.weight.set_requires_grad(false);
        assert!(!tch::no_grad(|| checkpointed(&input(true), layers.body())).unwrap().requires_grad());
        assert!(!checkpointed(&input(false), locked.body()).unwrap().requires_grad());
        assert_eq!((layers.runs(), locked.runs()), (1, 1));
    }

    #[test]
    fn checkpoints_in_checkpoints_give_the_same_gradients() {
        let _turn = GENERATOR.lock();
        let (expected, _) = gradients(|layers, x| layers.body()(&layers.body()(x)));
        let (found, runs) = gradients(|layers, x| {
            let (first, second) = (layers.body(), layers.weight.shallow_clone());
            let second = Layers { weight: second, runs: Arc::clone(&layers.runs) };
            checkpointed(x, move |x| checkpointed(&first(x), second.body()).unwrap()).unwrap()
        });
        assert_eq!(runs, 5);
        for (found, expected) in found.iter().zip(&expected) {
            // The weight's four gradients are summed in another order.
            assert!(found.allclose(expected, 1e-5, 1e-5, false), "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn a_panic_is_an_error_in_either_run_and_the_next_call_works() {
        let _turn = GENERATOR.lock();
        let x = input(true);
        let error = checkpointed(&x, |_| panic!("no such layer")).unwrap_err();
        assert_eq!(error.to_string(), "libtorch: no such layer");
        let runs = AtomicUsize::new(0);
        let y = checkpointed(&x, move |x| match runs.fetch_add(1, Ordering::Relaxed) {
            0 => x * 2.0,
            run => panic!("run {run} fails"),
        });
        let error = y.unwrap().sum(Kind::Float).f_backward().unwrap_err().to_string();
        assert!(error.contains("run 1 fails"), "{error}");
        checkpointed(&x, |x| x * 2.0).unwrap().sum(Kind::Float).backward();
        assert_eq!(x.grad(), Tensor::full([3, 8], 2.0, F32));
    }

    #[test]
    fn what_a_checkpoint_cannot_do_is_an_error_in_words() {
        let _turn = GENERATOR.lock();
        let x = input(true);
        let loss = || checkpointed(&x, |x| x * 2.0).unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[loss()], &[&x], false, false).unwrap_err().to_string();
        assert!(error.contains("chosen inputs"), "{error}");
        let once = loss();
        once.backward();
        assert!(once.f_backward().unwrap_err().to_string().contains("a second time"));
    }

    #[test]
    fn the_body_is_dropped_with_the_graph() {
        let _turn = GENERATOR.lock();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let x = input(true);
        let y = checkpointed(&x, move |x| {
            let _ = &inside;
            x * 2.0
        })
        .unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        std::mem::drop(y);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
