//! Sets of questions as wholes: balanced, split, compared.

mod balanced;
mod split;
