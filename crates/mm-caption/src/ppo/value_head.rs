//! The value of each token of a caption: a linear map of the decoder's output.

use mm_core::nn::Linear;
use std::collections::BTreeMap;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// The name of the value head in the variables of a run.
const NAME: &str = "value_head";

/// Estimates the rewards that follow a token from the decoder's output before it.
pub(super) struct ValueHead(Linear);

impl ValueHead {
    /// Creates a value head on outputs of `width` numbers, in a new store that also has `variables`, in the
    /// same memory. All values are 0 at first.
    pub fn beside(variables: &VarStore, width: i64) -> (Self, VarStore) {
        let all = VarStore::new(variables.device());
        for (name, variable) in variables.variables().into_iter().collect::<BTreeMap<_, _>>() {
            let mut parts: Vec<&str> = name.split('.').collect();
            let own = parts.pop().unwrap_or_default();
            let path = parts.iter().fold(all.root(), |path, part| path / part);
            let is_trained = variable.requires_grad();
            let _ = path.add(own, variable, is_trained);
        }
        (Self(Linear::new(&(all.root() / NAME), width, 1, 0.0)), all)
    }

    /// The values `[N]` of tokens that are predicted from `outputs` `[N, D]`, in f32 also under autocast.
    pub fn forward(&self, outputs: &Tensor) -> Tensor {
        let outputs = outputs.to_kind(Kind::Float);
        mm_sys::without_autocast(outputs.device(), || self.0.forward(&outputs)).squeeze_dim(-1)
    }
}

/// Whether the variable `name` is one of the value head, which is no part of the captioner.
pub(crate) fn is_of_value_head(name: &str) -> bool {
    name.split_once('.').is_some_and(|(module, _)| module == NAME)
}
