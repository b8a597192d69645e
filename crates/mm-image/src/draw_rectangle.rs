//! Outlines on pixels.

use image::{Rgb, RgbImage};

/// Draws the outline of the rectangle `[left, top, right, bottom]`, in pixels, in `color`, `thickness` pixels
/// wide, around what is inside. What is outside of `image` is left out, as is a rectangle that is not finite.
///
/// ```
/// use mm_image::{RgbImage, draw_rectangle};
///
/// let mut image = RgbImage::new(20, 10);
/// draw_rectangle(&mut image, [4.0, 3.0, 12.0, 7.0], 1, [255, 0, 0]);
/// assert_eq!((image[(3, 5)].0, image[(4, 5)].0, image[(12, 2)].0), ([255, 0, 0], [0; 3], [255, 0, 0]));
/// ```
pub fn draw_rectangle(image: &mut RgbImage, bounds: [f64; 4], thickness: u32, color: [u8; 3]) {
    if bounds.iter().any(|bound| !bound.is_finite()) {
        return;
    }
    let [left, top, right, bottom] = bounds;
    let inner = [left.floor(), top.floor(), right.ceil(), bottom.ceil()].map(|bound| bound as i64);
    let width = i64::from(thickness);
    let outer = [inner[0] - width, inner[1] - width, inner[2] + width, inner[3] + width];
    let (columns, rows) = (i64::from(image.width()), i64::from(image.height()));
    for y in outer[1].max(0)..outer[3].min(rows) {
        for x in outer[0].max(0)..outer[2].min(columns) {
            let is_inside = (inner[0]..inner[2]).contains(&x) && (inner[1]..inner[3]).contains(&y);
            if !is_inside {
                image.put_pixel(x as u32, y as u32, Rgb(color));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_the_image_or_not_finite_is_left_out() {
        let mut image = RgbImage::new(4, 4);
        draw_rectangle(&mut image, [-100.0, 1.0, 100.0, 2.0], 1, [9; 3]);
        let rows: Vec<u8> = (0..4).map(|row| image[(2, row)][0]).collect();
        assert_eq!(rows, [9, 0, 9, 0]);
        let mut untouched = RgbImage::new(4, 4);
        draw_rectangle(&mut untouched, [f64::NAN, 0.0, 2.0, 2.0], 1, [9; 3]);
        draw_rectangle(&mut untouched, [10.0, 10.0, 12.0, 12.0], 1, [9; 3]);
        assert!(untouched.pixels().all(|pixel| pixel.0 == [0; 3]));
    }
}
