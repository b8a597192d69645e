//! Noise for several images, each from a seed of its own.

use crate::Result;
use mm_sys::Generator;
use tch::Tensor;

/// Draws standard normal noise for a batch, each image from the generator of its own seed: image i gets what
/// it gets alone, whatever the batch. Equals a list of generators in diffusers.
#[derive(Debug)]
pub struct ImageNoise {
    generators: Vec<Generator>,
}

impl ImageNoise {
    /// One generator a seed.
    pub fn new(seeds: &[u64]) -> Self {
        Self { generators: seeds.iter().copied().map(Generator::new).collect() }
    }

    /// The next noise of each image, which is of `shape` `[C, H, W]`: `[N, C, H, W]` in f32 on the CPU.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn draw(&mut self, shape: &[i64]) -> Result<Tensor> {
        let draw = |generator: &mut Generator| generator.randn(shape).map_err(mm_core::Error::from);
        let drawn: Result<Vec<Tensor>, _> = self.generators.iter_mut().map(draw).collect();
        Ok(Tensor::stack(&drawn?, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gets_the_same_noise_in_any_batch() {
        let (mut alone, mut both) = (ImageNoise::new(&[5]), ImageNoise::new(&[3, 5]));
        // 9 x 5 numbers: no multiple of 16, where one generator for the batch would differ.
        for _ in 0..2 {
            assert_eq!(alone.draw(&[1, 9, 5]).unwrap().get(0), both.draw(&[1, 9, 5]).unwrap().get(1));
        }
    }
}
