//! The single-byte encodings that UTF-8 is decoded with by mistake, in the order in which ftfy tries them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The byte of U+FFFD in Windows' encodings here, as in ftfy's, so that a lost character is one unique byte.
pub(super) const LOST: u8 = 0x1a;

/// A single-byte encoding whose first 128 bytes are ASCII.
pub(super) struct Charmap {
    /// The characters of the bytes from 0x80 to 0xff.
    high: Vec<char>,
    /// Whether it is one of Windows', whose unassigned bytes are the controls of Latin-1, and [`LOST`] is
    /// U+FFFD.
    pub is_windows: bool,
    /// Whether a space may replace the no-break space that is part of a character: in Mac OS Roman that byte
    /// is a dagger.
    pub restores_spaces: bool,
}

impl Charmap {
    fn new(high: &str, is_windows: bool) -> Self {
        Self { high: high.chars().collect(), is_windows, restores_spaces: high != MACROMAN }
    }

    /// The bytes of `text`; none if it has a character of another encoding.
    pub fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |char: char| match char {
            '\u{1a}' if self.is_windows => None,
            '\u{fffd}' if self.is_windows => Some(LOST),
            '\0'..='\x7f' => Some(char as u8),
            _ => self.high.iter().position(|&other| other == char).map(|place| 0x80 + place as u8),
        };
        text.chars().map(byte).collect()
    }

    /// The character of `byte`.
    fn char(&self, byte: u8) -> char {
        if byte < 0x80 { char::from(byte) } else { self.high[usize::from(byte) - 0x80] }
    }
}

/// The character that Windows-1252 has at the place of `char`, a C1 control.
pub(super) fn of_c1(char: char) -> char {
    CHARMAPS[1].char(char as u8)
}

/// All of them; Latin-1 is the first, Windows-1252 the second.
pub(super) static CHARMAPS: LazyLock<Vec<Charmap>> = LazyLock::new(|| {
    let latin_1: String = (0x80..=0xffu8).map(char::from).collect();
    let iso_8859_2: String = latin_1.chars().take(32).chain(ISO_8859_2.chars()).collect();
    let windows = [WINDOWS_1252, WINDOWS_1251, WINDOWS_1250, WINDOWS_1253, WINDOWS_1254, WINDOWS_1257];
    let mut charmaps = vec![Charmap::new(&latin_1, false)];
    charmaps.extend(windows.map(|high| Charmap::new(high, true)));
    charmaps.extend([&iso_8859_2, MACROMAN, CP437].map(|high| Charmap::new(high, false)));
    charmaps
});

/// The characters that the bytes of UTF-8 are in Latin-1 and in Windows' encodings.
pub(super) struct Clues {
    /// Of the first of two bytes.
    pub first_of_2: BTreeSet<char>,
    /// Of the first of three bytes.
    pub first_of_3: BTreeSet<char>,
    /// Of the first of four bytes.
    pub first_of_4: BTreeSet<char>,
    /// Of a byte that is not the first, or a space instead of the no-break space.
    pub continuation: BTreeSet<char>,
    /// Those of them that are rare in intact texts.
    pub strict_continuation: BTreeSet<char>,
}

/// Dashes, quotation marks and the like, which are often intact next to broken characters.
const PLAIN_PUNCTUATION: [char; 11] = ['–', '—', '―', '‘', '’', '‚', '“', '”', '„', '•', '…'];

pub(super) static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    let of = |bytes: &[u8]| -> BTreeSet<char> {
        CHARMAPS[..7].iter().flat_map(|charmap| bytes.iter().map(|&byte| charmap.char(byte))).collect()
    };
    let range = |first: u8, last: u8| of(&(first..=last).collect::<Vec<_>>());
    let (mut continuation, mut strict_continuation) = (range(0x80, 0xbf), range(0x80, 0xbf));
    continuation.insert(' ');
    strict_continuation.retain(|char| !PLAIN_PUNCTUATION.contains(char));
    Clues {
        first_of_2: range(0xc2, 0xdf),
        first_of_3: range(0xe0, 0xef),
        first_of_4: of(&[0xf0, 0xf3]),
        continuation,
        strict_continuation,
    }
});

const WINDOWS_1252: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
    àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1251: &str = "\
    ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\
    \u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ\
    абвгдежзийклмнопрстуфхцчшщъыьэюя";
const WINDOWS_1250: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\
    \u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const WINDOWS_1253: &str = "\
    €\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\
    \u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήί\
    ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";
const WINDOWS_1254: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
    àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
const WINDOWS_1257: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\
    \u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
    ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
const ISO_8859_2: &str = "\
    \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const MACROMAN: &str = "\
    ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\
    †°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ\
    ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
const CP437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
    áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_has_128_different_characters_above_ascii() {
        assert_eq!(CHARMAPS.len(), 10);
        for charmap in CHARMAPS.iter() {
            assert_eq!(charmap.high.iter().collect::<BTreeSet<_>>().len(), 128, "{:?}", charmap.high);
            assert_eq!(charmap.high.len(), 128);
        }
        assert_eq!(CHARMAPS[1].encode("“é\u{fffd}"), Some(vec![0x93, 0xe9, LOST]));
        assert_eq!(CHARMAPS[0].encode("“"), None);
        assert_eq!((of_c1('\u{80}'), of_c1('\u{81}')), ('€', '\u{81}'));
    }
}
