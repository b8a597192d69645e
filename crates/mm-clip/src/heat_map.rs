//! Pictures of [`Relevance`].

use crate::Relevance;
use mm_image::{RgbImage, overlay_heat_map};

/// Draws `relevance` over the square `crop` of the image that the model saw, from blue (nothing) to red
/// (most), at a side of `size` pixels.
pub fn draw(relevance: &Relevance, crop: &RgbImage, size: u32) -> RgbImage {
    overlay_heat_map(crop, &relevance.values, relevance.columns, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_image::image::Rgb;

    #[test]
    fn the_hot_cell_is_red_and_the_cold_one_blue() {
        let relevance = Relevance { columns: 2, values: vec![1.0, 0.0, 0.0, 0.0], similarity: 0.5 };
        let picture = draw(&relevance, &RgbImage::from_pixel(8, 8, Rgb([128; 3])), 64);
        let (hot, cold) = (picture.get_pixel(4, 4), picture.get_pixel(60, 60));
        assert!(hot[0] > hot[2] && cold[2] > cold[0], "{hot:?} {cold:?}");
        assert_eq!(picture.dimensions(), (64, 64));
    }
}
