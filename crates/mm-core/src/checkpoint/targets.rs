//! The strict match between the variables of a model and the tensors of a file.

use super::weights::scale_of;
use super::{TensorLayout, Weights};
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use std::collections::BTreeSet;
use tch::Tensor;

/// A variable and the tensors that it is made of.
pub(super) struct Target {
    parts: Vec<String>,
    is_transposed: bool,
    variable: Tensor,
}

/// `variables`, by name, as `layout` stores them.
pub(super) fn targets(variables: Vec<(String, Tensor)>, layout: &TensorLayout) -> Vec<Target> {
    let target = |(name, variable): (String, Tensor)| Target {
        parts: (layout.names)(&name),
        is_transposed: (layout.is_transposed)(&name),
        variable,
    };
    variables.into_iter().map(target).collect()
}

impl Target {
    /// The shape of each part in the file.
    fn part_shape(&self) -> Vec<i64> {
        let mut shape = self.variable.size();
        if let Some(rows) = shape.first_mut() {
            *rows /= self.parts.len() as i64;
        }
        if self.is_transposed {
            shape.reverse();
        }
        shape
    }

    /// The name of each part with the view of the variable that it fills.
    pub fn places(&self) -> Vec<(&str, Tensor)> {
        let variable = self.variable.detach();
        let variable = if self.is_transposed { variable.transpose(0, 1) } else { variable };
        let views = match self.parts.len() {
            1 => vec![variable],
            count => variable.chunk(count as i64, 0),
        };
        self.parts.iter().map(String::as_str).zip(views).collect()
    }
}

impl Weights {
    /// Checks that there is a tensor of the right shape for every part of every target, and no other.
    pub(super) fn check_targets(&self, targets: &[Target]) -> Result<()> {
        let mut missing = Vec::new();
        let mut misshapen = Vec::new();
        let mut known = BTreeSet::new();
        for target in targets {
            let expected = target.part_shape();
            for name in &target.parts {
                known.insert(name.clone());
                let Some(place) = self.tensors.get(name) else {
                    missing.push(name.clone());
                    continue;
                };
                if place.dtype == Dtype::I8 {
                    known.insert(scale_of(name));
                }
                let shape: Vec<i64> = self.shape(name).into_iter().flatten().map(|&n| n as i64).collect();
                // A scalar is written as [] by some savers and as [1] by others.
                let is_scalar = [&shape, &expected].iter().all(|shape| shape.iter().product::<i64>() == 1);
                if shape != expected && !is_scalar {
                    misshapen.push(format!("{name} is {shape:?}, the model's {expected:?}"));
                }
            }
        }
        let is_extra = |name: &&String| !known.contains(*name) && !is_bookkeeping(name);
        let extra: Vec<String> = self.tensors.keys().filter(is_extra).cloned().collect();
        missing.sort();
        misshapen.sort();
        let problems: Vec<String> =
            [("missing", missing), ("misshapen", misshapen), ("not in the model", extra)]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(what, names)| {
                    let more = if names.len() > 3 { ", ..." } else { "" };
                    format!("{} {what} ({}{more})", names.len(), names[..names.len().min(3)].join("; "))
                })
                .collect();
        if problems.is_empty() {
            return Ok(());
        }
        let problem = format!("tensors do not match the model: {}", problems.join(", "));
        Err(Error::checkpoint(self.path(), problem))
    }
}

/// Whether `name` is of a tensor that savers add and no forward pass reads.
fn is_bookkeeping(name: &str) -> bool {
    name.ends_with("position_ids") || name.ends_with(".num_batches_tracked")
}
