//! Batch normalization, also over all processes of a run.

use super::{buffer, parameter};
use std::cell::RefCell;
use std::sync::Arc;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// Batch normalization over `[B, C, H, W]` (Ioffe and Szegedy 2015), with the parameter names, eps and
/// momentum of torchvision.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

/// The processes whose batches are normalized as one.
#[derive(Clone)]
pub struct Processes {
    /// The number of processes, with the same number of samples each.
    pub count: usize,
    /// Sums a tensor over all processes, with gradients summed in the same way.
    pub sum: Arc<dyn Fn(&Tensor) -> Tensor>,
}

thread_local! {
    static PROCESSES: RefCell<Option<Processes>> = const { RefCell::new(None) };
}

/// Runs `body`, in which every [`BatchNorm`] in training normalizes by the statistics of all `processes`, as
/// torch's SyncBatchNorm does.
pub fn over_processes<T>(processes: Processes, body: impl FnOnce() -> T) -> T {
    struct Before(Option<Processes>);
    impl Drop for Before {
        fn drop(&mut self) {
            PROCESSES.set(self.0.take());
        }
    }
    let _before = Before(PROCESSES.replace(Some(processes)));
    body()
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Creates `weight` (each `scale`), `bias` (zero) and the running statistics (zero and one) below `path`,
    /// all `[channels]`.
    pub fn new(path: &Path, channels: i64, scale: f64) -> Self {
        Self {
            weight: parameter(path, "weight", &[channels], Init::Const(scale)),
            bias: parameter(path, "bias", &[channels], Init::Const(0.0)),
            running_mean: buffer(path, "running_mean", &[channels], 0.0),
            running_var: buffer(path, "running_var", &[channels], 1.0),
        }
    }

    /// Normalizes `x` `[B, C, H, W]`: in training by the statistics of the batch, which also update the
    /// running statistics, else by the running statistics.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        if let Some(processes) = PROCESSES.with_borrow(Clone::clone).filter(|_| train) {
            return self.forward_over(x, &processes);
        }
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        x.batch_norm(weight, bias, mean, var, train, Self::MOMENTUM, Self::EPS, true)
    }

    /// [`BatchNorm::forward`] in training, by the statistics of the batches of all processes.
    fn forward_over(&self, x: &Tensor, processes: &Processes) -> Tensor {
        let x32 = x.to_kind(Kind::Float);
        let dims = [0i64, 2, 3];
        let mean_of = |x: &Tensor| {
            (processes.sum)(&x.mean_dim(dims.as_slice(), true, Kind::Float)) / processes.count as f64
        };
        let mean = mean_of(&x32); // [1, C, 1, 1]
        let centred = x32 - &mean;
        // Of the centered values, in a second exchange: the difference of two large sums would lose
        // precision.
        let var = mean_of(&centred.square());
        tch::no_grad(|| {
            let count = (x.numel() as i64 / x.size()[1]) as f64 * processes.count as f64;
            let follow = |running: &Tensor, now: Tensor| {
                let _ = running.shallow_clone().lerp_(&now.view_as(running), Self::MOMENTUM);
            };
            follow(&self.running_mean, mean.detach());
            follow(&self.running_var, var.detach() * (count / (count - 1.0).max(1.0)));
        });
        let channels = |parameter: &Tensor| parameter.view([1, -1, 1, 1]);
        let y = centred * (var + Self::EPS).rsqrt() * channels(&self.weight) + channels(&self.bias);
        y.to_kind(x.kind())
    }

    /// The scale and the shift of each channel outside training, each `[C]`.
    pub fn factors_and_terms(&self) -> (Tensor, Tensor) {
        tch::no_grad(|| {
            let factors = &self.weight * (&self.running_var + Self::EPS).rsqrt();
            let terms = &self.bias - &self.running_mean * &factors;
            (factors, terms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    /// The gradients of input, weight and bias, and the running statistics, after a pass in training.
    fn pass(over: Option<Processes>) -> Vec<Tensor> {
        let x = (normal(9, &[4, 3, 5, 5]) * 2.0 + 3.0).set_requires_grad(true);
        let vs = VarStore::new(Device::Cpu);
        let norm = BatchNorm::new(&vs.root(), 3, 0.7);
        let forward = || norm.forward(&x, true);
        let y = match over {
            Some(processes) => over_processes(processes, forward),
            None => forward(),
        };
        let weights = Tensor::arange(y.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(&y);
        (&y * weights).sum(Kind::Float).backward();
        vec![y.detach(), x.grad(), norm.weight.grad(), norm.bias.grad(), norm.running_mean, norm.running_var]
    }

    #[test]
    fn statistics_over_one_process_are_libtorchs_own() {
        let one = Processes { count: 1, sum: Arc::new(Tensor::shallow_clone) };
        for (ours, expected) in pass(Some(one)).iter().zip(pass(None)) {
            let difference = (ours - &expected).abs().max().double_value(&[]);
            assert!(difference < 2e-5, "{difference}: {ours:?}");
        }
    }

    #[test]
    fn processes_are_forgotten_with_their_closure() {
        let panicking = Processes { count: 1, sum: Arc::new(|_| panic!("nobody asks for a sum")) };
        over_processes(panicking, || ());
        assert_eq!(pass(None).len(), 6);
    }
}
