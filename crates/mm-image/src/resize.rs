//! Resizing that equals Pillow's, and so torchvision's and transformers' on Pillow images: 8 bits between the
//! two passes, bicubic unless a [`Filter`] is given.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{Rgb, RgbImage, imageops};
use std::iter;
use std::ops::Range;

/// A resampling filter, with Pillow's names. All but [`Filter::Nearest`] widen as an image shrinks
/// (antialiasing), so that each of its pixels counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// The mean of a box.
    Box,
    /// A triangle of one pixel to each side.
    Bilinear,
    /// A Hamming-windowed sinc of one pixel to each side.
    Hamming,
    /// The Catmull-Rom spline (a = -0.5), two pixels to each side.
    #[default]
    Bicubic,
    /// A Lanczos-windowed sinc of three pixels to each side.
    Lanczos,
}

impl Filter {
    /// The filter's support in pixels to each side, where the image does not shrink.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The library's filter. `None` for the filters with a step at their edge, where the last bit of a
    /// position decides and must equal Pillow's.
    fn kernel(self) -> Option<FilterType> {
        match self {
            Self::Nearest | Self::Box => None,
            Self::Bilinear => Some(FilterType::Bilinear),
            Self::Hamming => Some(FilterType::Hamming),
            Self::Bicubic => Some(FilterType::CatmullRom),
            Self::Lanczos => Some(FilterType::Lanczos3),
        }
    }
}

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

/// Width and height with the short side resized to `size`. The long side is rounded down, as in torchvision.
pub fn short_side_size(width: u32, height: u32, size: u32) -> (u32, u32) {
    // In whole numbers: torchvision's `int(size * long / short)` is exact at these magnitudes.
    let long = |long: u32, short: u32| {
        (u64::from(size) * u64::from(long) / u64::from(short)).min(u32::MAX.into()) as u32
    };
    if width <= height { (size, long(height, width)) } else { (long(width, height), size) }
}

/// Resizes the short side to `size` and keeps the aspect ratio.
pub fn short_side(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = short_side_size(image.width(), image.height(), size);
    exact(image, width, height, Filter::Bicubic)
}

/// Resizes a non-empty image to `width` x `height`, without keeping the aspect ratio.
pub fn exact(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    exact_part(image, width, height, Rect { left: 0, top: 0, width, height }, filter)
}

/// The rectangle `part` of the result of [`exact`], to one level of 255. Only its pixels are computed, so the
/// cost does not depend on the size of the rest. Where the edge of a [`Filter::Box`] or the center of a
/// [`Filter::Nearest`] falls between two pixels, the part may use the other pixel.
pub fn exact_part(image: &RgbImage, width: u32, height: u32, part: Rect, filter: Filter) -> RgbImage {
    let columns = Stretch::of_part(image.width().into(), width, part.left, part.width);
    let rows = Stretch::of_part(image.height().into(), height, part.top, part.height);
    stretch(image, columns, rows, rows_come_first(image.dimensions(), (width, height)), filter)
}

/// Whether the vertical pass comes before the horizontal one. This is Pillow's order since version 13;
/// earlier versions begin with the horizontal pass. The order matters where the first pass clamps an
/// overshoot: results differ by up to tens of levels there.
pub(crate) fn rows_come_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    lost(from.1, to.1) > (2 * lost(from.0, to.0)).max(0)
}

/// Resizes a part of an image in two passes.
pub(crate) fn stretch(
    image: &RgbImage,
    columns: Stretch,
    rows: Stretch,
    rows_first: bool,
    filter: Filter,
) -> RgbImage {
    if rows_first {
        let read = columns.read(filter, image.width());
        let rows = pass(image, read, rows, filter);
        pass(&rows, columns.within(read), Stretch::unchanged(rows.height()), filter)
    } else {
        let read = rows.read(filter, image.height());
        let columns = pass(image, columns, read, filter);
        pass(&columns, Stretch::unchanged(columns.width()), rows.within(read), filter)
    }
}

/// torchvision's `center_crop` to `size` x `size`: a smaller image is padded with black, and an odd margin is
/// rounded as in Python.
pub fn center_crop(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    if width >= size && height >= size {
        return crop(
            image,
            Rect {
                left: center_start(width, size),
                top: center_start(height, size),
                width: size,
                height: size,
            },
        );
    }
    let mut padded = RgbImage::new(width.max(size), height.max(size));
    let offset = |side: u32| i64::from(size.saturating_sub(side) / 2);
    imageops::replace(&mut padded, image, offset(width), offset(height));
    center_crop(&padded, size)
}

/// [`short_side`] and [`center_crop`] in one step, with equal results. Only the pixels of the crop are
/// computed, so the cost does not depend on the aspect ratio.
pub fn short_side_center_crop(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = short_side_size(image.width(), image.height(), size);
    let part =
        Rect { left: center_start(width, size), top: center_start(height, size), width: size, height: size };
    exact_part(image, width, height, part, Filter::Bicubic)
}

/// Crops a rectangle and resizes it to `size` x `size`. Pixels outside the rectangle have no influence.
pub fn crop_resize(image: &RgbImage, rect: Rect, size: u32) -> RgbImage {
    exact(&crop(image, rect), size, size, Filter::Bicubic)
}

/// A crop, copied row by row: several times faster than the library's, which copies single pixels.
pub(crate) fn crop(image: &RgbImage, Rect { left, top, width, height }: Rect) -> RgbImage {
    let (row, left, width_bytes) = (3 * image.width() as usize, 3 * left as usize, 3 * width as usize);
    let mut pixels = Vec::with_capacity(width_bytes * height as usize);
    for row in image.as_raw().chunks_exact(row).skip(top as usize).take(height as usize) {
        pixels.extend_from_slice(&row[left..left + width_bytes]);
    }
    RgbImage::from_raw(width, height, pixels).expect("the rectangle lies inside the image")
}

/// A range of one side of an image, `length` pixels from `start`, that is resized to `count` pixels.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) start: f64,
    pub(crate) length: f64,
    pub(crate) count: u32,
}

impl Stretch {
    /// A side that is not resized.
    fn unchanged(side: u32) -> Self {
        Self { start: 0.0, length: side.into(), count: side }
    }

    /// The source of `count` pixels from `first`, where the full `side` is resized to `resized`.
    pub(crate) fn of_part(side: f64, resized: u32, first: u32, count: u32) -> Self {
        let scale = side / f64::from(resized);
        let start = f64::from(first) * scale;
        let rest = side - start;
        let length = if first + count == resized { rest } else { (f64::from(count) * scale).min(rest) };
        Self { start, length, count }
    }

    /// The range of pixels of `side` that `filter` reads.
    fn read(self, filter: Filter, side: u32) -> Self {
        let reach = filter.support() * (self.length / f64::from(self.count)).max(1.0) + 1.0;
        let start = (self.start - reach).floor().max(0.0);
        let length = (self.start + self.length + reach).ceil().min(side.into()) - start;
        Self { start, length, count: length as u32 }
    }

    /// The same range, relative to `read`.
    fn within(self, read: Self) -> Self {
        Self { start: self.start - read.start, ..self }
    }

    /// For each new pixel, the pixels of `side` that are averaged; for the filters without a kernel.
    fn ranges(self, filter: Filter, side: u32) -> Vec<Range<u32>> {
        let scale = self.length / f64::from(self.count);
        if filter == Filter::Nearest {
            // Accumulated, not multiplied, as in Pillow.
            let places = iter::successors(Some(self.start + scale * 0.5), |place| Some(place + scale));
            let range = |place: f64| (place as u32).min(side - 1)..(place as u32).min(side - 1) + 1;
            return places.take(self.count as usize).map(range).collect();
        }
        let (reach, shrink) = (0.5 * scale.max(1.0), 1.0 / scale.max(1.0));
        let range = |index: u32| {
            let center = self.start + (f64::from(index) + 0.5) * scale;
            let near = (center - reach + 0.5).max(0.0) as u32..((center + reach + 0.5) as u32).min(side);
            let counts = |pixel: &u32| {
                let distance = (f64::from(*pixel) - center + 0.5) * shrink;
                distance > -0.5 && distance <= 0.5
            };
            let first = near.clone().find(counts).unwrap_or(near.start);
            first..near.rev().find(counts).map_or(first, |last| last + 1)
        };
        (0..self.count).map(range).collect()
    }
}

/// Resizes along one side; along the other, `count` equals `length`. (The library can do both at once, but
/// always resizes rows first.)
fn pass(image: &RgbImage, columns: Stretch, rows: Stretch, filter: Filter) -> RgbImage {
    let Some(kernel) = filter.kernel() else {
        return means(image, &columns.ranges(filter, image.width()), &rows.ranges(filter, image.height()));
    };
    // `resize_typed` in this one place: `Resizer::resize` compiles all pixel types, which takes minutes.
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())
        .expect("an RgbImage is 8-bit RGB");
    let mut out = RgbImage::new(columns.count, rows.count);
    let mut target = TypedImage::<U8x3>::from_buffer(columns.count, rows.count, &mut out)
        .expect("an RgbImage is 8-bit RGB");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kernel)).use_alpha(false).crop(
        columns.start,
        rows.start,
        columns.length,
        rows.length,
    );
    Resizer::new().resize_typed(&source, &mut target, &options).expect("the stretches lie inside the image");
    out
}

/// The means over rectangles, in Pillow's fixed-point arithmetic.
fn means(image: &RgbImage, columns: &[Range<u32>], rows: &[Range<u32>]) -> RgbImage {
    const ONE: u64 = 1 << 22;
    RgbImage::from_fn(columns.len() as u32, rows.len() as u32, |x, y| {
        let (columns, rows) = (columns[x as usize].clone(), rows[y as usize].clone());
        let count = (columns.len() * rows.len()).max(1) as u64;
        let weight = (ONE + count / 2) / count;
        let mut sums = [ONE / 2; 3];
        for (x, y) in rows.flat_map(|y| columns.clone().map(move |x| (x, y))) {
            iter::zip(&mut sums, image[(x, y)].0).for_each(|(sum, level)| *sum += u64::from(level) * weight);
        }
        Rgb(sums.map(|sum| (sum / ONE).min(255) as u8))
    })
}

/// The start of a center crop: `int(round((side - size) / 2))`, with Python's rounding of halves to even.
fn center_start(side: u32, size: u32) -> u32 {
    (f64::from(side - size) / 2.0).round_ties_even() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7 + y * 5) as u8, (x * x + y) as u8, (y * 11) as u8])
        })
    }

    fn apart(a: &RgbImage, b: &RgbImage) -> Option<u8> {
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max()
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
        assert_eq!([225, 227, 229, 226].map(|side| center_start(side, 224)), [0, 2, 2, 1]);
    }

    #[test]
    fn resize_and_crop_in_one_equals_the_two_steps() {
        for (width, height, size) in
            [(301, 200, 64), (200, 333, 64), (64, 64, 64), (50, 41, 96), (97, 3, 32), (640, 427, 224)]
        {
            let image = picture(width, height);
            let one = short_side_center_crop(&image, size);
            let two = center_crop(&short_side(&image, size), size);
            let apart = apart(&one, &two);
            assert!(apart <= Some(1), "{width} x {height} -> {size}: {apart:?} levels apart");
        }
    }

    #[test]
    fn a_part_of_a_resized_image_equals_the_crop_for_each_filter() {
        // No edge or center lies between two pixels at these sizes.
        let image = picture(96, 62);
        let filters = [
            Filter::Nearest,
            Filter::Box,
            Filter::Bilinear,
            Filter::Hamming,
            Filter::Bicubic,
            Filter::Lanczos,
        ];
        for (filter, (width, height)) in filters.into_iter().flat_map(|f| [(f, (40, 30)), (f, (150, 200))]) {
            let part = Rect { left: 7, top: 11, width: 25, height: 13 };
            let whole = exact(&image, width, height, filter);
            let expected =
                imageops::crop_imm(&whole, part.left, part.top, part.width, part.height).to_image();
            let apart = apart(&exact_part(&image, width, height, part, filter), &expected);
            assert!(apart <= Some(1), "{filter:?} to {width} x {height}: {apart:?} levels apart");
        }
    }

    #[test]
    fn nearest_repeats_pixels_and_leaves_an_image_of_the_same_size_alone() {
        let image = picture(3, 2);
        assert_eq!(exact(&image, 3, 2, Filter::Nearest), image);
        let double = exact(&image, 6, 4, Filter::Nearest);
        assert!(double.enumerate_pixels().all(|(x, y, pixel)| *pixel == image[(x / 2, y / 2)]));
    }

    #[test]
    fn a_very_long_image_costs_no_more_than_its_center() {
        assert_eq!(short_side_center_crop(&picture(2, 400_000), 224).dimensions(), (224, 224));
    }

    #[test]
    fn a_small_image_is_padded_with_black() {
        let out = center_crop(&RgbImage::from_pixel(2, 6, Rgb([9; 3])), 4);
        assert_eq!(out.dimensions(), (4, 4));
        assert_eq!([0, 1, 2, 3].map(|x| out[(x, 0)].0[0]), [0, 9, 9, 0]);
    }

    #[test]
    fn a_crop_ignores_pixels_outside_it() {
        let mut image = RgbImage::from_pixel(40, 40, Rgb([10, 20, 30]));
        imageops::replace(&mut image, &picture(10, 40), 0, 0);
        let out = crop_resize(&image, Rect { left: 10, top: 3, width: 25, height: 31 }, 16);
        assert!(out.pixels().all(|pixel| pixel.0 == [10, 20, 30]));
    }
}
