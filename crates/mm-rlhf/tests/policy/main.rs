//! The formulas of reinforcement learning equal PyTorch's (`data/goldens/rlhf-policy`, written by
//! `xtask/goldens/rlhf-policy.py`), and each method moves a policy of one step to its optimum.

mod goldens;
mod optimum;
