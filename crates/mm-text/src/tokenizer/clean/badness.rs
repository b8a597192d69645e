//! Whether a text looks like UTF-8 that was decoded with another encoding: the sequences that ftfy 6.3's
//! `badness` counts.

use regex::Regex;
use std::sync::LazyLock;

// The characters that UTF-8 becomes when it is decoded with a single-byte encoding, by their use in intact
// texts.

/// Characters that occur in many contexts.
const COMMON: &str = "\u{a0}\u{ad}·´–—―…’";
/// Controls of Latin-1, which texts do not contain.
const C1: &str = "\u{80}-\u{9f}";
/// Characters that hardly ever occur in intact texts.
const BAD: &str = "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}ªº";
const LAW: &str = "¶§";
const CURRENCY: &str = "¢£¥₧€";
/// Punctuation before a word.
const START: &str = "¡«¿©΄΅‘‚“„•‹\u{f8ff}";
/// Punctuation after a word.
const END: &str = "®»˝”›™";
const NUMERIC: &str = "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№";
/// Letters that emoticons contain, and so occur next to anything.
const KAOMOJI: &str = "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ";
const UPPER_COMMON: &str = "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я";
const LOWER_COMMON: &str = "α-ωάέήίΰа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓";

/// White space and letters, as in Python's `\s` and `\w`.
const SPACE: &str = r"[\s\x1c-\x1f]";
const WORD: &str = r"[\p{L}\p{N}_]";

/// Whether `text` has a sequence of characters that hardly ever occurs in intact texts.
pub(super) fn is_bad(text: &str) -> bool {
    IS_BAD.is_match(text)
}

static IS_BAD: LazyLock<Regex> = LazyLock::new(|| {
    let accented = [LOWER_ACCENTED, UPPER_ACCENTED].concat();
    let marks = [START, END, CURRENCY, NUMERIC, LAW].concat();
    let arabic = [COMMON, CURRENCY, BAD, NUMERIC, START, "ŸŠ®°µ»"].concat();
    let class = |parts: &[&str]| format!("[{}]", parts.concat());
    let pairs = [
        class(&[C1]),
        class(&[BAD, &accented, BOX, &marks]) + &class(&[BAD]),
        class(&[BAD]) + &class(&[&accented, BOX, &marks]),
        format!("[a-zA-Z]{}{}", class(&[LOWER_COMMON, UPPER_COMMON]), class(&[BAD])),
        class(&[LOWER_ACCENTED, LOWER_COMMON, BOX, END, CURRENCY, NUMERIC]) + &class(&[UPPER_ACCENTED]),
        class(&[BOX, END, CURRENCY, NUMERIC]) + &class(&[LOWER_ACCENTED]),
        class(&[LOWER_ACCENTED, BOX, END]) + &class(&[CURRENCY]),
        format!("{SPACE}{}{}", class(&[UPPER_ACCENTED]), class(&[CURRENCY])),
        class(&[UPPER_ACCENTED, BOX]) + &class(&[NUMERIC, LAW]),
        class(&[&accented, BOX, CURRENCY, END]) + &class(&[START]) + &class(&[NUMERIC]),
        class(&[&accented, CURRENCY, NUMERIC, BOX, LAW]) + &class(&[END]) + &class(&[START]),
        class(&[CURRENCY, NUMERIC, BOX]) + &class(&[START]),
        format!("[a-z]{}{}", class(&[UPPER_ACCENTED]), class(&[START, CURRENCY])),
        class(&[BOX]) + &class(&[KAOMOJI]),
        class(&[&accented, &marks]) + &class(&[BOX]),
        class(&[BOX]) + &class(&[END]),
        class(&[&accented]) + &class(&[START, END]) + WORD,
        "[Œœ][^A-Za-z]".to_owned(),
        class(&[UPPER_ACCENTED]) + "°",
    ];
    // Of one encoding each.
    let windows_1252 = [
        "[ÂÃÎÐ]".to_owned() + &class(&["€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»", START, END, "–—´"]),
        "×[²³]".to_owned(),
        format!("(?:[ØÙ][{arabic}]){{2}}"),
        "à[²µ¹¼½¾]".to_owned(),
        "Ã[\u{a0}¡]".to_owned(),
        format!("[a-z]{SPACE}?[ÃÂ] "),
        r"\A[ÃÂ] ".to_owned(),
        class(&["a-z.,?!", END]) + "Â" + &class(&[" ", START, END]),
    ];
    let others = [
        "√[±∂†≠®™´≤≥¥µø]".to_owned(), // Mac OS Roman
        "≈[°¢]".to_owned(),
        "‚Ä[ìîïòôúùû†°¢π]".to_owned(),
        "‚[âó][àä°ê]".to_owned(),
        "вЂ".to_owned(), // Windows-1251
        "[ВГРС]".to_owned() + &class(&[C1, BAD, START, END, CURRENCY, "°µ"]) + "[ВГРС]",
        "ГўВЂВ.[A-Za-z ]".to_owned(),
        "β€[™\u{a0}Ά\u{ad}®°]".to_owned(), // Windows-1253
        "[ΒΓΞΟ]".to_owned() + &class(&[C1, BAD, START, END, CURRENCY, "°"]) + "[ΒΓΞΟ]",
        "ā€".to_owned(), // Windows-1257
    ];
    let all: Vec<String> = pairs.into_iter().chain(windows_1252).chain(others).collect();
    Regex::new(&all.join("|")).expect("the pattern is valid")
});

#[cfg(test)]
mod tests {
    use super::is_bad;

    #[test]
    fn broken_texts_are_told_from_whole_ones() {
        for broken in ["sÃ³", "â€™", "вЂ™", "β€™", "‚Äî", "Ã la carte", "dâ€\u{9d}", "├®"]
        {
            assert!(is_bad(broken), "{broken:?}");
        }
        for whole in [
            "só",
            "“quoted”",
            "Ünïcödé ßtreet",
            "Кошка на крыше",
            "ΑΣ ΟΔΟΣ",
            "10³ ½ €5",
            "(◕‿◕)",
            "日本語",
            "قطة",
        ] {
            assert!(!is_bad(whole), "{whole:?}");
        }
    }
}
