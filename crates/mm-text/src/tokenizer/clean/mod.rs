//! The cleaning of texts before tokenization, as in open_clip and OpenAI's CLIP.

mod badness;
mod charmaps;
mod ftfy;
mod html;
mod mojibake;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The cleaning of texts before tokenization: open_clip's `clean`.
///
/// All but [`TextClean::None`] start as OpenAI's CLIP does: ftfy repairs broken encodings and replaces curly
/// quotation marks, ligatures and letters of other widths, and HTML's character references are resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextClean {
    /// No cleaning, as in transformers.
    #[default]
    None,
    /// Also joins white space to one space.
    Whitespace,
    /// Also lowers case.
    Lower,
    /// Also lowers case and removes the punctuation of ASCII (Zhai et al. 2023).
    Canonicalize,
}

impl TextClean {
    /// `text`, cleaned.
    pub fn clean(self, text: &str) -> Cow<'_, str> {
        if self == Self::None {
            return Cow::Borrowed(text);
        }
        let repaired = if is_plain(text) { Cow::Borrowed(text) } else { Cow::Owned(repair(text)) };
        Cow::Owned(match self {
            Self::None | Self::Whitespace => spaced(&repaired),
            Self::Lower => spaced(&repaired).to_lowercase(),
            Self::Canonicalize => {
                let kept = repaired.chars().filter(|char| *char == '_' || !char.is_ascii_punctuation());
                spaced(
                    &kept.map(|char| if char == '_' { ' ' } else { char }).collect::<String>().to_lowercase(),
                )
            }
        })
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Whitespace => "whitespace",
            Self::Lower => "lower",
            Self::Canonicalize => "canonicalize",
        }
    }

    /// The cleaning with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Whitespace, Self::Lower, Self::Canonicalize]
            .into_iter()
            .find(|clean| clean.name() == name)
    }
}

/// Whether there is nothing to repair in `text`, as in nearly all captions.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'%' | b'\''..=b'~' | b'\t' | b'\n' | b'\r' | b'\x0c'))
}

fn repair(text: &str) -> String {
    let fixed = ftfy::fix_text(text);
    html::unescape(&html::unescape(&fixed)).into_owned()
}

/// The words of `text`, joined by spaces.
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_plain_is_what_repairing_leaves_alone() {
        for byte in 0..=0x7fu8 {
            let text = format!("a{}b", char::from(byte));
            let is_same = spaced(&repair(&text)) == spaced(&text);
            assert!(is_same || !is_plain(&text), "{text:?}");
            assert!(is_plain(&text) || byte == b'&' || !is_same, "{text:?} would be repaired in vain");
        }
    }

    #[test]
    fn names_are_those_of_configurations() {
        for clean in [TextClean::None, TextClean::Whitespace, TextClean::Lower, TextClean::Canonicalize] {
            assert_eq!(TextClean::from_name(clean.name()), Some(clean));
            assert_eq!(serde_json::to_value(clean).unwrap(), clean.name());
        }
        assert_eq!(TextClean::from_name("upper"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_cleaned(text in any::<String>()) {
            let cleaned = TextClean::Canonicalize.clean(&text);
            prop_assert!(!cleaned.starts_with(' ') && !cleaned.contains("  "));
        }
    }
}
