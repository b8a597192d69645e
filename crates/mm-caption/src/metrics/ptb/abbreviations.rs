//! Abbreviations, which keep their period, and the words that begin a sentence after an acronym.
//!
//! The lists are what the peer does: it was run on every word of two to four letters and on the words of
//! COCO's captions, in each case and before a word, a number and a line's end.

use super::characters::is_digit;

/// Keep their period in any case of letters, also where a longer word could be read: `Mass.o'clock` is
/// `mass.` and `o'clock`; sorted.
const EARLY: [&str; 76] = [
    "al", "ala", "apr", "ariz", "assn", "aug", "bancorp", "bhd", "bldg", "blvd", "bros", "calif", "co",
    "colo", "conn", "corp", "cos", "ct", "dak", "dec", "ed.d", "esq", "est", "etc", "ext", "feb", "fla",
    "fri", "ga", "inc", "ind", "intl", "jan", "jr", "jul", "jun", "kan", "kans", "ky", "ltd", "mar", "md",
    "mich", "minn", "mo", "mon", "mont", "neb", "nev", "nov", "oct", "okla", "penn", "ph.d", "plc", "rd",
    "rt", "sep", "sept", "seq", "sq", "sr", "sys", "tel", "tenn", "thu", "thurs", "tue", "tues", "univ",
    "va", "vt", "wed", "wis", "wisc", "wyo",
];

/// Keep their period in any case of letters; sorted.
const TITLES: [&str; 64] = [
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf", "cie",
    "cmdr", "col", "comdr", "cpl", "dept", "det", "dr", "drs", "elec", "ens", "ft", "gen", "gov", "govs",
    "hon", "insp", "invt", "jos", "lieut", "lt", "maj", "messrs", "mlle", "mme", "mr", "mrs", "ms", "msgr",
    "mt", "natl", "pfc", "ph", "pres", "prof", "profs", "pvt", "rep", "reps", "rev", "sen", "sens", "sfc",
    "sgt", "spc", "st", "ste", "supt", "supts", "treas", "vs", "wm",
];

/// As [`EARLY`], if the first letter is a capital; they are words otherwise.
const CAPITALIZED: [&str; 11] = ["ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"];

/// Keep their period before a number.
const NUMBERED: [&str; 9] = ["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"];

/// Words that begin a sentence after an acronym if their first letter is a capital; sorted.
const STARTERS: [&str; 46] = [
    "a",
    "about",
    "according",
    "additionally",
    "after",
    "an",
    "as",
    "at",
    "but",
    "earlier",
    "he",
    "her",
    "here",
    "however",
    "if",
    "in",
    "it",
    "last",
    "many",
    "more",
    "mr.",
    "ms.",
    "now",
    "once",
    "one",
    "other",
    "our",
    "she",
    "since",
    "so",
    "some",
    "such",
    "that",
    "the",
    "their",
    "then",
    "there",
    "these",
    "they",
    "this",
    "we",
    "what",
    "when",
    "while",
    "yet",
    "you",
];

/// Whether `word`, which a period follows, keeps it whatever comes next. Single letters are acronyms, which
/// are not listed here.
pub fn keeps_period(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    TITLES.binary_search(&lower.as_str()).is_ok()
        || keeps_period_early(word)
        || is_company(word, &["mfg", "mtg"], 1)
}

/// As [`keeps_period`], for the words of [`EARLY`] and their like.
pub fn keeps_period_early(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    EARLY.binary_search(&lower.as_str()).is_ok()
        || (word.starts_with(|first: char| first.is_ascii_uppercase())
            && CAPITALIZED.contains(&lower.as_str()))
        || is_company(word, &["pte", "pty", "ptes", "ptys"], 2)
        || is_company(word, &["ppte", "ppty", "pptes", "pptys"], 3)
}

/// Whether `word` is one of `names` with the letter at `kind` in lower case.
fn is_company(word: &str, names: &[&str], kind: usize) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(word))
        && word.as_bytes().get(kind).is_some_and(u8::is_ascii_lowercase)
}

/// Whether `word` keeps its period before `next`, the character after the period and at most one space.
pub fn keeps_period_before(word: &str, next: char) -> bool {
    is_digit(next) && word.len() <= 4 && NUMBERED.contains(&word.to_ascii_lowercase().as_str())
}

/// Whether `word` begins a sentence after an acronym.
pub fn is_starter(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase())
        && STARTERS.binary_search(&word.to_ascii_lowercase().as_str()).is_ok()
}
