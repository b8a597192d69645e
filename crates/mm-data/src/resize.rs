//! Resizing that equals Pillow's (and so torchvision's and transformers'): antialiased bicubic, 8 bits between the passes.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{RgbImage, imageops};

/// A rectangle of an image in pixels; it must lie inside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// The first column.
    pub left: u32,
    /// The first row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// Width and height after the short side is brought to `size`; the long side is rounded down, as torchvision does it.
pub fn short_side_size(width: u32, height: u32, size: u32) -> (u32, u32) {
    // In whole numbers: torchvision's `int(size * long / short)` is exact at these magnitudes.
    let long =
        |long: u32, short: u32| (u64::from(size) * u64::from(long) / u64::from(short)).min(u32::MAX.into()) as u32;
    if width <= height { (size, long(height, width)) } else { (long(width, height), size) }
}

/// Brings the short side to `size` and keeps the ratio.
pub fn short_side(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = short_side_size(image.width(), image.height(), size);
    exact(image, width, height)
}

/// Resizes to `width` x `height`, whatever the ratio becomes.
pub fn exact(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    window(image, [0.0, 0.0, image.width().into(), image.height().into()], width, height)
}

/// The middle `size` x `size` of an image. An image smaller than that is set into the middle of black, as torchvision
/// does it; the odd pixel goes where Python's rounding puts it.
pub fn center_crop(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    if width >= size && height >= size {
        return imageops::crop_imm(image, middle(width, size), middle(height, size), size, size).to_image();
    }
    let mut padded = RgbImage::new(width.max(size), height.max(size));
    let offset = |side: u32| i64::from(size.saturating_sub(side) / 2);
    imageops::replace(&mut padded, image, offset(width), offset(height));
    center_crop(&padded, size)
}

/// [`short_side`] and [`center_crop`] in one: only the pixels that remain are computed, so an image of any ratio costs
/// the same. Equal to the two steps.
pub fn short_side_center_crop(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = short_side_size(image.width(), image.height(), size);
    let (scale_x, scale_y) =
        (f64::from(image.width()) / f64::from(width), f64::from(image.height()) / f64::from(height));
    let kept = f64::from(size);
    let left = f64::from(middle(width, size)) * scale_x;
    let top = f64::from(middle(height, size)) * scale_y;
    let within = |length: f64, start: f64, side: u32| length.min(f64::from(side) - start);
    let size_x = within(kept * scale_x, left, image.width());
    let size_y = within(kept * scale_y, top, image.height());
    window(image, [left, top, size_x, size_y], size, size)
}

/// Cuts a rectangle and resizes it to `size` x `size`. Pixels outside the rectangle have no influence.
pub fn crop_resize(image: &RgbImage, rect: Rect, size: u32) -> RgbImage {
    exact(&imageops::crop_imm(image, rect.left, rect.top, rect.width, rect.height).to_image(), size, size)
}

/// Resizes the window `[left, top, width, height]` of an image; the filter sees the pixels around it.
///
/// Columns first, then rows, as Pillow does it: left to itself, the library begins with the rows, and where the first
/// pass cuts off what overshoots, the results are up to five levels apart.
fn window(image: &RgbImage, [left, top, from_width, from_height]: [f64; 4], width: u32, height: u32) -> RgbImage {
    // The rows that the second pass reads: the bicubic filter reaches two pixels of the coarser side.
    let reach = 2.0 * (from_height / f64::from(height)).max(1.0) + 1.0;
    let first = (top - reach).floor().max(0.0);
    let last = (top + from_height + reach).ceil().min(image.height().into());
    let columns = pass(image, [left, first, from_width, last - first], width, (last - first) as u32);
    pass(&columns, [0.0, top - first, width.into(), from_height], width, height)
}

fn pass(image: &RgbImage, [left, top, from_width, from_height]: [f64; 4], width: u32, height: u32) -> RgbImage {
    // Typed images, and in this one place: `Resizer::resize` compiles every pixel type there is, which takes minutes.
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())
        .expect("an RgbImage is 8-bit RGB");
    let mut out = RgbImage::new(width, height);
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut out).expect("an RgbImage is 8-bit RGB");
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .use_alpha(false)
        .crop(left, top, from_width, from_height);
    Resizer::new().resize_typed(&source, &mut target, &options).expect("the window lies inside the image");
    out
}

/// Where the middle `size` of `side` begins: `int(round((side - size) / 2))` with Python's rounding of halves to even.
fn middle(side: u32, size: u32) -> u32 {
    (f64::from(side - size) / 2.0).round_ties_even() as u32
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 + y * 5) as u8, (x * x + y) as u8, (y * 11) as u8]))
    }

    #[test]
    fn sizes_are_torchvisions() {
        assert_eq!(short_side_size(640, 480, 224), (298, 224));
        assert_eq!(short_side_size(480, 640, 224), (224, 298));
        assert_eq!(short_side_size(333, 500, 224), (224, 336));
        assert_eq!(short_side_size(224, 224, 224), (224, 224));
        assert_eq!(short_side_size(1, 1_000_000, 224), (224, 224_000_000));
    }

    #[test]
    fn odd_margins_round_to_even() {
        assert_eq!([middle(225, 224), middle(227, 224), middle(229, 224), middle(226, 224)], [0, 2, 2, 1]);
    }

    #[test]
    fn resize_and_crop_in_one_equals_the_two_steps() {
        for (width, height, size) in
            [(301, 200, 64), (200, 333, 64), (64, 64, 64), (50, 41, 96), (97, 3, 32), (640, 427, 224)]
        {
            let image = picture(width, height);
            let one = short_side_center_crop(&image, size);
            let two = center_crop(&short_side(&image, size), size);
            let apart = one.as_raw().iter().zip(two.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart <= Some(1), "{width} x {height} -> {size}: {apart:?} levels apart");
        }
    }

    #[test]
    fn a_very_long_image_costs_no_more_than_its_middle() {
        assert_eq!(short_side_center_crop(&picture(2, 400_000), 224).dimensions(), (224, 224));
    }

    #[test]
    fn a_small_image_is_set_into_black() {
        let out = center_crop(&RgbImage::from_pixel(2, 6, Rgb([9; 3])), 4);
        assert_eq!(out.dimensions(), (4, 4));
        assert_eq!([0, 1, 2, 3].map(|x| out[(x, 0)].0[0]), [0, 9, 9, 0]);
    }

    #[test]
    fn a_crop_ignores_what_is_outside_it() {
        let mut image = RgbImage::from_pixel(40, 40, Rgb([10, 20, 30]));
        imageops::replace(&mut image, &picture(10, 40), 0, 0);
        let out = crop_resize(&image, Rect { left: 10, top: 3, width: 25, height: 31 }, 16);
        assert!(out.pixels().all(|pixel| pixel.0 == [10, 20, 30]));
    }
}
