//! Heat maps over images.

use image::{GrayImage, Luma, Rgb, RgbImage, imageops};

/// Blends a heat map over a square `image`, from blue (0) to red (1), and gives a picture of `size` x `size`
/// pixels. `values` are from 0 to 1, row by row, `columns` in each row; both are scaled to `size`.
///
/// ```
/// use mm_image::{RgbImage, overlay_heat_map};
///
/// let picture = overlay_heat_map(&RgbImage::new(8, 8), &[1.0, 0.0, 0.0, 0.0], 2, 64);
/// let (hot, cold) = (picture[(4, 4)].0, picture[(60, 60)].0);
/// assert!(hot[0] > hot[2] && cold[2] > cold[0]);
/// ```
pub fn overlay_heat_map(image: &RgbImage, values: &[f32], columns: usize, size: u32) -> RgbImage {
    let columns = columns.max(1);
    let rows = values.len() / columns;
    let cells = GrayImage::from_fn(columns as u32, rows as u32, |x, y| {
        Luma([(values[y as usize * columns + x as usize] * 255.0).round() as u8])
    });
    let heat = imageops::resize(&cells, size, size, imageops::FilterType::CatmullRom);
    let mut picture = imageops::resize(image, size, size, imageops::FilterType::Triangle);
    for (pixel, Luma([value])) in picture.pixels_mut().zip(heat.pixels()) {
        let value = f32::from(*value) / 255.0;
        let over = 0.25 + 0.45 * value;
        let color = color(value);
        *pixel = Rgb(std::array::from_fn(|channel| {
            (f32::from(pixel[channel]) * (1.0 - over) + color[channel] * over).round() as u8
        }));
    }
    picture
}

/// Blue, cyan, yellow, red.
fn color(value: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 4] =
        [[20.0, 40.0, 160.0], [40.0, 190.0, 200.0], [250.0, 220.0, 50.0], [215.0, 25.0, 30.0]];
    let at = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let below = (at as usize).min(STOPS.len() - 2);
    let share = at - below as f32;
    std::array::from_fn(|channel| STOPS[below][channel] * (1.0 - share) + STOPS[below + 1][channel] * share)
}
