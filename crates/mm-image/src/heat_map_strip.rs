//! Heat maps over an image, side by side with their labels.

use crate::{GLYPH_SIDE, draw_text, overlay_heat_map};
use image::{RgbImage, imageops};
use serde::Serialize;

/// A heat map over an image.
#[derive(Clone, Copy, Debug)]
pub struct HeatMap<'a> {
    /// What it is of.
    pub label: &'a str,
    /// The number of columns.
    pub columns: usize,
    /// The values, row by row from the top left.
    pub values: &'a [f32],
}

/// The attention between a word and the parts of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordAttention {
    /// The word.
    pub word: String,
    /// The number of columns.
    pub columns: usize,
    /// The attention of each part of the image, row by row from the top left.
    pub values: Vec<f32>,
}

impl WordAttention {
    /// As a heat map to draw.
    pub fn heat_map(&self) -> HeatMap<'_> {
        HeatMap { label: &self.word, columns: self.columns, values: &self.values }
    }
}

/// Pixels between the pictures of a strip.
const GAP: u32 = 4;
/// The height of the labels below them.
const LABEL: u32 = 24;

/// Pictures in a row of a strip.
const PER_ROW: u32 = 10;

/// Draws the square `image`, as a model sees it, and beside it each of `maps` with its label below: a strip
/// of pictures of `side` pixels, of which a row has up to ten. The colors of a map are from blue at its
/// smallest value to red at its largest.
pub fn draw_strip(image: &RgbImage, maps: &[HeatMap], side: u32) -> RgbImage {
    let count = maps.len() as u32 + 1;
    let (columns, rows) = (count.min(PER_ROW), count.div_ceil(PER_ROW));
    let size = (columns * (side + GAP) - GAP, rows * (side + LABEL));
    let mut strip = RgbImage::from_pixel(size.0, size.1, [255; 3].into());
    let picture = imageops::resize(image, side, side, imageops::FilterType::Triangle);
    imageops::replace(&mut strip, &picture, 0, 0);
    for (place, map) in (1..).zip(maps) {
        let (left, top) = (place % PER_ROW * (side + GAP), place / PER_ROW * (side + LABEL));
        let picture = overlay_heat_map(image, &scaled(map.values), map.columns, side);
        imageops::replace(&mut strip, &picture, i64::from(left), i64::from(top));
        draw_label(&mut strip, map.label, (left, top + side), side);
    }
    strip
}

/// Values from 0 for the smallest to 1 for the largest.
fn scaled(values: &[f32]) -> Vec<f32> {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = if most > least { most - least } else { 1.0 };
    values.iter().map(|value| (value - least) / range).collect()
}

/// Draws `label` in the middle of the space of `side` pixels whose upper left corner is given: large, or
/// small where it is long, or its beginning where it is longer yet.
fn draw_label(strip: &mut RgbImage, label: &str, (left, top): (u32, u32), side: u32) {
    let fitting = (side / GLYPH_SIDE) as usize;
    let length = label.chars().count();
    let scale = if 2 * length <= fitting { 2 } else { 1 };
    let text = if length <= fitting {
        label.to_owned()
    } else {
        label.chars().take(fitting.saturating_sub(3)).chain("...".chars()).collect()
    };
    let width = GLYPH_SIDE * scale * text.chars().count() as u32;
    let top = top + (LABEL - GLYPH_SIDE * scale) / 2;
    draw_text(strip, &text, (left + side.saturating_sub(width) / 2, top), scale, [0; 3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_has_the_picture_and_the_maps_with_their_labels_below() {
        let image = RgbImage::from_pixel(8, 8, [128; 3].into());
        let map = |label, values| HeatMap { label, columns: 2, values };
        let maps = [map("dog", &[0.01, 0.03, 0.01, 0.01]), map("very-long-words-are-small", &[0.0; 4])];
        let strip = draw_strip(&image, &maps, 64);
        assert_eq!(strip.dimensions(), (3 * 64 + 2 * GAP, 64 + LABEL));
        assert_eq!(strip[(32, 32)].0, [128; 3]);
        let (hot, cold) = (strip[(64 + GAP + 60, 4)], strip[(64 + GAP + 4, 60)]);
        assert!(hot[0] > hot[2] && cold[2] > cold[0], "{hot:?} {cold:?}");
        let is_black = |&(x, y): &(u32, u32)| strip[(x, y)].0 == [0; 3];
        let black = |from: u32| {
            (from..from + 64).flat_map(|x| (64..64 + LABEL).map(move |y| (x, y))).filter(is_black).count()
        };
        assert_eq!(black(0), 0);
        assert!(black(64 + GAP) > 50 && black(2 * (64 + GAP)) > 50);
        assert_eq!(draw_strip(&image, &[], 64).dimensions(), (64, 64 + LABEL));
    }
}
