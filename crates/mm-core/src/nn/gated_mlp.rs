//! The gated MLP of a transformer block.

use super::{Dropout, Linear};
use crate::Precision;
use tch::Tensor;

/// SwiGLU (Shazeer 2020, "GLU variants improve transformer"): `down(silu(gate(x)) * up(x))`, with `gate_proj`
/// and `up_proj` `[mlp_width, width]` and `down_proj` `[width, mlp_width]`.
#[derive(Debug)]
pub struct GatedMlp {
    projections: Projections,
    down_proj: Linear,
    dropout: Dropout,
}

/// In one product once they are packed. A decoder's step is one token long, and each product takes
/// microseconds before it multiplies.
#[derive(Debug)]
enum Projections {
    Apart {
        gate_proj: Linear,
        up_proj: Linear,
    },
    /// Rows of the gate, then of the other.
    Joint {
        gate_up_proj: Linear,
    },
}

impl GatedMlp {
    /// An MLP of these layers.
    pub fn new(gate_proj: Linear, up_proj: Linear, down_proj: Linear) -> Self {
        let projections = Projections::Apart { gate_proj, up_proj };
        Self { projections, down_proj, dropout: Dropout::default() }
    }

    /// The same MLP with dropout of its activations.
    pub fn with_dropout(self, probability: f64) -> Self {
        Self { dropout: Dropout::new(probability), ..self }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        self.dropout.set_training(on);
    }

    /// Maps `x` `[..., width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let activations = match &self.projections {
            Projections::Apart { gate_proj, up_proj } => gate_proj.forward(x).silu() * up_proj.forward(x),
            Projections::Joint { gate_up_proj } => {
                let parts = gate_up_proj.forward(x).chunk(2, -1);
                parts[0].silu().g_mul_(&parts[1])
            }
        };
        self.down_proj.forward(&self.dropout.forward(activations))
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        if let Projections::Apart { gate_proj, up_proj } = &self.projections
            && let Some(gate_up_proj) = Linear::joined(gate_proj, up_proj)
        {
            self.projections = Projections::Joint { gate_up_proj };
        }
        match &mut self.projections {
            Projections::Apart { gate_proj, up_proj } => {
                gate_proj.pack(precision);
                up_proj.pack(precision);
            }
            Projections::Joint { gate_up_proj } => gate_up_proj.pack(precision),
        }
        self.down_proj.pack(precision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{initialize, normal};
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    #[test]
    fn a_gated_mlp_equals_its_definition_in_every_precision() {
        let (width, hidden) = (12, 40);
        let x = normal(1, &[2, 5, width]);
        for (precision, bound) in [
            (None, 1e-6),
            (Some(Precision::F32), 1e-6),
            (Some(Precision::Bf16), 0.02),
            (Some(Precision::Int8), 0.03),
        ] {
            let vs = VarStore::new(Device::Cpu);
            let linear = |name: &str, input: i64, output: i64| {
                Linear::without_bias(&(vs.root() / name), input, output, 0.3)
            };
            let mut mlp = GatedMlp::new(
                linear("gate", width, hidden),
                linear("up", width, hidden),
                linear("down", hidden, width),
            );
            initialize(&vs, 2);
            let product = |name: &str, x: &Tensor| {
                let weight = &vs.variables()[&format!("{name}.weight")];
                x.matmul(&weight.to_kind(Kind::Double).transpose(0, 1))
            };
            let exact = x.to_kind(Kind::Double);
            let gate = product("gate", &exact);
            let expected = product("down", &(&gate * gate.sigmoid() * product("up", &exact)));
            precision.into_iter().for_each(|precision| mlp.pack(precision));
            let kind = precision.map_or(Kind::Float, Precision::kind);
            let y = tch::no_grad(|| mlp.forward(&x.to_kind(kind)));
            assert_eq!(y.kind(), kind);
            let error = (y.to_kind(Kind::Double) - &expected).norm() / expected.norm();
            let error = error.double_value(&[]);
            assert!(error < bound, "{precision:?}: the error is {error}");
        }
    }
}
