//! The transformer of Stable Diffusion 3 and 3.5: diffusers' `SD3Transformer2DModel`.
//!
//! Patches of the image and tokens of the text are two streams with weights of their own, which attend to
//! each other in one joint attention (MMDiT, Esser et al. 2024, "Scaling rectified flow transformers for
//! high-resolution image synthesis", section 4). The timestep and one pooled vector of the text shift, scale
//! and gate every layer (adaLN-Zero, Peebles & Xie 2023, section 3.2). The input is a latent or, with 3
//! channels and larger patches, the pixels themselves.
//!
//! Variables have diffusers' names, except that queries, keys and values of a stream are one product;
//! [`Sd3Transformer::LAYOUT`] splits them at the file.

mod attention;
mod block;
mod config;
mod embeddings;
mod model;

pub use config::{QkNorm, Sd3Config};
pub use model::{Sd3Condition, Sd3Transformer};

/// The epsilon of all norms, which no config sets.
const EPS: f64 = 1e-6;

/// The standard deviation of weights from `input` to `output` values (Glorot & Bengio 2010).
fn xavier(input: i64, output: i64) -> f64 {
    (2.0 / (input + output) as f64).sqrt()
}
