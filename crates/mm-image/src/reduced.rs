//! Images decoded at a fraction of their size, and how they are resized.

use std::borrow::Cow;

use image::RgbImage;

use crate::resize::{self, Filter, Rect, Stretch};

/// The sides of a reduced image are at least this many times those of the result. With 2, the result differs
/// by half a level of 255 (root mean square over noisy photographs of 3 and 12 megapixels), with 1 by two.
const MARGIN: u32 = 2;

/// An image at 1/`divisor` of its full size: one pixel for each square of `divisor` x `divisor` pixels. The
/// last pixel of a row or column may stand for a part of a square.
#[derive(Debug, Clone)]
pub struct Reduced<'a> {
    /// The pixels.
    pub pixels: Cow<'a, RgbImage>,
    /// The side of the square that one pixel stands for; 1 for an image at full size.
    pub divisor: u32,
    /// Width of the full image.
    pub width: u32,
    /// Height of the full image.
    pub height: u32,
}

/// The largest divisor by which an image (or the crop of it that is used) of `from` (width, height) may be
/// reduced before it is resized to `to`, so that the result is within a level or two of 255 of the exact one.
/// At least 1.
pub fn largest_divisor(from: (u32, u32), to: (u32, u32)) -> u32 {
    let fits = |from: u32, to: u32| from / to.saturating_mul(MARGIN).max(1);
    fits(from.0, to.0).min(fits(from.1, to.1)).max(1)
}

impl<'a> Reduced<'a> {
    /// An image at full size.
    pub fn full_size(pixels: Cow<'a, RgbImage>) -> Self {
        let (width, height) = pixels.dimensions();
        Self { pixels, divisor: 1, width, height }
    }

    /// As [`resize::exact`] of the full image.
    pub fn exact(&self, width: u32, height: u32, filter: Filter) -> RgbImage {
        self.exact_part(width, height, Rect { left: 0, top: 0, width, height }, filter)
    }

    /// As [`resize::exact_part`] of the full image.
    pub fn exact_part(&self, width: u32, height: u32, part: Rect, filter: Filter) -> RgbImage {
        let columns = Stretch::of_part(self.reduced(self.width), width, part.left, part.width);
        let rows = Stretch::of_part(self.reduced(self.height), height, part.top, part.height);
        let rows_first = resize::rows_come_first((self.width, self.height), (width, height));
        resize::stretch(&self.pixels, columns, rows, rows_first, filter)
    }

    /// As [`resize::crop_resize`] of the full image. Squares that the edge of the rectangle cuts count as
    /// inside.
    pub fn crop_resize(&self, rect: Rect, size: u32) -> RgbImage {
        let first = |start: u32| start / self.divisor;
        let count = |start: u32, length: u32| (start + length).div_ceil(self.divisor) - first(start);
        let (left, top) = (first(rect.left), first(rect.top));
        let (width, height) = (count(rect.left, rect.width), count(rect.top, rect.height));
        let inside = |start: u32, length: u32, first: u32| Stretch {
            start: self.reduced(start) - f64::from(first),
            length: self.reduced(length),
            count: size,
        };
        let columns = inside(rect.left, rect.width, left);
        let rows = inside(rect.top, rect.height, top);
        let rows_first = resize::rows_come_first((rect.width, rect.height), (size, size));
        let crop = resize::crop(&self.pixels, Rect { left, top, width, height });
        resize::stretch(&crop, columns, rows, rows_first, Filter::Bicubic)
    }

    /// A length of the full image in reduced pixels.
    fn reduced(&self, length: u32) -> f64 {
        f64::from(length) / f64::from(self.divisor)
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// The means over squares of an image, and over the parts of squares at its right and bottom edges.
    fn reduce(image: &RgbImage, divisor: u32) -> Reduced<'static> {
        let (width, height) = image.dimensions();
        let pixels = RgbImage::from_fn(width.div_ceil(divisor), height.div_ceil(divisor), |x, y| {
            let (xs, ys) =
                (divisor * x..width.min(divisor * (x + 1)), divisor * y..height.min(divisor * (y + 1)));
            let count = xs.len() as u32 * ys.len() as u32;
            let sum = |channel: usize| {
                ys.clone()
                    .flat_map(|y| xs.clone().map(move |x| (x, y)))
                    .map(|at| u32::from(image[at].0[channel]))
                    .sum::<u32>()
            };
            Rgb([0, 1, 2].map(|channel| ((sum(channel) + count / 2) / count) as u8))
        });
        Reduced { pixels: Cow::Owned(pixels), divisor, width, height }
    }

    /// Gradients and waves, smooth at the scale of the result. Its sides are no multiples of a divisor.
    fn picture() -> RgbImage {
        RgbImage::from_fn(403, 301, |x, y| {
            let wave = |length: f64, at: u32| 127.5 + 100.0 * (f64::from(at) / length).sin();
            Rgb([wave(31.0, x) as u8, wave(23.0, y) as u8, ((x * 255) / 403) as u8])
        })
    }

    fn apart(a: &RgbImage, b: &RgbImage) -> Option<u8> {
        assert_eq!(a.dimensions(), b.dimensions());
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max()
    }

    #[test]
    fn a_reduced_image_is_resized_to_the_result_of_the_full_image() {
        let image = picture();
        let part = Rect { left: 3, top: 2, width: 17, height: 20 };
        let crop = Rect { left: 101, top: 33, width: 211, height: 187 };
        for divisor in [2, 4] {
            let reduced = reduce(&image, divisor);
            let whole = resize::exact(&image, 40, 30, Filter::Bicubic);
            assert!(apart(&reduced.exact(40, 30, Filter::Bicubic), &whole) <= Some(3), "one over {divisor}");
            let whole = resize::exact_part(&image, 40, 30, part, Filter::Bilinear);
            assert!(
                apart(&reduced.exact_part(40, 30, part, Filter::Bilinear), &whole) <= Some(3),
                "one over {divisor}"
            );
            let whole = resize::crop_resize(&image, crop, 20);
            assert!(apart(&reduced.crop_resize(crop, 20), &whole) <= Some(3), "one over {divisor}");
        }
    }

    #[test]
    fn an_image_at_full_size_is_resized_exactly() {
        let image = picture();
        let whole = Reduced::full_size(Cow::Borrowed(&image));
        assert_eq!(whole.exact(60, 50, Filter::Lanczos), resize::exact(&image, 60, 50, Filter::Lanczos));
        let crop = Rect { left: 101, top: 33, width: 211, height: 187 };
        assert_eq!(whole.crop_resize(crop, 64), resize::crop_resize(&image, crop, 64));
    }

    #[test]
    fn a_reduced_image_keeps_twice_the_size_of_the_result() {
        assert_eq!(largest_divisor((4000, 3000), (298, 224)), 6);
        assert_eq!(largest_divisor((895, 4000), (224, 224)), 1);
        assert_eq!(largest_divisor((896, 4000), (224, 224)), 2);
        assert_eq!((largest_divisor((1, 1), (224, 224)), largest_divisor((9, 9), (0, u32::MAX))), (1, 1));
    }
}
