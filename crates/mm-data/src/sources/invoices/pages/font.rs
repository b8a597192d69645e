//! The fonts of the pages: their faces and the widths of characters.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, GlyphId};

/// A family of fonts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    /// DejaVu Sans.
    Sans,
    /// DejaVu Sans Condensed.
    Condensed,
    /// Noto Sans.
    Noto,
    /// DejaVu Serif.
    Serif,
    /// DejaVu Serif Condensed.
    SerifCondensed,
    /// DejaVu Sans Mono.
    Mono,
}

impl Family {
    /// The families of the seen layouts.
    pub(super) const SEEN: [Self; 3] = [Self::Sans, Self::Condensed, Self::Noto];

    /// The families of the held-out layouts.
    pub(super) const HELD_OUT: [Self; 3] = [Self::Serif, Self::SerifCondensed, Self::Mono];

    /// The width of its text at one size, in percent of DejaVu Sans: wide fonts are set smaller.
    pub(super) fn size_percent(self) -> u32 {
        match self {
            Self::Sans | Self::Serif => 100,
            Self::Condensed | Self::SerifCondensed => 105,
            Self::Noto => 106,
            Self::Mono => 94,
        }
    }
}

/// A font file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Face {
    pub(super) family: Family,
    pub(super) bold: bool,
}

static FONTS: LazyLock<[FontRef<'static>; 12]> = LazyLock::new(|| {
    let files = [
        dejavu::sans::regular(),
        dejavu::sans::bold(),
        dejavu::sans_condensed::regular(),
        dejavu::sans_condensed::bold(),
        notosans::REGULAR_TTF,
        notosans::BOLD_TTF,
        dejavu::serif::regular(),
        dejavu::serif::bold(),
        dejavu::serif_condensed::regular(),
        dejavu::serif_condensed::bold(),
        dejavu::sans_mono::regular(),
        dejavu::sans_mono::bold(),
    ];
    files.map(|file| FontRef::try_from_slice(file).expect("an embedded font is valid"))
});

/// The widths in ems of the characters below U+0100 in each font: nearly all that pages have.
static ADVANCES: LazyLock<[[f32; 256]; 12]> = LazyLock::new(|| {
    FONTS.each_ref().map(|font| std::array::from_fn(|code| advance(font, char::from(code as u8))))
});

fn advance(font: &FontRef<'static>, character: char) -> f32 {
    font.h_advance_unscaled(font.glyph_id(character)) / font.units_per_em().unwrap_or(1000.0)
}

impl Face {
    fn index(self) -> usize {
        2 * self.family as usize + usize::from(self.bold)
    }

    pub(super) fn font(self) -> &'static FontRef<'static> {
        &FONTS[self.index()]
    }

    /// The glyph of a character.
    pub(super) fn glyph(self, character: char) -> GlyphId {
        self.font().glyph_id(character)
    }

    /// The width of a character in ems.
    pub(super) fn advance(self, character: char) -> f32 {
        match u8::try_from(character) {
            Ok(code) => ADVANCES[self.index()][usize::from(code)],
            Err(_) => advance(self.font(), character),
        }
    }

    /// The scale of `ab_glyph`, which is the height of a line, for an em of 1.
    pub(super) fn scale_of_em(self) -> f32 {
        self.font().height_unscaled() / self.font().units_per_em().unwrap_or(1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_has_all_letters_and_signs() {
        let characters = "AZaz09 äöüßéèêàâçñóíúáºÀÉÊÜÓÁ€£¥$ł'’°.,:;-/#&%!¡()+\u{a0}";
        for family in Family::SEEN.into_iter().chain(Family::HELD_OUT) {
            for bold in [false, true] {
                let face = Face { family, bold };
                for character in characters.chars() {
                    assert_ne!(face.glyph(character).0, 0, "{face:?} has no {character:?}");
                    assert!((0.1..1.2).contains(&face.advance(character)), "{face:?} {character:?}");
                }
            }
        }
    }
}
