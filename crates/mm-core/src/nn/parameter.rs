//! Creation of parameters and buffers.

use std::cell::Cell;
use std::sync::PoisonError;
use std::thread::LocalKey;
use tch::nn::{Init, Path, VarStore};
use tch::{Kind, Tensor};

/// How new parameters are created.
#[derive(Clone, Copy, PartialEq)]
enum InitMode {
    /// With their initial values.
    Initialized,
    /// With memory but without values.
    Uninitialized,
    /// With a shape but without memory.
    Meta,
}

thread_local! {
    static INIT_MODE: Cell<InitMode> = const { Cell::new(InitMode::Initialized) };
    static MATRIX_KIND: Cell<Kind> = const { Cell::new(Kind::Float) };
}

/// Creates the trainable parameter `name` of shape `dims` below `path`. All parameters of all layers are
/// created by this function.
pub fn parameter(path: &Path, name: &str, dims: &[i64], init: Init) -> Tensor {
    variable(path, name, dims, init, true)
}

/// Creates a part of a layer's state that is not trained, such as running statistics, filled with `value`.
pub fn buffer(path: &Path, name: &str, dims: &[i64], value: f64) -> Tensor {
    variable(path, name, dims, Init::Const(value), false)
}

fn variable(path: &Path, name: &str, dims: &[i64], init: Init, is_trained: bool) -> Tensor {
    let kind = if is_trained && dims.len() > 1 { MATRIX_KIND.get() } else { Kind::Float };
    let options = (kind, path.device());
    match INIT_MODE.get() {
        InitMode::Initialized => {
            path.add(name, tch::nn::init(init, dims, path.device()).to_kind(kind), is_trained)
        }
        InitMode::Uninitialized => path.add(name, Tensor::empty(dims, options), is_trained),
        // One number, expanded to the shape.
        InitMode::Meta => path.add(name, Tensor::zeros([0i64; 0], options).expand(dims, false), false),
    }
}

/// Moves the variables whose names `is_frozen` selects out of `vs` into a store of their own, and stops their
/// gradients: what works on all variables of `vs` (optimizer, averages, checkpoints, broadcasts) then leaves
/// them alone. The layers keep using them.
pub fn take_frozen(vs: &VarStore, is_frozen: impl Fn(&str) -> bool) -> VarStore {
    let frozen = VarStore::new(vs.device());
    let taken: Vec<(String, Tensor)> =
        vs.variables().into_iter().filter(|(name, _)| is_frozen(name)).collect();
    let mut from = vs.variables_.lock().unwrap_or_else(PoisonError::into_inner);
    let mut to = frozen.variables_.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, variable) in taken {
        let address = variable.data_ptr();
        from.named_variables.remove(&name);
        from.trainable_variables.retain(|trained| trained.tensor.data_ptr() != address);
        to.named_variables.insert(name, variable.set_requires_grad(false));
    }
    drop((from, to));
    frozen
}

/// Runs `build`, which creates a model whose parameters will all be read from a checkpoint: on this thread
/// they have memory but no values yet. Drawing 150 million initial values takes longer than reading the
/// weights.
pub fn uninitialized<T>(build: impl FnOnce() -> T) -> T {
    with_init_mode(InitMode::Uninitialized, build)
}

/// Runs `build`, which creates a model only for the names and shapes of its parameters: on this thread they
/// take no memory, whatever the sizes, and cannot be written to.
pub fn shapes_only<T>(build: impl FnOnce() -> T) -> T {
    with_init_mode(InitMode::Meta, build)
}

/// Runs `build`, which creates a model for inference alone: on this thread its matrices and kernels are of
/// `kind`, so that a large model in bf16 is never in memory in f32. Vectors, as of norms and biases, stay
/// f32.
pub fn matrices_in<T>(kind: Kind, build: impl FnOnce() -> T) -> T {
    with(&MATRIX_KIND, kind, build)
}

fn with_init_mode<T>(mode: InitMode, build: impl FnOnce() -> T) -> T {
    with(&INIT_MODE, mode, build)
}

/// Runs `build` while `cell` is `value` on this thread.
fn with<C: Copy + 'static, T>(cell: &'static LocalKey<Cell<C>>, value: C, build: impl FnOnce() -> T) -> T {
    struct Restore<C: Copy + 'static>(&'static LocalKey<Cell<C>>, C);
    impl<C: Copy> Drop for Restore<C> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(cell, cell.replace(value));
    build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn frozen_variables_move_to_a_store_of_their_own_and_keep_their_memory() {
        let vs = VarStore::new(Device::Cpu);
        let [kept, moved] =
            ["a", "b"].map(|name| parameter(&(vs.root() / name), "weight", &[2], Init::Const(1.0)));
        let mean = buffer(&(vs.root() / "b"), "mean", &[2], 0.0);
        let frozen = take_frozen(&vs, |name| name.starts_with("b."));
        assert_eq!((vs.variables().len(), vs.trainable_variables().len()), (1, 1));
        assert_eq!((frozen.variables().len(), frozen.trainable_variables().len()), (2, 0));
        assert!(kept.requires_grad() && !moved.requires_grad() && !mean.requires_grad());
        assert_eq!(frozen.variables()["b.weight"].data_ptr(), moved.data_ptr());
    }

    #[test]
    fn uninitialized_parameters_have_their_shape_and_are_trained_as_others() {
        let vs = VarStore::new(Device::Cpu);
        let make = |name| parameter(&vs.root(), name, &[3, 2], Init::Const(4.0));
        let empty = uninitialized(|| make("a"));
        assert_eq!((empty.size(), empty.requires_grad()), (vec![3, 2], true));
        assert_eq!(
            make("b"),
            Tensor::full([3, 2], 4.0, (Kind::Float, Device::Cpu)),
            "initial values are drawn again after the closure"
        );
        assert_eq!(vs.trainable_variables().len(), 2);
    }

    #[test]
    fn matrices_are_of_the_given_type_and_vectors_are_f32() {
        let vs = VarStore::new(Device::Cpu);
        let make = |name: &str, dims: &[i64]| parameter(&vs.root(), name, dims, Init::Const(4.0));
        let [drawn, vector] = matrices_in(Kind::BFloat16, || [make("a", &[3, 2]), make("b", &[3])]);
        let empty = matrices_in(Kind::BFloat16, || uninitialized(|| make("c", &[3, 2])));
        let kinds = [drawn, vector, empty, make("d", &[3, 2])].map(|tensor| tensor.kind());
        assert_eq!(kinds, [Kind::BFloat16, Kind::Float, Kind::BFloat16, Kind::Float]);
    }

    #[test]
    fn a_shape_takes_no_memory_however_large_it_is() {
        let vs = VarStore::new(Device::Cpu);
        let huge = [1 << 20, 1 << 20, 1 << 20];
        let made = shapes_only(|| {
            let make = |name, dims: &[i64]| parameter(&vs.root(), name, dims, Init::Const(0.0));
            [make("huge", &huge), make("scalar", &[]), buffer(&vs.root(), "mean", &[1 << 40], 0.0)]
        });
        assert!(made.iter().all(|tensor| !tensor.requires_grad()));
        let shape = |name: &str| vs.variables()[name].size();
        assert_eq!((shape("huge"), shape("scalar"), shape("mean")), (huge.to_vec(), vec![], vec![1 << 40]));
    }

    #[test]
    fn a_buffer_has_its_value_and_is_not_trained() {
        let vs = VarStore::new(Device::Cpu);
        let buffer = buffer(&vs.root(), "running_var", &[2], 1.0);
        assert_eq!(buffer, Tensor::ones([2], (Kind::Float, Device::Cpu)));
        assert_eq!((vs.variables().len(), vs.trainable_variables().len()), (1, 0));
    }
}
