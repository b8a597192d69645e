//! Contact sheets: many pictures as a grid, with lines of text below each.

use mm_image::image::imageops;
use mm_image::resize::{Filter, exact};
use mm_image::{GLYPH_SIDE, RgbImage, draw_text};

/// The longest side of a picture.
const SIDE: u32 = 256;
/// Smaller pictures are enlarged to at least this.
const LEAST_SIDE: u32 = 160;
/// Pixels between cells.
const GAP: u32 = 8;
/// The height of a line of text.
const LINE: u32 = GLYPH_SIDE + 4;

/// A picture with its lines.
pub struct Cell {
    pub picture: RgbImage,
    pub lines: Vec<String>,
}

/// `picture` in the size of a sheet: large ones shrunk, small ones enlarged with their pixels to be seen.
pub fn thumbnail(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let long = width.max(height).max(1);
    if long > SIDE {
        let scaled = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(long)).max(1) as u32;
        return exact(picture, scaled(width), scaled(height), Filter::Bicubic);
    }
    let factor = LEAST_SIDE.div_ceil(long);
    exact(picture, width * factor, height * factor, Filter::Nearest)
}

/// Draws `cells` in rows of `columns`. All cells have the space of the largest.
pub fn draw(cells: &[Cell], columns: usize) -> RgbImage {
    let largest = |of: fn(&Cell) -> u32| cells.iter().map(of).max().unwrap_or(1);
    let (width, height) = (largest(|cell| cell.picture.width()), largest(|cell| cell.picture.height()));
    let below = largest(|cell| cell.lines.len() as u32) * LINE;
    let columns = columns.clamp(1, cells.len().max(1)) as u32;
    let rows = (cells.len() as u32).div_ceil(columns);
    let size = (columns * (width + GAP) + GAP, rows * (height + below + GAP) + GAP);
    let mut sheet = RgbImage::from_pixel(size.0, size.1, [255; 3].into());
    for (index, cell) in (0..).zip(cells) {
        let left = GAP + index % columns * (width + GAP);
        let top = GAP + index / columns * (height + below + GAP);
        imageops::replace(&mut sheet, &cell.picture, left.into(), top.into());
        for (number, line) in (0..).zip(&cell.lines) {
            let top = top + cell.picture.height() + number * LINE + (LINE - GLYPH_SIDE);
            draw_text(&mut sheet, line, (left, top), 1, [0; 3]);
        }
    }
    sheet
}

/// `text` in at most `lines` lines below a picture of `width` pixels, broken between words where it can be;
/// the end of a longer text is left out.
pub fn wrapped(text: &str, width: u32, lines: usize) -> Vec<String> {
    let fitting = ((width / GLYPH_SIDE) as usize).max(4);
    let mut wrapped: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if let Some(line) = wrapped.last_mut().filter(|line| line.chars().count() + 1 + word.len() <= fitting)
        {
            line.push(' ');
            line.extend(word);
            continue;
        }
        while !word.is_empty() {
            let rest = word.split_off(word.len().min(fitting));
            wrapped.push(word.into_iter().collect());
            word = rest;
        }
    }
    if wrapped.len() > lines {
        wrapped.truncate(lines);
        if let Some(last) = wrapped.last_mut() {
            *last = last.chars().take(fitting - 3).chain("...".chars()).collect();
        }
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_and_cut() {
        assert_eq!(wrapped("a red star", 64, 2), ["a red", "star"]);
        assert_eq!(wrapped("a red star on a blue sky", 64, 2), ["a red", "star ..."]);
        assert_eq!(wrapped("incomprehensible", 64, 3), ["incompre", "hensible"]);
        assert_eq!(wrapped("étoile", 0, 1), ["é..."]);
        assert!(wrapped("  ", 64, 2).is_empty());
    }

    #[test]
    fn a_sheet_has_every_picture_with_its_text_below() {
        let cell = |shade: u8| Cell {
            picture: thumbnail(&RgbImage::from_pixel(16, 8, [shade; 3].into())),
            lines: vec!["seed 1".to_owned()],
        };
        let sheet = draw(&[cell(10), cell(20), cell(30)], 2);
        let (row, below) = (80 + LINE + GAP, 8 + 80);
        assert_eq!(sheet.dimensions(), (2 * (160 + GAP) + GAP, 2 * row + GAP));
        assert_eq!(sheet[(10, 10)].0, [10; 3]);
        assert_eq!(sheet[(8 + 168 + 2, 10)].0, [20; 3]);
        assert_eq!(sheet[(10, 10 + row)].0, [30; 3]);
        let ink = (0..160).flat_map(|x| (below..below + LINE).map(move |y| (x, y)));
        assert!(ink.filter(|&(x, y)| sheet[(x, y)].0 == [0; 3]).count() > 20);
        assert_eq!(thumbnail(&RgbImage::new(1024, 512)).dimensions(), (256, 128));
        assert_eq!(draw(&[], 3).dimensions(), (9 + 8, 8));
    }
}
