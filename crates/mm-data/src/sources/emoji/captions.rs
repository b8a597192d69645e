//! Captions in plain words from the Unicode name of an emoji.

/// The canonical caption: the Unicode (CLDR) name as a phrase in lower case.
///
/// Unicode names have variants after a colon; captions put them into words:
/// `woman firefighter: medium skin tone` becomes
/// `woman firefighter with medium skin tone`, `man: bald` becomes `bald man`, `kiss: woman, man` becomes
/// `kiss of woman and man`, `flag: Peru` becomes `flag of peru`.
pub fn phrase(name: &str) -> String {
    let name = name.to_lowercase().replace('’', "'").replace(['“', '”', '(', ')'], "");
    let Some((head, tail)) = name.split_once(": ") else { return name };
    match head {
        "flag" => return format!("flag of {tail}"),
        "keycap" => return format!("keycap {tail}"),
        _ => {}
    }
    let mut people = Vec::new();
    let mut traits = Vec::new();
    let mut bald = false;
    for part in tail.split(", ") {
        match part {
            "bald" => bald = true,
            "man" | "woman" | "person" | "boy" | "girl" | "adult" | "child" => people.push(part),
            _ => traits.push(part),
        }
    }
    let mut phrase = match (people.is_empty(), head.split_once(" with ")) {
        (true, _) => head.to_owned(),
        (false, Some((noun, object))) => format!("{noun} of {} with {object}", people.join(" and ")),
        (false, None) => format!("{head} of {}", people.join(" and ")),
    };
    if bald {
        phrase.insert_str(0, "bald ");
    }
    with_traits(phrase, &traits)
}

/// `phrase with a and b`, or `phrase and a and b` where the phrase already has a `with`.
pub fn with_traits(phrase: String, traits: &[&str]) -> String {
    if traits.is_empty() {
        return phrase;
    }
    let joint = if phrase.contains(" with ") { "and" } else { "with" };
    format!("{phrase} {joint} {}", traits.join(" and "))
}

/// The skin tones in a name, in order.
pub fn tones(name: &str) -> Vec<&str> {
    let tail = name.split_once(": ").map_or("", |(_, tail)| tail);
    tail.split(", ").filter(|part| part.ends_with("skin tone")).collect()
}

/// A GitHub shortcode as words: `raised_hands` becomes `raised hands`.
pub fn shortcode_words(shortcode: &str) -> String {
    shortcode.replace(['_', '-'], " ").trim().to_owned()
}

/// All captions of a pair without duplicates, the canonical one first.
pub fn captions(canonical: &str, group: &str, shortcodes: &[String], tones: &[&str]) -> Vec<String> {
    let mut captions = vec![
        canonical.to_owned(),
        format!("an emoji of {canonical}"),
        format!("a small picture of {canonical}"),
        format!("{canonical}, {group}"),
    ];
    for words in shortcodes {
        let caption = with_traits(words.clone(), tones);
        if !captions.contains(&caption) {
            captions.push(caption);
        }
    }
    captions
}

/// The caption of the group.
pub fn of_group(group: &str) -> String {
    format!("something from {group}")
}

/// The words of a caption for the split: separated by white space, without punctuation.
pub fn words(caption: &str) -> impl Iterator<Item = &str> {
    caption
        .split_whitespace()
        .map(|word| word.trim_matches([',', '.', '!', '?']))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_phrases() {
        for (name, expected) in [
            ("grinning face", "grinning face"),
            ("woman firefighter: medium-dark skin tone", "woman firefighter with medium-dark skin tone"),
            ("woman with veil: light skin tone", "woman with veil and light skin tone"),
            ("man: medium skin tone, bald", "bald man with medium skin tone"),
            ("person: light skin tone, red hair", "person with light skin tone and red hair"),
            ("kiss: woman, man", "kiss of woman and man"),
            (
                "couple with heart: woman, man, light skin tone, dark skin tone",
                "couple of woman and man with heart and light skin tone and dark skin tone",
            ),
            ("family: man, woman, girl", "family of man and woman and girl"),
            ("flag: Côte d’Ivoire", "flag of côte d'ivoire"),
            ("keycap: #", "keycap #"),
            ("Japanese “free of charge” button", "japanese free of charge button"),
        ] {
            assert_eq!(phrase(name), expected);
        }
    }

    #[test]
    fn captions_have_no_duplicates() {
        let all = captions("raised hands", "people and body", &["raised hands".into(), "hooray".into()], &[]);
        assert_eq!(all.last().map(String::as_str), Some("hooray"));
        assert_eq!(all.len(), 5);
    }
}
