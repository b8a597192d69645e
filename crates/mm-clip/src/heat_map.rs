//! Pictures of [`Relevance`].

use crate::Relevance;
use mm_data::image::{GrayImage, Luma, Rgb, RgbImage, imageops};

/// Draws `relevance` over the square `crop` of the image that the model saw, from blue (nothing) to red
/// (most), at a side of `size` pixels.
pub fn draw(relevance: &Relevance, crop: &RgbImage, size: u32) -> RgbImage {
    let columns = relevance.columns.max(1);
    let rows = relevance.values.len() / columns;
    let cells = GrayImage::from_fn(columns as u32, rows as u32, |x, y| {
        Luma([(relevance.values[y as usize * columns + x as usize] * 255.0).round() as u8])
    });
    let heat = imageops::resize(&cells, size, size, imageops::FilterType::CatmullRom);
    let mut picture = imageops::resize(crop, size, size, imageops::FilterType::Triangle);
    for (pixel, Luma([value])) in picture.pixels_mut().zip(heat.pixels()) {
        let value = f32::from(*value) / 255.0;
        let over = 0.25 + 0.45 * value;
        let colour = colour(value);
        *pixel = Rgb(std::array::from_fn(|c| {
            (f32::from(pixel[c]) * (1.0 - over) + colour[c] * over).round() as u8
        }));
    }
    picture
}

/// Blue, cyan, yellow, red.
fn colour(value: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 4] =
        [[20.0, 40.0, 160.0], [40.0, 190.0, 200.0], [250.0, 220.0, 50.0], [215.0, 25.0, 30.0]];
    let at = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let below = (at as usize).min(STOPS.len() - 2);
    let share = at - below as f32;
    std::array::from_fn(|c| STOPS[below][c] * (1.0 - share) + STOPS[below + 1][c] * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_cell_is_red_and_the_cold_one_blue() {
        let relevance = Relevance { columns: 2, values: vec![1.0, 0.0, 0.0, 0.0], similarity: 0.5 };
        let picture = draw(&relevance, &RgbImage::from_pixel(8, 8, Rgb([128; 3])), 64);
        let (hot, cold) = (picture.get_pixel(4, 4), picture.get_pixel(60, 60));
        assert!(hot[0] > hot[2] && cold[2] > cold[0], "{hot:?} {cold:?}");
        assert_eq!(picture.dimensions(), (64, 64));
    }
}
