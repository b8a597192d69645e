//! Pairs as the loader gives them.

use mm_data::{Fault, Map, Sample, SampleRng};
use mm_diffusion::{NoiseDraw, framed};
use mm_image::RgbImage;
use rand::RngExt;
use std::sync::Arc;
use tch::Tensor;

/// Two images of one prompt, with the random numbers of the draw.
pub struct DpoItem {
    pub(super) prompt: String,
    pub(super) winner: RgbImage,
    pub(super) loser: RgbImage,
    /// Of the noise, the same for both images.
    pub(super) seed: u64,
    /// Decides the level of noise, the same for both images.
    pub(super) level: NoiseDraw,
}

impl mm_data::Item for DpoItem {
    fn bytes(&self) -> usize {
        self.winner.as_raw().len() + self.loser.as_raw().len() + self.prompt.len()
    }
}

/// N pairs on the model's device, winners and losers as `[2 N, C, h, w]`.
pub struct DpoBatch {
    pub(super) prompts: Vec<String>,
    pub(super) clean: Tensor,
    pub(super) noise: Tensor,
    /// What the denoiser reads of the level of noise, and the level, `[2 N]`.
    pub(super) timestep: Tensor,
    pub(super) level: Tensor,
}

/// Decodes the images of a pair of side `side` and draws what is random.
pub(super) fn map(side: u32, background: [u8; 3]) -> Map<DpoItem> {
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let missing = || mm_data::Error::bad(Fault::NoCaption, "no prompt");
        let prompt = sample.captions.first().cloned().ok_or_else(missing)?;
        let [first, second] = sample.image_pair()?;
        // An edit's first caption is that of the image before.
        let preferred = sample.preferred.unwrap_or(1.0);
        if preferred == 0.5 {
            let tie = "a tie, which has no winner: leave ties out of the data";
            return Err(mm_data::Error::bad(Fault::Other, tie));
        }
        let (winner, loser) = if preferred > 0.5 { (first, second) } else { (second, first) };
        Ok(DpoItem {
            prompt,
            winner: framed(winner.decode(background)?, side),
            loser: framed(loser.decode(background)?, side),
            seed: rng.random(),
            level: NoiseDraw::new(rng),
        })
    })
}
