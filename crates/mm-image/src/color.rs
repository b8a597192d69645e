//! The four adjustments of torchvision's `ColorJitter` on 8-bit images, computed as in Pillow.

use image::{Rgb, RgbImage};

/// Blends with black: darker for a factor below 1, brighter above.
pub(crate) fn brightness(image: &mut RgbImage, factor: f32) {
    for pixel in image.pixels_mut() {
        pixel.0 = pixel.0.map(|value| blend(0, value, factor));
    }
}

/// Blends with the mean grey of the image: less contrast for a factor below 1, more above.
pub(crate) fn contrast(image: &mut RgbImage, factor: f32) {
    let count = u64::from(image.width()) * u64::from(image.height());
    let sum: u64 = image.pixels().map(|pixel| u64::from(grey(*pixel))).sum();
    let mean = ((sum as f64 / count as f64) + 0.5) as u8;
    for pixel in image.pixels_mut() {
        pixel.0 = pixel.0.map(|value| blend(mean, value, factor));
    }
}

/// Blends each pixel with its grey value: less saturated for a factor below 1, more above.
pub(crate) fn saturation(image: &mut RgbImage, factor: f32) {
    for pixel in image.pixels_mut() {
        let grey = grey(*pixel);
        pixel.0 = pixel.0.map(|value| blend(grey, value, factor));
    }
}

/// Rotates the hue by `shift`, a fraction of the full circle from -0.5 to 0.5. Pillow rounds to 8-bit HSV on
/// the way; this is exact.
pub(crate) fn hue(image: &mut RgbImage, shift: f32) {
    for pixel in image.pixels_mut() {
        let [red, green, blue] = pixel.0.map(f32::from);
        let (high, low) = (red.max(green).max(blue), red.min(green).min(blue));
        let chroma = high - low;
        if chroma == 0.0 {
            continue;
        }
        let sextant = if high == red {
            (green - blue) / chroma
        } else if high == green {
            (blue - red) / chroma + 2.0
        } else {
            (red - green) / chroma + 4.0
        };
        let rotated = sextant + 6.0 * shift;
        // Each channel is a trapezoid over the hue circle, shifted by a third of the circle.
        let channel = |start: f32| {
            let place = (start + rotated).rem_euclid(6.0);
            (high - chroma * place.min(4.0 - place).clamp(0.0, 1.0)).round() as u8
        };
        pixel.0 = [channel(5.0), channel(3.0), channel(1.0)];
    }
}

/// Pillow's `Image.blend`: `from` at factor 0, `to` at factor 1, extrapolated beyond and clamped to 8 bits.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

/// Pillow's conversion to grey (ITU-R 601-2 luma).
fn grey(Rgb([red, green, blue]): Rgb<u8>) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(pixel: [u8; 3], change: impl Fn(&mut RgbImage)) -> [u8; 3] {
        let mut image = RgbImage::from_pixel(1, 1, Rgb(pixel));
        change(&mut image);
        image[(0, 0)].0
    }

    #[test]
    fn a_factor_of_one_and_a_shift_of_zero_change_nothing() {
        for pixel in [[0, 0, 0], [255, 1, 128], [7, 200, 90], [12, 12, 250]] {
            assert_eq!(changed(pixel, |image| brightness(image, 1.0)), pixel);
            assert_eq!(changed(pixel, |image| contrast(image, 1.0)), pixel);
            assert_eq!(changed(pixel, |image| saturation(image, 1.0)), pixel);
            assert_eq!(changed(pixel, |image| hue(image, 0.0)), pixel);
        }
    }

    #[test]
    fn brightness_is_clamped_at_white() {
        assert_eq!(changed([100, 200, 3], |image| brightness(image, 1.5)), [150, 255, 4]);
    }

    #[test]
    fn zero_saturation_is_grey() {
        assert_eq!(changed([255, 0, 0], |image| saturation(image, 0.0)), [76; 3]);
    }

    #[test]
    fn a_shift_by_a_third_turns_red_to_green() {
        assert_eq!(changed([255, 0, 0], |image| hue(image, 1.0 / 3.0)), [0, 255, 0]);
        assert_eq!(changed([255, 0, 0], |image| hue(image, -1.0 / 3.0)), [0, 0, 255]);
        assert_eq!(changed([200, 100, 50], |image| hue(image, 0.5)), [50, 150, 200]);
    }

    #[test]
    fn adjustments_equal_pillows() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/goldens/images/colours");
        let read = |name: &str| {
            crate::decode(&std::fs::read(format!("{folder}/{name}.png")).unwrap(), [0; 3]).unwrap()
        };
        type Change = fn(&mut RgbImage, f32);
        let all: [(&str, Change, [f32; 2], u8); 4] = [
            ("brightness", brightness, [0.6, 1.4], 1),
            ("contrast", contrast, [0.6, 1.4], 1),
            ("saturation", saturation, [0.6, 1.4], 1),
            // Pillow shifts in steps of 1/256 of the circle.
            ("hue", hue, [-0.25, 0.25], 12),
        ];
        for (name, change, factors, allowed) in all {
            for factor in factors {
                let mut ours = read("base");
                change(&mut ours, factor);
                let theirs = read(&format!("{name}-{factor}"));
                let apart = ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(apart <= Some(allowed), "{name} {factor}: {apart:?} levels apart");
            }
        }
    }
}
