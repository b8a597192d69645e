//! The emoji data set: 3,944 pictures with captions, inside the program, so that the demo needs no network.
//!
//! A pair is an emoji that has both a [Twemoji](https://github.com/jdecked/twemoji) picture (PNG, 72 x 72, transparent
//! background) and a Unicode name. The skin-tone variants are pairs of their own. The canonical caption is the name in
//! plain words (`woman firefighter with medium skin tone`); the others come from templates over name, group and GitHub
//! shortcodes. The label is one of the nine Unicode groups.
//!
//! # The split
//!
//! A tenth, 394 pairs, is held out and 3,550 remain for training. The split is *compositional*: no caption of a held-out
//! pair is a caption of a training pair, but each word of a held-out canonical caption stands in the canonical caption
//! of a training pair. A model scores on it by putting known words together, which is what CLIP is for; it cannot score
//! by memory, and it is never asked for a word it has not seen. The choice is a fixed hash of the emoji: no seed, the
//! same everywhere.
//!
//! 2,030 of the pairs (297 of those held out) are skin-tone variants of another pair: near twins, which make retrieval
//! hard. [`EmojiPair::tone`] and [`Sample::variant_of`] tell them, so that evaluation can report both with and without.
//!
//! The graphics are © Twitter, Inc and other contributors, licensed CC-BY 4.0; who shows them must credit them
//! ([`CREDIT`]).

mod captions;
mod export;
mod split;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use twemoji_assets::png::codes;

pub use export::{EmojiStats, export};

use crate::{ImageBytes, Result, Sample, Source};

/// The credit that the licence of the graphics asks for.
pub const CREDIT: &str = "Emoji graphics: Twemoji (https://github.com/jdecked/twemoji), \
    Copyright 2020 Twitter, Inc and other contributors, licensed under CC-BY 4.0 \
    (https://creativecommons.org/licenses/by/4.0/). Names: Unicode CLDR.";

/// One emoji with its picture and captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmojiPair {
    /// The code points in hexadecimal, as Twemoji names its files: `1f469-1f3fd-200d-1f692`.
    pub key: String,
    /// The emoji itself.
    pub emoji: &'static str,
    /// Its Unicode (CLDR) name.
    pub name: &'static str,
    /// The captions; the first is canonical and unique among all pairs.
    pub captions: Vec<String>,
    /// The Unicode group in words, such as `food and drink`.
    pub group: &'static str,
    /// The key of the same emoji without a chosen skin tone; its own key where it has none.
    pub base: String,
    /// The skin tone, or both of two people: `light skin tone, dark skin tone`.
    pub tone: Option<String>,
    /// Whether the pair is kept from training.
    pub held_out: bool,
    /// The PNG.
    pub png: &'static [u8],
}

/// Which side of the split to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmojiSplit {
    /// The 3,550 pairs for training.
    #[default]
    Train,
    /// The 394 pairs kept for evaluation.
    HeldOut,
    /// All 3,944 pairs.
    All,
}

/// What to read of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmojiConfig {
    /// The side of the split.
    pub split: EmojiSplit,
}

/// All pairs, in the order of Unicode.
pub fn pairs() -> &'static [EmojiPair] {
    static PAIRS: LazyLock<Vec<EmojiPair>> = LazyLock::new(build);
    &PAIRS
}

/// The nine groups in words, in the order of Unicode: the classes of the data set.
pub fn groups() -> Vec<&'static str> {
    emojis::Group::iter().map(group_words).collect()
}

fn build() -> Vec<EmojiPair> {
    let pictures: HashMap<_, _> = PICTURES.iter().map(|&(emoji, key, png)| (emoji, (key, png))).collect();
    let mut pairs: Vec<EmojiPair> = Vec::new();
    for default in emojis::iter() {
        let shortcodes: Vec<String> = default.shortcodes().map(captions::shortcode_words).collect();
        let Some(&(base, _)) = pictures.get(default.as_str()) else { continue };
        // `iter` gives the default tones alone; an emoji that takes no tone is its own only form.
        let forms: Vec<_> = default.skin_tones().map_or_else(|| vec![default], Iterator::collect);
        for emoji in forms {
            let Some(&(key, png)) = pictures.get(emoji.as_str()) else { continue };
            let tones = captions::tones(emoji.name());
            let group = group_words(emoji.group());
            pairs.push(EmojiPair {
                captions: captions::captions(&captions::phrase(emoji.name()), group, &shortcodes, &tones),
                key: key.to_owned(),
                emoji: emoji.as_str(),
                name: emoji.name(),
                group,
                base: base.to_owned(),
                tone: (!tones.is_empty()).then(|| tones.join(", ")),
                held_out: false,
                png,
            });
        }
    }
    mark_held_out(&mut pairs);
    pairs
}

/// Marks the held-out pairs, and takes from training each caption that a held-out pair has too (a shortcode may equal
/// the name of another emoji). Training alone has captions that say no more than the group.
fn mark_held_out(pairs: &mut [EmojiPair]) {
    let keys: Vec<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
    let canonical: Vec<&str> = pairs.iter().map(|pair| pair.captions[0].as_str()).collect();
    for (pair, held_out) in split::held_out(&keys, &canonical).into_iter().enumerate() {
        pairs[pair].held_out = held_out;
    }
    let held: HashSet<String> =
        pairs.iter().filter(|pair| pair.held_out).flat_map(|pair| pair.captions.clone()).collect();
    for pair in pairs.iter_mut().filter(|pair| !pair.held_out) {
        pair.captions.retain(|caption| !held.contains(caption));
        pair.captions.push(captions::of_group(pair.group));
    }
}

// `static PICTURES`: of each emoji its text, its key and its PNG.
include!(concat!(env!("OUT_DIR"), "/pictures.rs"));

fn group_words(group: emojis::Group) -> &'static str {
    match group {
        emojis::Group::SmileysAndEmotion => "smileys and emotion",
        emojis::Group::PeopleAndBody => "people and body",
        emojis::Group::AnimalsAndNature => "animals and nature",
        emojis::Group::FoodAndDrink => "food and drink",
        emojis::Group::TravelAndPlaces => "travel and places",
        emojis::Group::Activities => "activities",
        emojis::Group::Objects => "objects",
        emojis::Group::Symbols => "symbols",
        emojis::Group::Flags => "flags",
    }
}

/// The emoji as a [`Source`].
pub(crate) struct EmojiSource {
    name: &'static str,
    pairs: Vec<&'static EmojiPair>,
}

impl EmojiSource {
    pub(crate) fn new(split: EmojiSplit) -> Self {
        let (name, keep): (_, fn(&EmojiPair) -> bool) = match split {
            EmojiSplit::Train => ("emoji (train)", |pair| !pair.held_out),
            EmojiSplit::HeldOut => ("emoji (held_out)", |pair| pair.held_out),
            EmojiSplit::All => ("emoji (all)", |_| true),
        };
        Self { name, pairs: pairs().iter().filter(|pair| keep(pair)).collect() }
    }
}

impl Source for EmojiSource {
    fn name(&self) -> &str {
        self.name
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let pair = self.pairs[index];
        Ok(Sample {
            key: pair.key.clone(),
            image: ImageBytes::Static(pair.png),
            captions: pair.captions.clone(),
            label: Some(pair.group.to_owned()),
            variant_of: (pair.base != pair.key).then(|| pair.base.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::captions::words;
    use super::*;

    fn side(held_out: bool) -> impl Iterator<Item = &'static EmojiPair> {
        pairs().iter().filter(move |pair| pair.held_out == held_out)
    }

    #[test]
    fn there_are_3944_pairs_of_which_394_are_held_out() {
        assert_eq!(pairs().len(), 3944);
        assert_eq!(side(true).count(), 394);
        assert_eq!(side(false).count(), 3550);
    }

    #[test]
    fn keys_and_canonical_captions_are_unique() {
        assert_eq!(pairs().iter().map(|pair| &pair.key).collect::<HashSet<_>>().len(), pairs().len());
        assert_eq!(pairs().iter().map(|pair| &pair.captions[0]).collect::<HashSet<_>>().len(), pairs().len());
    }

    #[test]
    fn no_held_out_caption_occurs_in_training() {
        let train: HashSet<&String> = side(false).flat_map(|pair| &pair.captions).collect();
        for pair in side(true) {
            assert!(pair.captions.iter().all(|caption| !train.contains(caption)), "{pair:?}");
        }
    }

    #[test]
    fn each_word_of_a_held_out_caption_occurs_in_a_canonical_training_caption() {
        let train: HashSet<&str> = side(false).flat_map(|pair| words(&pair.captions[0])).collect();
        for pair in side(true) {
            assert!(words(&pair.captions[0]).all(|word| train.contains(word)), "{}", pair.captions[0]);
        }
    }

    #[test]
    fn training_pairs_keep_their_canonical_caption() {
        assert!(side(false).all(|pair| pair.captions[0] == captions::phrase(pair.name)));
    }

    #[test]
    fn a_variant_names_the_emoji_it_varies() {
        let keys: HashSet<&String> = pairs().iter().map(|pair| &pair.key).collect();
        for pair in pairs() {
            assert!(keys.contains(&pair.base), "{pair:?}");
            assert_eq!(pair.tone.is_some(), pair.base != pair.key, "{}", pair.name);
        }
        let plain = |held_out| side(held_out).filter(|pair| pair.tone.is_none()).count();
        assert_eq!((plain(false), plain(true)), (1817, 97));
    }

    #[test]
    fn the_split_stays_as_it_was() {
        let first: Vec<&str> = side(true).take(3).map(|pair| pair.captions[0].as_str()).collect();
        assert_eq!(first, ["grinning face", "smiling face with hearts", "kissing face with closed eyes"]);
    }
}
