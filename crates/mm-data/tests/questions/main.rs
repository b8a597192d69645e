//! Sets of questions as wholes: balanced, split, compared.

mod balanced;
mod overlap;
mod split;
