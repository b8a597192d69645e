//! Text on pixels.

use font8x8::legacy::{BASIC_LEGACY, LATIN_LEGACY};
use image::{Rgb, RgbImage};

/// The side of a character in pixels, at a scale of 1.
pub const GLYPH_SIDE: u32 = 8;

/// The first character of [`LATIN_LEGACY`].
const FIRST_LATIN: usize = 0xa0;

/// In the place of a character that the font has no glyph for.
const BOX: [u8; 8] = [0x00, 0x7e, 0x42, 0x42, 0x42, 0x42, 0x7e, 0x00];

/// Draws one line of `text` in `color`, its top left corner at `(x, y)`, with characters of [`GLYPH_SIDE`]
/// times `scale` pixels a side. The font has the characters of Latin-1; a box stands for any other. Pixels
/// outside of `image` are left out.
///
/// ```
/// use mm_image::{GLYPH_SIDE, RgbImage, draw_text};
///
/// let text = "a dog";
/// let mut image = RgbImage::new(2 * GLYPH_SIDE * text.len() as u32, 2 * GLYPH_SIDE);
/// draw_text(&mut image, text, (0, 0), 2, [255, 255, 255]);
/// assert!(image.pixels().any(|pixel| pixel.0 == [255, 255, 255]));
/// ```
pub fn draw_text(image: &mut RgbImage, text: &str, (x, y): (u32, u32), scale: u32, color: [u8; 3]) {
    let side = GLYPH_SIDE.saturating_mul(scale);
    let mut left = x;
    for character in text.chars() {
        let right = left.saturating_add(side).min(image.width());
        let bottom = y.saturating_add(side).min(image.height());
        let glyph = glyph(character);
        for row in y..bottom {
            for column in left..right {
                let line = glyph[((row - y) / scale) as usize];
                // The lowest bit is the leftmost pixel.
                if line >> ((column - left) / scale) & 1 == 1 {
                    image.put_pixel(column, row, Rgb(color));
                }
            }
        }
        left = left.saturating_add(side);
    }
}

fn glyph(character: char) -> [u8; 8] {
    let code = character as usize;
    let table = if code < FIRST_LATIN {
        BASIC_LEGACY.get(code).filter(|_| !character.is_control())
    } else {
        LATIN_LEGACY.get(code - FIRST_LATIN)
    };
    table.copied().unwrap_or(BOX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` at a scale of `scale`, a character a pixel.
    fn drawn(text: &str, scale: u32) -> Vec<String> {
        let width = GLYPH_SIDE * scale * text.chars().count() as u32;
        let mut image = RgbImage::new(width, GLYPH_SIDE * scale);
        draw_text(&mut image, text, (0, 0), scale, [255; 3]);
        let row = |row: u32| -> String {
            (0..image.width())
                .map(|column| if image[(column, row)].0 == [255; 3] { '#' } else { '.' })
                .collect()
        };
        (0..image.height()).map(row).collect()
    }

    #[test]
    fn letters_are_upright_and_read_from_the_left() {
        let expected =
            ["####....", ".##.....", ".##.....", ".##.....", ".##...#.", ".##..##.", "#######.", "........"];
        assert_eq!(drawn("L", 1), expected);
        assert_eq!(drawn("L", 2)[12], "##############..");
        assert_eq!(drawn(" L", 1)[0], format!("........{}", expected[0]));
    }

    #[test]
    fn accents_have_glyphs_and_a_character_without_one_is_a_box() {
        let unknown = drawn("火", 1);
        assert_eq!(unknown[1], ".######.");
        assert_ne!(drawn("é", 1), unknown);
        assert_ne!(drawn("é", 1), drawn("e", 1));
        for other in ["🐕", "\t", "\u{85}", "\u{7f}"] {
            assert_eq!(drawn(other, 1), unknown, "{other:?}");
        }
        assert!(drawn(" ", 1).iter().all(|row| !row.contains('#')));
    }

    #[test]
    fn text_is_cut_at_the_edges() {
        let mut image = RgbImage::new(12, 5);
        draw_text(&mut image, "LL", (6, 2), 1, [9; 3]);
        assert!(image.pixels().any(|pixel| pixel.0 == [9; 3]));
        let before = image.clone();
        draw_text(&mut image, "LL", (12, 0), 1, [200; 3]);
        draw_text(&mut image, "LL", (u32::MAX, u32::MAX), u32::MAX, [200; 3]);
        draw_text(&mut image, "L", (0, 0), 0, [200; 3]);
        assert_eq!(image, before);
    }
}
