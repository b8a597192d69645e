//! Co-attention models equal plain PyTorch versions of them (`data/goldens/vqa-co-attention`, written by
//! `xtask/goldens/vqa-co-attention.py`), and an answer does not depend on the batch.

mod batches;
mod goldens;
mod shared;

use shared::{config, expected, head, logits};
use tch::Tensor;

const FOLDERS: [&str; 4] = ["guided", "guided-tanh", "parallel", "mcan"];

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
