//! The part of an image that a model sees: resized so that it covers the model's size, and cut from the
//! middle.

use crate::pipeline::gray;
use mm_image::RgbImage;
use mm_image::resize::{Filter, Rect, exact_part};

/// A size in pixels, width and height.
pub(crate) type Size = (u32, u32);

/// `image` as a square of `side` pixels: resized so that it covers the square, and cut from the middle.
pub fn framed(image: RgbImage, side: u32) -> RgbImage {
    Framing::new(image.dimensions(), (side, side)).apply(image)
}

/// How an image of one size becomes one of another: resized with its aspect kept, then cut from the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    original: Size,
    /// The size that it is resized to.
    resized: Size,
    /// What is kept of that.
    part: Rect,
}

impl Framing {
    pub(crate) fn new(original: Size, (width, height): Size) -> Self {
        let scaled = |side: u32, by: u32, of: u32| (u64::from(side) * u64::from(by) / u64::from(of)) as u32;
        let is_wider = u64::from(original.0) * u64::from(height) >= u64::from(original.1) * u64::from(width);
        let resized = match is_wider {
            true => (scaled(original.0, height, original.1), height),
            false => (width, scaled(original.1, width, original.0)),
        };
        let part = Rect { left: (resized.0 - width) / 2, top: (resized.1 - height) / 2, width, height };
        Self { original, resized, part }
    }

    /// `image`, which has the original size.
    pub(crate) fn apply(&self, image: RgbImage) -> RgbImage {
        match self.original == (self.part.width, self.part.height) {
            true => image,
            false => exact_part(&image, self.resized.0, self.resized.1, self.part, Filter::Bicubic),
        }
    }

    /// How much each position of the latents counts by `mask`, which has the original size: the share of
    /// white in its square of `reduction` pixels, from 0 to 1, in rows.
    pub(crate) fn weights(&self, mask: RgbImage, reduction: u32) -> Vec<f32> {
        let mask = self.apply(mask);
        let (columns, rows) = (mask.width() / reduction, mask.height() / reduction);
        let mut weights = vec![0f32; (columns * rows) as usize];
        for (x, y, pixel) in mask.enumerate_pixels() {
            let (column, row) = (x / reduction, y / reduction);
            if column < columns && row < rows {
                weights[(row * columns + column) as usize] += f32::from(gray(pixel.0));
            }
        }
        let white = 255.0 * (reduction * reduction) as f32;
        weights.iter_mut().for_each(|weight| *weight /= white);
        weights
    }

    /// SDXL's six sizes: height and width of the original image, top and left of what is kept after resizing,
    /// and height and width of that.
    pub(crate) fn sizes(&self) -> [f32; 6] {
        let Rect { left, top, width, height } = self.part;
        [self.original.1, self.original.0, top, left, height, width].map(|pixels| pixels as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_covers_its_frame_and_is_cut_from_the_middle() {
        let framing = Framing::new((300, 100), (64, 32));
        assert_eq!((framing.resized, framing.part.left, framing.part.top), ((96, 32), 16, 0));
        assert_eq!(framing.sizes(), [100.0, 300.0, 0.0, 16.0, 32.0, 64.0]);
        let framing = Framing::new((7, 19), (8, 8));
        assert_eq!((framing.resized, framing.part.top), ((8, 21), 6));
        // A white middle of the same aspect is all that is left.
        let is_inside = |x: u32| (100..200).contains(&x);
        let image = RgbImage::from_fn(300, 100, |x, _| [if is_inside(x) { 255 } else { 0 }; 3].into());
        let framed = Framing::new((300, 100), (10, 10)).apply(image);
        assert_eq!(framed.dimensions(), (10, 10));
        assert!(framed.pixels().all(|pixel| pixel.0[0] > 200), "{framed:?}");
    }

    #[test]
    fn an_image_of_the_frame_s_size_stays_as_it_is() {
        let image = RgbImage::from_fn(6, 4, |x, y| [x as u8, y as u8, 9].into());
        assert_eq!(Framing::new((6, 4), (6, 4)).apply(image.clone()), image);
    }

    #[test]
    fn weights_are_the_share_of_white_in_the_square_of_a_latent() {
        // The left half, and a quarter of the square at the bottom right.
        let is_white = |x: u32, y: u32| x < 4 || (x >= 6 && y >= 6);
        let mask = RgbImage::from_fn(8, 8, |x, y| [if is_white(x, y) { 255 } else { 0 }; 3].into());
        assert_eq!(Framing::new((8, 8), (8, 8)).weights(mask, 4), [1.0, 0.0, 1.0, 0.25]);
    }
}
