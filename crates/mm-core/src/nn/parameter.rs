use std::cell::Cell;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

thread_local! {
    static UNINITIALISED: Cell<bool> = const { Cell::new(false) };
}

/// Creates the trainable parameter `name` of shape `dims` below `path`. All parameters of all layers are made here.
pub fn parameter(path: &Path, name: &str, dims: &[i64], init: Init) -> Tensor {
    match UNINITIALISED.get() {
        true => path.add(name, Tensor::empty(dims, (Kind::Float, path.device())), true),
        false => path.var(name, dims, init),
    }
}

/// Runs `build`, which makes a model whose parameters will all be read from a checkpoint: on this thread they have memory but no
/// values yet. Drawing 150 million numbers only to overwrite them takes longer than reading them.
pub fn uninitialised<T>(build: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            UNINITIALISED.set(self.0);
        }
    }
    let _restore = Restore(UNINITIALISED.replace(true));
    build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;
    use tch::nn::VarStore;

    #[test]
    fn uninitialised_parameters_have_their_shape_and_are_trained_as_others() {
        let vs = VarStore::new(Device::Cpu);
        let make = |name| parameter(&vs.root(), name, &[3, 2], Init::Const(4.0));
        let empty = uninitialised(|| make("a"));
        assert_eq!((empty.size(), empty.requires_grad()), (vec![3, 2], true));
        assert_eq!(
            make("b"),
            Tensor::full([3, 2], 4.0, (Kind::Float, Device::Cpu)),
            "the closure's end is the end of it"
        );
        assert_eq!(vs.trainable_variables().len(), 2);
    }
}
