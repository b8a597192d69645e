//! How an image is edited.

use crate::{Error, Result};
use mm_image::RgbImage;

/// An edit of an image.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The image.
    pub image: RgbImage,
    /// How.
    pub kind: EditKind,
}

/// How an image is edited.
#[derive(Clone, Debug)]
pub enum EditKind {
    /// The image gets noise, which is removed again under the prompt (Meng et al. 2022).
    ImageToImage {
        /// How much noise: the share of the steps that run, above 0 to 1.
        strength: f64,
        /// Whether all steps run, on a grid that is finer by the strength.
        exact_steps: bool,
    },
    /// A part of the image is painted anew.
    Inpaint {
        /// White where the image is painted anew; of the image's size.
        mask: RgbImage,
        /// As above; at 1 nothing of the part is kept.
        strength: f64,
    },
    /// The prompt is an instruction (Brooks et al. 2023): for a model that was trained for it.
    Instruct,
}

impl Edit {
    /// The strength, where there is one.
    pub(super) fn strength(&self) -> Option<f64> {
        match &self.kind {
            EditKind::ImageToImage { strength, .. } | EditKind::Inpaint { strength, .. } => Some(*strength),
            EditKind::Instruct => None,
        }
    }

    /// The steps of the scheduler, and of these the ones that are left out at the start.
    ///
    /// # Errors
    /// No step would run: names the least strength.
    pub(super) fn steps(&self, steps: usize) -> Result<(usize, usize)> {
        let Some(strength) = self.strength() else { return Ok((steps, 0)) };
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::Request(format!("strength {strength}: it is above 0, up to 1")));
        }
        if let EditKind::ImageToImage { exact_steps: true, .. } = self.kind {
            let all = (steps as f64 / strength.max(f64::MIN_POSITIVE)).ceil();
            return match all <= 1000.0 {
                true => Ok((all as usize, all as usize - steps)),
                false => Err(Error::Request(format!(
                    "strength {strength} with exactly {steps} steps needs a grid of {all} steps: at most 1000"
                ))),
            };
        }
        // Rounded down in floating point, as in diffusers.
        let run = ((steps as f64 * strength) as usize).min(steps);
        if run == 0 {
            let least = 1.0 / steps as f64;
            return Err(Error::Request(format!(
                "strength {strength} of {steps} steps leaves no step to run: it must be at least {least:.3}"
            )));
        }
        Ok((steps, steps - run))
    }

    /// Checks that the image has pixels, and a mask its size.
    ///
    /// # Errors
    /// Names both sizes.
    pub(super) fn validate(&self) -> Result<()> {
        let (width, height) = self.image.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::Request("the image has no pixels".to_owned()));
        }
        match &self.kind {
            EditKind::Inpaint { mask, .. } if mask.dimensions() != (width, height) => {
                let (mask_width, mask_height) = mask.dimensions();
                Err(Error::Request(format!(
                    "the mask has {mask_width} x {mask_height} pixels and the image {width} x {height}: they \
                     must be the same"
                )))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(kind: EditKind) -> Edit {
        Edit { image: RgbImage::new(4, 4), kind }
    }

    #[test]
    fn strength_decides_how_many_steps_run() {
        let steps = |strength, exact_steps, steps| {
            edit(EditKind::ImageToImage { strength, exact_steps }).steps(steps)
        };
        assert_eq!(steps(0.6, false, 5).unwrap(), (5, 2));
        assert_eq!(steps(1.0, false, 5).unwrap(), (5, 0));
        assert_eq!(steps(0.5, true, 5).unwrap(), (10, 5));
        let error = steps(0.1, false, 5).unwrap_err().to_string();
        assert!(error.contains("at least 0.200"), "{error}");
        assert!(steps(0.0, true, 5).is_err() && steps(f64::NAN, false, 5).is_err());
    }

    #[test]
    fn a_mask_of_another_size_is_refused_with_both_sizes() {
        let error =
            edit(EditKind::Inpaint { mask: RgbImage::new(3, 4), strength: 1.0 }).validate().unwrap_err();
        assert!(error.to_string().contains("3 x 4") && error.to_string().contains("4 x 4"));
    }
}
