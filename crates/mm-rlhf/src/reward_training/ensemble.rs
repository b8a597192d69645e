//! Several MLPs as one: the mean of an ensemble is an MLP itself.

use crate::Result;
use crate::rewards::HeadSizes;
use std::collections::HashMap;
use tch::Tensor;

/// The path of a member's variables.
pub(super) fn member_path(member: usize) -> String {
    format!("members.{member}")
}

/// The tensors `layers.N.weight` and `layers.N.bias` of one MLP whose score is the mean of the scores of
/// `members` MLPs of `sizes` with these `variables`: its hidden layers have the units of all of them beside
/// each other, without connections between members.
///
/// # Errors
/// libtorch refuses an operation.
pub(super) fn mean_head(
    variables: &HashMap<String, Tensor>,
    members: usize,
    sizes: &HeadSizes,
) -> Result<Vec<(String, Tensor)>> {
    let of_members = |place: usize, part: &str| -> Vec<Tensor> {
        let name = |member| format!("{}.layers.{place}.{part}", member_path(member));
        (0..members).filter_map(|member| variables.get(&name(member))).map(Tensor::detach).collect()
    };
    let places = sizes.places();
    let mut tensors = Vec::with_capacity(2 * places.len());
    for (index, &place) in places.iter().enumerate() {
        let (weights, biases) = (of_members(place, "weight"), of_members(place, "bias"));
        let is_last = index + 1 == places.len();
        let weight = match index {
            0 => Tensor::f_cat(&weights, 0)?,
            _ if is_last => Tensor::f_cat(&weights, 1)? / members as f64,
            _ => Tensor::f_block_diag(&weights)?,
        };
        let bias = match is_last {
            true => Tensor::f_stack(&biases, 0)?.mean_dim([0i64].as_slice(), false, tch::Kind::Float),
            false => Tensor::f_cat(&biases, 0)?,
        };
        tensors.extend([(format!("layers.{place}.weight"), weight), (format!("layers.{place}.bias"), bias)]);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScoreHead;
    use mm_core::checkpoint::{TensorLayout, Weights, write};
    use mm_testing::{initialize, normal};
    use tch::Device;
    use tch::nn::VarStore;

    #[test]
    fn the_mean_of_the_members_is_one_mlp() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("head.safetensors");
        let features = normal(1, &[5, 6]);
        for hidden in [vec![7], vec![5, 4, 3, 2]] {
            let sizes = HeadSizes::new(6, &hidden);
            let vs = VarStore::new(Device::Cpu);
            let make = |member| ScoreHead::new(&(vs.root() / "members" / member), &sizes);
            let heads: Vec<ScoreHead> = (0..3).map(make).collect();
            initialize(&vs, 2);
            let scores: Vec<Tensor> = heads.iter().map(|head| head.forward(&features).unwrap()).collect();

            write(&file, &mean_head(&vs.variables(), 3, &sizes).unwrap()).unwrap();
            let weights = Weights::open(&file).unwrap();
            let sizes = HeadSizes::of(&weights, "", 6);
            let vs = VarStore::new(Device::Cpu);
            let make = |path: &tch::nn::Path| -> Result<_> { Ok(ScoreHead::new(path, &sizes)) };
            let head = weights.build(&vs, &TensorLayout::AS_IS, make).unwrap();
            let mean = Tensor::stack(&scores, 0).mean_dim([0i64].as_slice(), false, tch::Kind::Float);
            let off = (head.forward(&features).unwrap() - &mean).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{hidden:?}: {off}");
        }
    }
}
