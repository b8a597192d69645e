//! Random augmentation of training images, with torchvision's parameters.

use image::{RgbImage, imageops};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::resize::{self, Rect};
use crate::{Error, Result, color, decode_reduced, largest_divisor};

/// A random crop, a random horizontal flip and a random change of colors. In the config:
///
/// ```
/// let augment: mm_image::Augment = toml::from_str(r#"
///     scale = [0.5, 1.0]
///     jitter = { brightness = 0.4, hue = 0.1 }
/// "#)?;
/// augment.check().expect("numbers in range");
/// assert_eq!(augment.flip, 0.0);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// The share of the area that a random crop keeps, from and to.
    pub scale: [f64; 2],
    /// The aspect ratio (width / height) of the crop before it is resized to a square, from and to.
    pub ratio: [f64; 2],
    /// The probability of a horizontal flip. 0 by default, because captions name left and right and images
    /// contain letters.
    pub flip: f64,
    /// The change of colors.
    pub jitter: Jitter,
}

impl Default for Augment {
    /// As in CLIP's training: a crop of 90 to 100% of the area, nothing else.
    fn default() -> Self {
        Self { scale: [0.9, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], flip: 0.0, jitter: Jitter::default() }
    }
}

/// A random change of colors. `brightness = 0.4` draws a factor between 0.6 and 1.4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// The probability that an image is changed at all.
    pub probability: f64,
    /// The greatest change of brightness, at least 0.
    pub brightness: f64,
    /// The greatest change of contrast, at least 0.
    pub contrast: f64,
    /// The greatest change of saturation, at least 0.
    pub saturation: f64,
    /// The greatest shift of hue, as a fraction of the full circle: 0 to 0.5.
    pub hue: f64,
}

impl Default for Jitter {
    fn default() -> Self {
        Self { probability: 1.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 }
    }
}

impl Augment {
    /// Checks the ranges of all settings. Call it once, when the config is read.
    ///
    /// # Errors
    /// A setting that is out of its range, by name.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, [from, to]: [f64; 2], top: f64| {
            if 0.0 < from && from <= to && to <= top {
                return Ok(());
            }
            Err(Error::Setting(format!(
                "augment.{name} = [{from}, {to}] must be two numbers, the smaller first, above 0 and at most \
                 {top}"
            )))
        };
        range("scale", self.scale, 1.0)?;
        range("ratio", self.ratio, 100.0)?;
        let Jitter { probability, brightness, contrast, saturation, hue } = self.jitter;
        for (name, value, top) in [
            ("flip", self.flip, 1.0),
            ("jitter.probability", probability, 1.0),
            ("jitter.brightness", brightness, 10.0),
            ("jitter.contrast", contrast, 10.0),
            ("jitter.saturation", saturation, 10.0),
            ("jitter.hue", hue, 0.5),
        ] {
            if !(0.0..=top).contains(&value) {
                return Err(Error::Setting(format!("augment.{name} = {value} must be between 0 and {top}")));
            }
        }
        Ok(())
    }

    /// Augments an image to `size` x `size`. The draws depend on `rng` and on the size of the image alone.
    pub fn apply(&self, image: &RgbImage, size: u32, rng: &mut impl Rng) -> RgbImage {
        let rect = self.crop(image.width(), image.height(), rng);
        self.flip_and_jitter(resize::crop_resize(image, rect, size), rng)
    }

    /// Decodes and augments an image, with the draws from `rng` of [`apply`](Self::apply). A JPEG is
    /// decoded at a fraction of its size where the crop is several times larger than `size`
    /// ([`largest_divisor`]); the result then differs by a level or two of 255.
    ///
    /// # Errors
    /// Those of [`decode`](crate::decode()).
    pub fn decode_and_apply(
        &self,
        encoded: &[u8],
        background: [u8; 3],
        size: u32,
        rng: &mut impl Rng,
    ) -> Result<RgbImage> {
        let mut rect = Rect { left: 0, top: 0, width: 1, height: 1 };
        let image = decode_reduced(encoded, background, |width, height| {
            rect = self.crop(width, height, rng);
            largest_divisor((rect.width, rect.height), (size, size))
        })?;
        Ok(self.flip_and_jitter(image.crop_resize(rect, size), rng))
    }

    /// The random flip and the random change of colors.
    fn flip_and_jitter(&self, mut out: RgbImage, rng: &mut impl Rng) -> RgbImage {
        if rng.random_bool(self.flip) {
            imageops::flip_horizontal_in_place(&mut out);
        }
        self.jitter.apply(&mut out, rng);
        out
    }

    /// torchvision's `RandomResizedCrop.get_params`: ten attempts, then a center crop of the nearest allowed
    /// aspect ratio.
    fn crop(&self, width: u32, height: u32, rng: &mut impl Rng) -> Rect {
        let (w, h) = (f64::from(width), f64::from(height));
        let [narrow, wide] = self.ratio;
        for _ in 0..10 {
            let area = w * h * rng.random_range(self.scale[0]..=self.scale[1]);
            let ratio = rng.random_range(narrow.ln()..=wide.ln()).exp();
            let crop_w = (area * ratio).sqrt().round_ties_even() as u32;
            let crop_h = (area / ratio).sqrt().round_ties_even() as u32;
            if (1..=width).contains(&crop_w) && (1..=height).contains(&crop_h) {
                let top = rng.random_range(0..=height - crop_h);
                let left = rng.random_range(0..=width - crop_w);
                return Rect { left, top, width: crop_w, height: crop_h };
            }
        }
        let ratio = (w / h).clamp(narrow, wide);
        let (crop_w, crop_h) = if w / h < ratio {
            (width, ((w / ratio).round_ties_even() as u32).clamp(1, height))
        } else {
            (((h * ratio).round_ties_even() as u32).clamp(1, width), height)
        };
        Rect { left: (width - crop_w) / 2, top: (height - crop_h) / 2, width: crop_w, height: crop_h }
    }
}

impl Jitter {
    /// Changes brightness, contrast, saturation and hue in a random order.
    fn apply(&self, image: &mut RgbImage, rng: &mut impl Rng) {
        if !rng.random_bool(self.probability) {
            return;
        }
        let mut order = [0, 1, 2, 3];
        for last in (1..order.len()).rev() {
            order.swap(last, rng.random_range(0..=last)); // Fisher-Yates
        }
        for change in order {
            let strength = [self.brightness, self.contrast, self.saturation, self.hue][change];
            if strength == 0.0 {
                continue;
            }
            let least = if change == 3 { -strength } else { (1.0 - strength).max(0.0) };
            let most = if change == 3 { strength } else { 1.0 + strength };
            let factor = rng.random_range(least..=most) as f32;
            [color::brightness, color::contrast, color::saturation, color::hue][change](image, factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng as SampleRng;

    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(60, 40, |x, y| Rgb([x as u8 * 4, y as u8 * 6, (x + y) as u8]))
    }

    #[test]
    fn equal_seeds_give_equal_images() {
        let augment = Augment {
            scale: [0.2, 1.0],
            flip: 0.5,
            jitter: Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, probability: 0.8 },
            ..Augment::default()
        };
        let draw = |seed| augment.apply(&picture(), 32, &mut SampleRng::seed_from_u64(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn crops_stay_inside_and_within_scale_and_ratio() {
        let augment = Augment { scale: [0.3, 0.6], ..Augment::default() };
        let mut rng = SampleRng::seed_from_u64(0);
        for _ in 0..1000 {
            let Rect { left, top, width, height } = augment.crop(300, 200, &mut rng);
            assert!(left + width <= 300 && top + height <= 200);
            let (area, ratio) = (f64::from(width * height) / 60_000.0, f64::from(width) / f64::from(height));
            assert!((0.29..0.61).contains(&area) && (0.74..1.35).contains(&ratio), "{area} {ratio}");
        }
    }

    #[test]
    fn an_image_too_thin_for_the_ratio_is_cropped_at_its_center() {
        let mut rng = SampleRng::seed_from_u64(0);
        let rect = Augment { scale: [1.0, 1.0], ..Augment::default() }.crop(300, 3, &mut rng);
        assert_eq!(rect, Rect { left: 148, top: 0, width: 4, height: 3 });
        assert_eq!(Augment::default().crop(1, 1, &mut rng), Rect { left: 0, top: 0, width: 1, height: 1 });
    }

    #[test]
    fn a_flip_mirrors() {
        let whole = Augment { scale: [1.0; 2], ratio: [1.5; 2], flip: 1.0, ..Augment::default() };
        let mut rng = SampleRng::seed_from_u64(0);
        let out = whole.apply(&picture(), 20, &mut rng);
        assert!(out[(0, 10)][0] > out[(19, 10)][0]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = Augment { flip: 1.5, ..Augment::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "augment.flip = 1.5 must be between 0 and 1");
        assert!(Augment { scale: [0.9, 0.1], ..Augment::default() }.check().is_err());
        assert!(Augment { flip: f64::NAN, ..Augment::default() }.check().is_err());
        assert!(Augment::default().check().is_ok());
    }
}
