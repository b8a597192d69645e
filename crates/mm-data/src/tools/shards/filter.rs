//! The filters of a packing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hash::MOST_BITS;
use mm_image::Header;

use crate::{Error, Result};

/// A condition for keeping a sample, from cheap to expensive. As text: `min_side=200`, `caption_words=2..40`.
/// For a sample with several images, sizes apply to each, `clip_score` and `duplicates` to the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Filter {
    /// The number of words of the canonical caption, separated by white space.
    CaptionWords(Bounds),
    /// The number of characters of the canonical caption.
    CaptionChars(Bounds),
    /// The minimum short side in pixels.
    MinSide(u32),
    /// The maximum long side in pixels.
    MaxSide(u32),
    /// The maximum ratio of the long side to the short side.
    MaxAspect(f64),
    /// The minimum cosine similarity of image and canonical caption by a model; drops samples without
    /// caption.
    ClipScore(f32),
    /// The maximum difference in bits, of 64, of the perceptual hashes of duplicate images; the first of
    /// several duplicates is kept.
    Duplicates(u32),
}

/// An inclusive range with at least one bound: `2..40`, `2..`, `..40`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The minimum.
    pub least: u32,
    /// The maximum, if there is one.
    pub most: Option<u32>,
}

/// The names, each with an example.
const EXAMPLES: [(&str, &str); 7] = [
    ("caption_words", "caption_words=2..40"),
    ("caption_chars", "caption_chars=5..300"),
    ("min_side", "min_side=200"),
    ("max_side", "max_side=8000"),
    ("max_aspect", "max_aspect=3"),
    ("clip_score", "clip_score=0.25"),
    ("duplicates", "duplicates=4"),
];

impl Filter {
    /// The name, for reports.
    pub fn name(&self) -> &'static str {
        EXAMPLES[self.place()].0
    }

    /// Its position in the order from cheap to expensive.
    pub(super) fn place(&self) -> usize {
        match self {
            Self::CaptionWords(_) => 0,
            Self::CaptionChars(_) => 1,
            Self::MinSide(_) => 2,
            Self::MaxSide(_) => 3,
            Self::MaxAspect(_) => 4,
            Self::ClipScore(_) => 5,
            Self::Duplicates(_) => 6,
        }
    }

    /// Whether the filter keeps a sample by its header and caption, without pixels and other samples.
    pub(super) fn keeps(&self, header: &Header, caption: &str) -> bool {
        match self {
            Self::CaptionWords(bounds) => bounds.hold(caption.split_whitespace().count()),
            Self::CaptionChars(bounds) => bounds.hold(caption.trim().chars().count()),
            Self::MinSide(least) => header.short_side() >= *least,
            Self::MaxSide(most) => header.width.max(header.height) <= *most,
            Self::MaxAspect(most) => header.aspect() <= *most,
            Self::ClipScore(_) | Self::Duplicates(_) => true,
        }
    }

    /// Sorts filters from cheap to expensive.
    ///
    /// # Errors
    /// A filter is given twice.
    pub(super) fn sorted(filters: &[Self]) -> Result<Vec<Self>> {
        let mut sorted = filters.to_vec();
        sorted.sort_by_key(Self::place);
        match sorted.windows(2).find(|pair| pair[0].place() == pair[1].place()) {
            Some(pair) => Err(Error::Setting(format!(
                "filter {} is given twice: {} and {}",
                pair[0].name(),
                pair[0],
                pair[1]
            ))),
            None => Ok(sorted),
        }
    }
}

impl Bounds {
    fn hold(&self, value: usize) -> bool {
        value >= self.least as usize && self.most.is_none_or(|most| value <= most as usize)
    }

    fn parse(text: &str) -> Option<Self> {
        let (least, most) = text.split_once("..")?;
        let bound = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        let (least, most): (Option<u32>, Option<u32>) = (bound(least)?, bound(most)?);
        let least_or_most = least.or(most)?;
        let bounds = Self { least: least.unwrap_or(0), most };
        bounds.most.is_none_or(|most| most >= bounds.least && most >= least_or_most).then_some(bounds)
    }
}

impl FromStr for Filter {
    type Err = Error;

    /// # Errors
    /// An unknown filter (the message names the nearest), or an invalid value.
    fn from_str(text: &str) -> Result<Self> {
        let (name, value) =
            text.split_once('=').map_or((text, ""), |(name, value)| (name.trim(), value.trim()));
        let Some((_, example)) = EXAMPLES.iter().find(|(known, _)| *known == name) else {
            return Err(Error::Setting(unknown(name)));
        };
        let wrong =
            |expected: &str| Error::Setting(format!("`{text}`: {name} takes {expected}, as in {example}"));
        let number = |least: f64, most: f64| {
            value.parse::<f64>().ok().filter(|number| (least..=most).contains(number))
        };
        let pixels =
            || value.parse().ok().filter(|&pixels| pixels > 0).ok_or_else(|| wrong("pixels, 1 or more"));
        let bounds = || Bounds::parse(value).ok_or_else(|| wrong("MIN..MAX, one of which may be left out"));
        Ok(match name {
            "caption_words" => Self::CaptionWords(bounds()?),
            "caption_chars" => Self::CaptionChars(bounds()?),
            "min_side" => Self::MinSide(pixels()?),
            "max_side" => Self::MaxSide(pixels()?),
            "max_aspect" => Self::MaxAspect(number(1.0, 1e9).ok_or_else(|| wrong("a ratio, 1 or more"))?),
            "clip_score" => {
                Self::ClipScore(number(-1.0, 1.0).ok_or_else(|| wrong("a cosine from -1 to 1"))? as f32)
            }
            _ => {
                let bits = value.parse().ok().filter(|bits| *bits <= MOST_BITS);
                Self::Duplicates(bits.ok_or_else(|| wrong(&format!("bits from 0 to {MOST_BITS}")))?)
            }
        })
    }
}

fn unknown(name: &str) -> String {
    let similarity = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = EXAMPLES.iter().max_by(|a, b| similarity(a.0).total_cmp(&similarity(b.0)));
    match nearest.filter(|(known, _)| similarity(known) > 0.7) {
        Some((known, example)) => format!("no filter `{name}`; did you mean `{known}`, as in {example}?"),
        None => format!("no filter `{name}`; known filters: {}", EXAMPLES.map(|(known, _)| known).join(", ")),
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.least)?;
        self.most.map_or(Ok(()), |most| write!(f, "{most}"))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value: &dyn fmt::Display = match self {
            Self::CaptionWords(bounds) | Self::CaptionChars(bounds) => bounds,
            Self::MinSide(number) | Self::MaxSide(number) | Self::Duplicates(number) => number,
            Self::MaxAspect(ratio) => ratio,
            Self::ClipScore(cosine) => cosine,
        };
        write!(f, "{}={value}", self.name())
    }
}

impl TryFrom<String> for Filter {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;

    fn keeps(filter: &str, (width, height): (u32, u32), caption: &str) -> bool {
        filter.parse::<Filter>().unwrap().keeps(&Header { format: ImageFormat::Png, width, height }, caption)
    }

    #[test]
    fn filters_have_inclusive_bounds() {
        assert!(keeps("min_side=200", (200, 900), "") && !keeps("min_side=200", (900, 199), ""));
        assert!(keeps("max_side=900", (200, 900), "") && !keeps("max_side=900", (901, 10), ""));
        assert!(keeps("max_aspect=3", (300, 100), "") && !keeps("max_aspect=3", (100, 301), ""));
        assert!(
            keeps("caption_words=2..3", (1, 1), " two  words ")
                && !keeps("caption_words=2..3", (1, 1), "one")
        );
        assert!(
            !keeps("caption_words=..3", (1, 1), "these are four words")
                && keeps("caption_words=..3", (1, 1), "")
        );
        assert!(keeps("caption_chars=2..", (1, 1), "éé") && !keeps("caption_chars=3..", (1, 1), "éé "));
    }

    #[test]
    fn a_filter_parses_its_own_text() {
        for (_, example) in EXAMPLES {
            let filter: Filter = example.parse().unwrap();
            assert_eq!(filter.to_string(), *example);
        }
        assert_eq!("caption_words=..40".parse::<Filter>().unwrap().to_string(), "caption_words=0..40");
    }

    #[test]
    fn an_unknown_filter_is_an_error_with_the_nearest() {
        let message_of = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert_eq!(
            message_of("min_sid=3"),
            "no filter `min_sid`; did you mean `min_side`, as in min_side=200?"
        );
        assert!(message_of("xyz").starts_with("no filter `xyz`; known filters: caption_words, "));
        assert_eq!(
            message_of("min_side=-3"),
            "`min_side=-3`: min_side takes pixels, 1 or more, as in min_side=200"
        );
        for wrong in [
            "min_side",
            "min_side=0",
            "max_aspect=0.5",
            "max_aspect=nan",
            "caption_words=3",
            "caption_words=..",
            "caption_words=9..3",
            "clip_score=25",
            "clip_score=inf",
            "duplicates=40",
            "duplicates=-1",
        ] {
            assert!(message_of(wrong).contains(", as in "), "{wrong}");
        }
        let twice = ["min_side=2", "max_side=9", "min_side=3"].map(|text| text.parse().unwrap());
        assert!(Filter::sorted(&twice).unwrap_err().to_string().contains("twice: min_side=2 and min_side=3"));
    }
}
