//! The checks of a step's arguments, and the order of the calls.

use crate::{Error, Result};
use tch::Tensor;

/// Counts the calls of a scheduler that remembers earlier ones.
#[derive(Debug)]
pub(super) struct CallCounter {
    first: usize,
    next: usize,
    calls: usize,
}

impl CallCounter {
    /// A counter for a run of `calls` model calls.
    pub fn new(calls: usize) -> Self {
        Self { first: 0, next: 0, calls }
    }

    /// The number of calls since the first.
    pub fn done(&self) -> usize {
        self.next - self.first
    }

    /// Makes `call` the first.
    pub fn begin(&mut self, call: usize) -> Result<()> {
        check_call(call, self.calls)?;
        (self.first, self.next) = (call, call);
        Ok(())
    }

    /// Checks the arguments of a step and that `call` is the next.
    pub fn check(&self, model_output: &Tensor, call: usize, sample: &Tensor) -> Result<()> {
        check_step(model_output, call, sample, self.calls)?;
        if call != self.next {
            return Err(Error::Scheduler(format!(
                "call {call} where call {} is next: this scheduler remembers earlier calls; set_begin_index \
                 starts another run",
                self.next
            )));
        }
        Ok(())
    }

    /// Counts a call.
    pub fn advance(&mut self) {
        self.next += 1;
    }
}

/// Checks that a run of `calls` model calls has `call`.
pub(super) fn check_call(call: usize, calls: usize) -> Result<()> {
    if call >= calls {
        return Err(Error::Scheduler(format!("call {call} of a run of {calls} model calls, counted from 0")));
    }
    Ok(())
}

/// Checks the arguments of a step of a run of `calls` model calls.
pub(super) fn check_step(model_output: &Tensor, call: usize, sample: &Tensor, calls: usize) -> Result<()> {
    check_call(call, calls)?;
    let (output, sample) = (model_output.size(), sample.size());
    if output != sample {
        return Err(Error::Scheduler(format!(
            "the model's output is {output:?} and the sample {sample:?}: their shapes must be equal"
        )));
    }
    Ok(())
}

/// Draws noise like `sample` in f32.
pub(super) fn draw(noise: &mut dyn FnMut() -> Tensor, sample: &Tensor) -> Result<Tensor> {
    let drawn = noise();
    if drawn.size() != sample.size() {
        return Err(Error::Scheduler(format!(
            "the noise is {:?} and the sample {:?}: their shapes must be equal",
            drawn.size(),
            sample.size()
        )));
    }
    Ok(drawn.to_device(sample.device()).to_kind(tch::Kind::Float))
}
