//! Data-parallel averaging of gradients.

use crate::{ProcessGroup, Result};
use mm_sys::Reducer;
use std::collections::BTreeMap;
use tch::Tensor;
use tch::nn::VarStore;

/// Size of a bucket, whose gradients are one message (Li et al. 2020, section 5.1).
const BUCKET_BYTES: usize = 25 << 20;

/// Averages the gradients of a model over the processes while the backward pass runs. Without effect in a
/// single process.
///
/// A step arms it before its last backward pass and finishes it afterwards. Gradients that earlier passes of
/// the step accumulated are averaged with it, in one exchange a step.
#[derive(Debug)]
pub struct GradientAverage {
    group: ProcessGroup,
    reducer: Option<Reducer>,
    names: Vec<String>,
    /// Whether buckets follow the order in which gradients become ready, known after the first step.
    is_ordered: bool,
    overlap: Overlap,
}

/// The overlap of communication and backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// Seconds from the first bucket sent to the last one received, over all steps.
    pub sending: f64,
    /// Seconds of these spent waiting.
    pub waited: f64,
}

impl Overlap {
    /// The share of the communication that ran beside the backward pass.
    pub fn share(self) -> f64 {
        if self.sending > 0.0 { 1.0 - self.waited / self.sending } else { 0.0 }
    }
}

impl GradientAverage {
    /// Averages the gradients of the trainable variables of `vs`. All variables and buffers are first
    /// broadcast from rank 0.
    ///
    /// # Errors
    /// Another process fails, or has another model.
    pub fn new(group: &ProcessGroup, vs: &VarStore) -> Result<Self> {
        let all: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
        let mut average = Self {
            group: group.clone(),
            reducer: None,
            names: vec![],
            is_ordered: false,
            overlap: Overlap::default(),
        };
        let Some(engine) = group.gradients() else { return Ok(average) };
        let described = all.iter().map(|(name, v)| {
            format!("{name} {:?} {}\n", v.size(), if v.requires_grad() { "trained" } else { "kept" })
        });
        group.assert_same_on_all_ranks("model", &described.collect::<String>(), first_difference)?;
        let values: Vec<Tensor> = all.values().map(Tensor::shallow_clone).collect();
        crate::broadcast_together(group, 0, &values)?;
        let (names, parameters): (Vec<_>, Vec<_>) =
            all.into_iter().filter(|(_, variable)| variable.requires_grad()).unzip();
        let order: Vec<usize> = (0..names.len()).rev().collect();
        average.reducer = Some(Reducer::new(engine, &parameters, &order, BUCKET_BYTES)?);
        average.names = names;
        Ok(average)
    }

    /// Starts averaging with the next backward pass.
    pub fn arm(&self) {
        self.reducer.iter().for_each(Reducer::arm);
    }

    /// Waits for the averages that [`GradientAverage::arm`] started. A parameter without a gradient in any
    /// process has none, as in a single process.
    ///
    /// # Errors
    /// Another process fails.
    pub fn finish(&mut self) -> Result<()> {
        let Some(reducer) = &self.reducer else { return Ok(()) };
        self.group.check()?;
        let reduced = reducer.finish()?;
        self.overlap.sending += reduced.sending;
        self.overlap.waited += reduced.waited;
        if !self.is_ordered {
            self.is_ordered = true;
            let unused: Vec<&str> = self
                .names
                .iter()
                .zip(&reduced.unused)
                .filter(|(_, unused)| **unused)
                .map(|(name, _)| &**name)
                .collect();
            if !unused.is_empty() && self.group.is_main() {
                tracing::warn!("the loss does not depend on {}: not trained", unused.join(", "));
            }
            self.follow_arrival(reducer)?;
        }
        Ok(())
    }

    /// The overlap of all steps so far.
    pub fn overlap(&self) -> Overlap {
        self.overlap
    }

    /// Lays the buckets out in the order in which the gradients of rank 0 became ready, so that they fill in
    /// this order.
    fn follow_arrival(&self, reducer: &Reducer) -> Result<()> {
        let own: Vec<i64> = reducer.arrival().into_iter().map(|index| index as i64).collect();
        let mut order = Tensor::from_slice(&own);
        self.group.broadcast(&mut order)?;
        let order: Vec<i64> = Vec::try_from(order)?;
        let order: Vec<usize> = order.into_iter().map(|index| index as usize).collect();
        Ok(reducer.lay_out(&order, BUCKET_BYTES).map_err(mm_core::Error::from)?)
    }
}

/// The first variable that differs from rank 0's.
fn first_difference(main: &str, own: &str) -> String {
    let differs = own.lines().zip(main.lines()).find(|(own, main)| own != main);
    differs.map_or("the number of variables".to_owned(), |(own, main)| format!("{own} instead of {main}"))
}
