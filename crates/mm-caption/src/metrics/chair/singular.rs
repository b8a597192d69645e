//! The singular of an English noun by the rules of the Python package `pattern`, which CHAIR uses.
//!
//! The rules apply to any word and to singulars as well, with odd results: `glass` becomes `glas`, and `bus`
//! becomes `bu`. CHAIR's list of words takes some of that into account.

/// Words that stay, and so do endings of them: the rule of `pattern` is `rule.endswith(word)`.
const UNINFLECTED: &str = "advice bison bread bream breeches britches butter carp chassis cheese \
    christmas clippers cod contretemps corps debris diabetes djinn eland electricity elk equipment \
    flounder fruit furniture gallows garbage georgia graffiti gravel happiness headquarters herpes \
    high-jinks homework information innings jackanapes ketchup knowledge love luggage mackerel \
    mathematics mayonnaise measles meat mews mumps mustard news pincers pliers proceedings progress \
    rabies research rice salmon sand scissors series shears software species swine swiss trout tuna \
    understanding water whiting wildebeest";

/// Words whose plural stays, because the rule of `pattern` returns the word itself.
const ENDING_IN_IE: &str = "alergie auntie beanie birdie bogie bombie collie cookie cutie doggie eyrie \
    freebie goonie groupie hankie hippie hoagie hottie indie junkie laddie laramie lingerie meanie newbie \
    nightie oldie pixie quickie reverie rookie softie sortie stoolie sweetie techie toughie valkyrie veggie \
    weenie yuppie zombie";

/// Irregular plurals, which are replaced at the end of any word: `women`.
const IRREGULAR: [(&str, &str); 41] = [
    ("atlantes", "atlas"),
    ("atlases", "atlas"),
    ("axes", "axe"),
    ("beeves", "beef"),
    ("brethren", "brother"),
    ("children", "child"),
    ("corpora", "corpus"),
    ("corpuses", "corpus"),
    ("ephemerides", "ephemeris"),
    ("feet", "foot"),
    ("ganglia", "ganglion"),
    ("geese", "goose"),
    ("genera", "genus"),
    ("genii", "genie"),
    ("graffiti", "graffito"),
    ("helves", "helve"),
    ("kine", "cow"),
    ("leaves", "leaf"),
    ("loaves", "loaf"),
    ("men", "man"),
    ("mongooses", "mongoose"),
    ("monies", "money"),
    ("moves", "move"),
    ("mythoi", "mythos"),
    ("numena", "numen"),
    ("occipita", "occiput"),
    ("octopodes", "octopus"),
    ("opera", "opus"),
    ("opuses", "opus"),
    ("our", "my"),
    ("oxen", "ox"),
    ("penes", "penis"),
    ("penises", "penis"),
    ("people", "person"),
    ("sexes", "sex"),
    ("soliloquies", "soliloquy"),
    ("teeth", "tooth"),
    ("testes", "testis"),
    ("trilbys", "trilby"),
    ("turves", "turf"),
    ("zoa", "zoon"),
];

/// An ending, its replacement, and the condition on the part of the word before it.
type Rule = (&'static str, &'static str, fn(&str) -> bool);

const ALWAYS: fn(&str) -> bool = |_| true;
const NOT_EMPTY: fn(&str) -> bool = |stem| !stem.is_empty();

/// The rules in their order; the first that applies decides. The last one drops an `s`.
const RULES: [Rule; 40] = [
    ("ae", "a", NOT_EMPTY),
    ("itis", "itis", NOT_EMPTY),
    ("eaux", "eau", NOT_EMPTY),
    ("zes", "", |stem| stem.ends_with("quiz")),
    ("ices", "ix", |stem| stem.ends_with("matr")),
    ("ices", "ex", |stem| ends_with_any(stem, &["ap", "vert", "ind"])),
    ("es", "", |stem| ends_with_any(stem, &["alias", "status"])),
    ("i", "us", |stem| stem.ends_with(['o', 'c', 't', 'p', '|', 'v', 'i', 'r'])),
    ("es", "is", |stem| ends_with_any(stem, &["cris", "ax", "test"])),
    ("s", "", |stem| stem.ends_with("shoe")),
    ("es", "", |stem| stem.ends_with('o')),
    ("es", "", |stem| stem.ends_with("bus")),
    ("ice", "ouse", |stem| stem.ends_with(['m', '|', 'l'])),
    ("es", "", |stem| ends_with_any(stem, &["x", "ch", "ss", "sh"])),
    ("ovies", "ovie", |stem| stem.ends_with('m')),
    ("ombies", "ombie", NOT_EMPTY),
    ("eries", "eries", |stem| stem.ends_with('s')),
    ("ies", "y", |stem| last_is_not(stem, "aeiouy") || stem.ends_with("qu")),
    ("ves", "f", |stem| ends_with_any(stem, &["al", "el", "ol"])),
    ("ves", "f", |stem| stem.strip_suffix("ea").is_some_and(|start| last_is_not(start, "d"))),
    ("arves", "arf", ALWAYS),
    ("erves", "erve", ALWAYS),
    ("ves", "fe", |stem| ends_with_any(stem, &["ni", "li", "wi"])),
    ("ves", "f", |stem| stem.ends_with(['l', 'r'])),
    ("ves", "ve", |stem| stem.ends_with(['a', 'e', 'o'])),
    ("sives", "sive", ALWAYS),
    ("tives", "tive", ALWAYS),
    ("hives", "hive", ALWAYS),
    ("ves", "fe", |stem| last_is_not(stem, "f")),
    ("ses", "sis", |stem| stem == "analy"),
    ("ses", "asis", |stem| stem.ends_with("analy")),
    ("ses", "sis", |stem| ends_with_any(stem, &["ba", "diagno", "parenthe", "progno", "synop", "the"])),
    ("opses", "opsis", NOT_EMPTY),
    ("yses", "ysis", NOT_EMPTY),
    ("oses", "ose", |stem| ends_with_any(stem, &["h", "d", "r", "o", "n", "b", "cl", "p"])),
    ("oses", "osis", NOT_EMPTY),
    ("a", "um", |stem| stem.ends_with(['t', 'i'])),
    ("news", "news", ALWAYS),
    ("ose", "ose", |stem| ends_with_any(stem, &SUGARS)),
    ("s", "", ALWAYS),
];

/// The words before `-ose` that are not those of an illness.
const SUGARS: [&str; 9] = ["fruct", "gluc", "galact", "lact", "ket", "malt", "rib", "sacchar", "cellul"];

fn ends_with_any(stem: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| stem.ends_with(ending))
}

fn last_is_not(stem: &str, letters: &str) -> bool {
    stem.chars().next_back().is_some_and(|last| !letters.contains(last))
}

/// The singular of a lower-case word.
pub(super) fn singular(word: &str) -> String {
    if let Some(owner) = word.strip_suffix('\'') {
        return singular(owner) + "'s";
    }
    if UNINFLECTED.split_ascii_whitespace().any(|rule| rule.ends_with(word)) {
        return word.to_owned();
    }
    let is_plural = |rule: &str| word.strip_suffix('s').is_some_and(|word| word.ends_with(rule));
    if ENDING_IN_IE.split_ascii_whitespace().any(is_plural) {
        return word.to_owned();
    }
    let irregular =
        IRREGULAR.iter().find_map(|(plural, singular)| Some((word.strip_suffix(plural)?, singular)));
    if let Some((start, singular)) = irregular {
        return format!("{start}{singular}");
    }
    if let Some(rest) = word.strip_prefix("oxen") {
        return format!("ox{rest}");
    }
    let rule = RULES.iter().find_map(|(ending, replacement, applies)| {
        word.strip_suffix(ending).filter(|stem| applies(stem)).map(|stem| format!("{stem}{replacement}"))
    });
    rule.unwrap_or_else(|| word.to_owned())
}
