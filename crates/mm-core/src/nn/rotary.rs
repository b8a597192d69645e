//! Rotary positions (Su et al. 2021, "RoFormer: Enhanced transformer with rotary position embedding").

use serde::{Deserialize, Serialize};
use std::f32::consts::TAU;
use tch::{Device, Kind, Tensor};

/// The frequencies of rotary positions. Numbers `i` and `i + head / 2` of a head are a pair, which a position
/// `p` turns by the angle `p theta^(-2 i / head)`, where the frequencies are not scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base of the frequencies: transformers' `rope_theta`.
    pub theta: f64,
    /// How the frequencies are changed for longer texts.
    pub scaling: RopeScaling,
}

/// How the frequencies of rotary positions are changed for texts longer than those of pretraining, with
/// transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// All are divided (Chen et al. 2023, "Extending context window of large language models via positional
    /// interpolation").
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies are divided, high ones stay, and those between change smoothly (Llama 3.1).
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Frequencies with fewer turns than this in the context of pretraining are low.
        low_freq_factor: f64,
        /// Frequencies with more turns than this in the context of pretraining are high.
        high_freq_factor: f64,
        /// The context of pretraining, in positions.
        original_max_position_embeddings: i64,
    },
}

impl RopeConfig {
    /// Checks that the frequencies are finite numbers above 0.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value.
    pub fn validate(&self) -> Result<(), String> {
        let above = |name: &str, value: f64, least: f64| match value.is_finite() && value > least {
            true => Ok(()),
            false => Err(format!("{name} is {value}: it must be above {least}")),
        };
        above("rope_theta", self.theta, 1.0)?;
        match self.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => above("the factor of rope_scaling", factor, 0.0),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original,
            } => {
                above("the factor of rope_scaling", factor, 0.0)?;
                above("low_freq_factor", low_freq_factor, 0.0)?;
                above("high_freq_factor", high_freq_factor, low_freq_factor)?;
                above("original_max_position_embeddings", original as f64, 0.0)
            }
        }
    }

    /// The frequencies of the pairs of a head of width `head`, `[head / 2]`, in f32 and in the order of
    /// operations of transformers: at far positions angles show each rounding.
    fn frequencies(&self, head: i64) -> Vec<f32> {
        let exponents = Tensor::arange_start_step(0, head, 2, (Kind::Float, Device::Cpu)) / head as f64;
        let powers = Tensor::pow_scalar(self.theta, &exponents);
        let frequencies = Vec::<f32>::try_from(powers.reciprocal()).expect("a vector of f32");
        frequencies.into_iter().map(|frequency| self.scaling.apply(frequency)).collect()
    }
}

impl RopeScaling {
    /// The changed form of `frequency`, in radians a position.
    fn apply(self, frequency: f32) -> f32 {
        let (factor, low, high, original) = match self {
            Self::Default => return frequency,
            Self::Linear { factor } => return frequency / factor as f32,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                (factor, low_freq_factor, high_freq_factor, original_max_position_embeddings as f64)
            }
        };
        let wavelength = TAU / frequency;
        if wavelength < (original / high) as f32 {
            frequency
        } else if wavelength > (original / low) as f32 {
            frequency / factor as f32
        } else {
            let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
        }
    }
}

/// The frequencies of rotary positions, for tables of any positions.
#[derive(Debug)]
pub struct Rotary {
    /// `[head / 2]`, f32.
    frequencies: Tensor,
}

impl Rotary {
    /// The frequencies of heads of width `head`, which is even.
    pub fn new(config: &RopeConfig, head: i64, device: Device) -> Self {
        Self { frequencies: Tensor::from_slice(&config.frequencies(head)).to_device(device) }
    }

    /// The rotations of `positions` `[L]` or `[B, L]` (i64).
    pub fn table(&self, positions: &Tensor) -> RotaryTable {
        let size = positions.size();
        let (rows, length) = if let [rows, length] = size[..] { (rows, length) } else { (1, size[0]) };
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.frequencies; // [.., L, head / 2]
        let (cos, sin) = (angles.cos(), angles.sin());
        let shape = [rows, length, 1, 2 * self.frequencies.size()[0]];
        RotaryTable {
            cos: Tensor::cat(&[&cos, &cos], -1).view(shape),
            sin: Tensor::cat(&[&sin.neg(), &sin], -1).view(shape),
        }
    }
}

/// The rotations of some positions, computed once for all blocks of a stack.
#[derive(Debug)]
pub struct RotaryTable {
    /// `[B or 1, L, 1, head]`, f32.
    cos: Tensor,
    /// As `cos`; the first half of a head has the opposite sign.
    sin: Tensor,
}

impl RotaryTable {
    /// Turns the heads of `x` `[B, L, heads, head]`, in f32 at least, and keeps their type.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let x = if kind == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) };
        // A pair (a, b) becomes (a cos - b sin, b cos + a sin). Rolled by half a head, its numbers have
        // changed places.
        let half = x.size()[3] / 2;
        let across = x.roll([half], [-1]);
        (x * &self.cos).addcmul(&across, &self.sin).to_kind(kind)
    }

    /// The cosines and the sines, `[B or 1, L, head / 2]` each.
    pub fn cos_sin(&self) -> (Tensor, Tensor) {
        let half = self.cos.size()[3] / 2;
        let part = |table: &Tensor, start: i64| table.squeeze_dim(2).narrow(-1, start, half);
        (part(&self.cos, 0), part(&self.sin, half))
    }

    /// The same table, in the same memory.
    pub(super) fn shallow_clone(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;

    const PLAIN: RopeConfig = RopeConfig { theta: 10_000.0, scaling: RopeScaling::Default };

    fn llama3(original_max_position_embeddings: i64) -> RopeScaling {
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings,
        }
    }

    #[test]
    fn pairs_turn_by_the_angle_of_their_frequency_and_position() {
        let (head, positions) = (8, [0i64, 1, 5, 400]);
        let x = normal(1, &[2, 4, 3, head]);
        let table = Rotary::new(&PLAIN, head, Device::Cpu).table(&Tensor::from_slice(&positions));
        let y = table.rotate(&x);
        for (place, position) in (0..).zip(positions) {
            for pair in 0..head / 2 {
                let angle = position as f64 * 10_000f64.powf(-2.0 * pair as f64 / head as f64);
                for (row, heads) in [(0, 0), (1, 2)] {
                    let at = |x: &Tensor, index: i64| x.double_value(&[row, place, heads, index]);
                    let (a, b) = (at(&x, pair), at(&x, pair + head / 2));
                    let expected = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
                    let found = [at(&y, pair), at(&y, pair + head / 2)];
                    for (found, expected) in found.into_iter().zip(expected) {
                        assert!((found - expected).abs() < 1e-4, "{position}, {pair}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn positions_may_differ_between_the_rows_of_a_batch() {
        let rotary = Rotary::new(&PLAIN, 8, Device::Cpu);
        let x = normal(1, &[2, 3, 2, 8]);
        let positions = Tensor::from_slice(&[0i64, 1, 2, 7, 8, 9]).view([2, 3]);
        let y = rotary.table(&positions).rotate(&x);
        for row in 0..2 {
            let alone = rotary.table(&positions.get(row)).rotate(&x.narrow(0, row, 1));
            assert_eq!(y.narrow(0, row, 1), alone);
        }
    }

    #[test]
    fn linear_scaling_stretches_positions_and_llama3_spares_high_frequencies() {
        let scaled = |scaling| RopeConfig { scaling, ..PLAIN }.frequencies(64);
        let plain = PLAIN.frequencies(64);
        let linear = scaled(RopeScaling::Linear { factor: 4.0 });
        assert!(plain.iter().zip(&linear).all(|(plain, linear)| *linear == plain / 4.0));
        let ratios: Vec<f32> = plain.iter().zip(scaled(llama3(8192))).map(|(a, b)| a / b).collect();
        assert!(ratios.is_sorted(), "{ratios:?}");
        assert!(ratios[0] == 1.0 && (ratios[31] - 8.0).abs() < 1e-5, "{ratios:?}");
        // 10,000^(-2 i / 64) has a wavelength of 2,048 at i = 20.1 and of 8,192 at i = 24.9.
        let between = ratios.iter().filter(|&&ratio| ratio > 1.001 && ratio < 7.999).count();
        assert_eq!(between, 4, "{ratios:?}");
    }

    #[test]
    fn heads_keep_their_type_and_are_turned_in_f32() {
        let table = Rotary::new(&PLAIN, 8, Device::Cpu).table(&Tensor::from_slice(&[3i64, 900]));
        let x = normal(1, &[1, 2, 2, 8]).to_kind(Kind::BFloat16);
        let y = table.rotate(&x);
        assert_eq!(y.kind(), Kind::BFloat16);
        assert_eq!(y, table.rotate(&x.to_kind(Kind::Float)).to_kind(Kind::BFloat16));
    }

    #[test]
    fn frequencies_out_of_range_are_named() {
        let refused = |theta: f64, scaling| RopeConfig { theta, scaling }.validate().unwrap_err();
        assert!(refused(0.0, RopeScaling::Default).contains("rope_theta is 0"));
        assert!(refused(f64::NAN, RopeScaling::Default).contains("rope_theta is NaN"));
        assert!(refused(1e4, RopeScaling::Linear { factor: 0.0 }).contains("rope_scaling is 0"));
        assert!(refused(1e4, llama3(0)).contains("original_max_position_embeddings is 0"));
        let RopeScaling::Llama3 { factor, original_max_position_embeddings, .. } = llama3(64) else {
            panic!()
        };
        let crossed = RopeScaling::Llama3 {
            factor,
            low_freq_factor: 4.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings,
        };
        assert!(refused(1e4, crossed).contains("high_freq_factor is 4: it must be above 4"));
        assert!(RopeConfig { scaling: llama3(64), ..PLAIN }.validate().is_ok());
    }
}
