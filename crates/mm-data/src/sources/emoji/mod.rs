//! The emoji data set: 3,944 images with captions, embedded in the program.
//!
//! A pair is an emoji with a [Twemoji](https://github.com/jdecked/twemoji) image (PNG, 72 x 72, transparent
//! background) and a Unicode name. Skin-tone variants are separate pairs. The canonical caption is the name
//! in plain words (`woman firefighter with medium skin tone`); the others come from templates over name,
//! group and GitHub shortcodes. The label is one of the nine Unicode groups.
//!
//! # The splits
//!
//! There are two ([`HeldOutBy`]). Each holds out a tenth of the pairs. No caption of a held-out pair is a
//! caption of a training pair, so memorization does not help. The choice is a fixed hash without a seed, the
//! same everywhere.
//!
//! *By caption*, 394 pairs, is compositional: each word of a held-out canonical caption occurs in the
//! canonical caption of a training pair. It tests new combinations of known words.
//!
//! *By subgroup*, 393 pairs, holds out whole concepts: 31 of Unicode's subgroups, such as sweet food,
//! reptiles and the signs of the zodiac. Most of their captions have words that no training caption has: it
//! tests a pretrained text tower.
//!
//! 2,030 of the pairs (297 of those held out by caption, none by subgroup) are skin-tone variants of another
//! pair: near duplicates, which make retrieval hard. [`EmojiPair::tone`] and [`Sample::variant_of`] mark
//! them, so that evaluation can report results with and without.
//!
//! The graphics are © Twitter, Inc and other contributors, licensed CC-BY 4.0, which requires the credit
//! [`CREDIT`] wherever they are shown.

mod captions;
mod split;
mod subgroups;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use twemoji_assets::png::codes;

use crate::{Dataset, Result, Sample, SampleImage};

/// The credit that the license of the graphics requires.
pub const CREDIT: &str = "Emoji graphics: Twemoji (https://github.com/jdecked/twemoji), \
    Copyright 2020 Twitter, Inc and other contributors, licensed under CC-BY 4.0 \
    (https://creativecommons.org/licenses/by/4.0/). Names: Unicode CLDR.";

/// An emoji with its image and captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmojiPair {
    /// The code points in hexadecimal, as in Twemoji's file names: `1f469-1f3fd-200d-1f692`.
    pub key: String,
    /// The emoji itself.
    pub emoji: &'static str,
    /// Its Unicode (CLDR) name.
    pub name: &'static str,
    /// The captions; the first is canonical and unique among all pairs.
    pub captions: Vec<String>,
    /// The Unicode group in words, such as `food and drink`.
    pub group: &'static str,
    /// The name of the Unicode subgroup, such as `food-fruit`.
    pub subgroup: &'static str,
    /// The key of the same emoji without a skin tone; its own key where it has none.
    pub base: String,
    /// The skin tone, or those of two people: `light skin tone, dark skin tone`.
    pub tone: Option<String>,
    /// Whether the pair is held out from training.
    pub held_out: bool,
    /// The PNG.
    pub png: &'static [u8],
}

/// The part of a split to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmojiSplit {
    /// The pairs for training: 3,550, or 3,551 by subgroup.
    #[default]
    Train,
    /// The held-out pairs: 394, or 393 by subgroup.
    HeldOut,
    /// All 3,944 pairs.
    All,
}

/// The criterion of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOutBy {
    /// Held-out captions are new, but their words occur in training.
    #[default]
    Caption,
    /// Whole subgroups are held out.
    Subgroup,
}

/// The config of the emoji data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmojiConfig {
    /// The part of the split.
    pub split: EmojiSplit,
    /// The criterion of the split.
    pub by: HeldOutBy,
}

/// All pairs with one of the splits, in Unicode order.
pub fn pairs(by: HeldOutBy) -> &'static [EmojiPair] {
    static BY_CAPTION: LazyLock<Vec<EmojiPair>> = LazyLock::new(|| build(HeldOutBy::Caption));
    static BY_SUBGROUP: LazyLock<Vec<EmojiPair>> = LazyLock::new(|| build(HeldOutBy::Subgroup));
    match by {
        HeldOutBy::Caption => &BY_CAPTION,
        HeldOutBy::Subgroup => &BY_SUBGROUP,
    }
}

/// The nine groups in words, in Unicode order: the classes of the data set.
pub fn groups() -> Vec<&'static str> {
    emojis::Group::iter().map(group_words).collect()
}

fn build(by: HeldOutBy) -> Vec<EmojiPair> {
    let pictures: HashMap<_, _> = PICTURES.iter().map(|&(emoji, key, png)| (emoji, (key, png))).collect();
    let mut pairs: Vec<EmojiPair> = Vec::new();
    let mut subgroup = "";
    let mut subgroups_ahead = subgroups::SUBGROUPS.iter().peekable();
    for default in emojis::iter() {
        if let Some((_, name)) = subgroups_ahead.next_if(|(first, _)| *first == default.as_str()) {
            subgroup = name;
        }
        let shortcodes: Vec<String> = default.shortcodes().map(captions::shortcode_words).collect();
        let Some(&(base, _)) = pictures.get(default.as_str()) else { continue };
        // `iter` gives only default tones; an emoji without tones has one form.
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
                subgroup,
                base: base.to_owned(),
                tone: (!tones.is_empty()).then(|| tones.join(", ")),
                held_out: false,
                png,
            });
        }
    }
    let held_out = match by {
        HeldOutBy::Caption => {
            let keys: Vec<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
            let canonical: Vec<&str> = pairs.iter().map(|pair| pair.captions[0].as_str()).collect();
            split::by_caption(&keys, &canonical)
        }
        HeldOutBy::Subgroup => {
            let subgroups: Vec<&str> = pairs.iter().map(|pair| pair.subgroup).collect();
            let variants: Vec<bool> = pairs.iter().map(|pair| pair.tone.is_some()).collect();
            split::by_subgroup(&subgroups, &variants)
        }
    };
    mark_held_out(&mut pairs, &held_out);
    pairs
}

/// Marks the held-out pairs, and removes from training each caption that a held-out pair also has (a
/// shortcode may equal the name of another emoji). Only training pairs have the caption of the group.
fn mark_held_out(pairs: &mut [EmojiPair], held_out: &[bool]) {
    for (pair, &held_out) in pairs.iter_mut().zip(held_out) {
        pair.held_out = held_out;
    }
    let held: HashSet<String> =
        pairs.iter().filter(|pair| pair.held_out).flat_map(|pair| pair.captions.clone()).collect();
    for pair in pairs.iter_mut().filter(|pair| !pair.held_out) {
        pair.captions.retain(|caption| !held.contains(caption));
        pair.captions.push(captions::of_group(pair.group));
    }
}

// `static PICTURES`: the text, key and PNG of each emoji.
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

/// The emoji as a [`Dataset`].
pub(crate) struct EmojiDataset {
    name: &'static str,
    pairs: Vec<&'static EmojiPair>,
}

impl EmojiDataset {
    pub(crate) fn new(config: &EmojiConfig) -> Self {
        let (name, keep): (_, fn(&EmojiPair) -> bool) = match config.split {
            EmojiSplit::Train => ("emoji (train)", |pair| !pair.held_out),
            EmojiSplit::HeldOut => ("emoji (held_out)", |pair| pair.held_out),
            EmojiSplit::All => ("emoji (all)", |_| true),
        };
        Self { name, pairs: pairs(config.by).iter().filter(|pair| keep(pair)).collect() }
    }
}

impl Dataset for EmojiDataset {
    fn name(&self) -> &str {
        self.name
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let pair = self.pairs[index];
        Ok(Sample {
            captions: pair.captions.clone(),
            label: Some(pair.group.to_owned()),
            variant_of: (pair.base != pair.key).then(|| pair.base.clone()),
            ..Sample::new(pair.key.clone(), SampleImage::Static(pair.png))
        })
    }

    fn credit(&self) -> &str {
        CREDIT
    }
}

#[cfg(test)]
mod tests {
    use super::captions::words;
    use super::*;

    const BOTH: [HeldOutBy; 2] = [HeldOutBy::Caption, HeldOutBy::Subgroup];

    fn side(by: HeldOutBy, held_out: bool) -> impl Iterator<Item = &'static EmojiPair> {
        pairs(by).iter().filter(move |pair| pair.held_out == held_out)
    }

    fn distinct_words<'a>(captions: impl Iterator<Item = &'a String>) -> HashSet<&'a str> {
        captions.flat_map(|caption| words(caption)).collect()
    }

    #[test]
    fn there_are_3944_pairs_of_which_a_tenth_is_held_out() {
        for (by, held_out) in [(HeldOutBy::Caption, 394), (HeldOutBy::Subgroup, 393)] {
            assert_eq!((side(by, true).count(), side(by, false).count()), (held_out, 3944 - held_out));
        }
    }

    #[test]
    fn keys_and_canonical_captions_are_unique() {
        let pairs = pairs(HeldOutBy::Caption);
        assert_eq!(pairs.iter().map(|pair| &pair.key).collect::<HashSet<_>>().len(), pairs.len());
        assert_eq!(pairs.iter().map(|pair| &pair.captions[0]).collect::<HashSet<_>>().len(), pairs.len());
    }

    #[test]
    fn no_held_out_caption_occurs_in_training() {
        for by in BOTH {
            let train: HashSet<&String> = side(by, false).flat_map(|pair| &pair.captions).collect();
            for pair in side(by, true) {
                assert!(pair.captions.iter().all(|caption| !train.contains(caption)), "{pair:?}");
            }
        }
    }

    #[test]
    fn each_word_of_a_caption_held_out_by_caption_occurs_in_a_canonical_training_caption() {
        let train = distinct_words(side(HeldOutBy::Caption, false).map(|pair| &pair.captions[0]));
        for pair in side(HeldOutBy::Caption, true) {
            assert!(words(&pair.captions[0]).all(|word| train.contains(word)), "{}", pair.captions[0]);
        }
    }

    #[test]
    fn a_subgroup_is_held_out_completely_or_not_at_all() {
        let subgroups =
            |held_out| side(HeldOutBy::Subgroup, held_out).map(|pair| pair.subgroup).collect::<HashSet<_>>();
        let (held_out, train) = (subgroups(true), subgroups(false));
        assert!(held_out.is_disjoint(&train));
        assert_eq!((held_out.len(), train.len()), (31, 67));
        assert!(side(HeldOutBy::Subgroup, true).all(|pair| pair.tone.is_none()));
        for subgroup in ["food-sweet", "animal-reptile", "zodiac", "clothing", "face-smiling"] {
            assert!(held_out.contains(subgroup), "{subgroup}");
        }
    }

    #[test]
    fn most_captions_of_held_out_subgroups_have_words_that_are_new() {
        let train = distinct_words(side(HeldOutBy::Subgroup, false).flat_map(|pair| &pair.captions));
        let held_out: Vec<Vec<&str>> =
            side(HeldOutBy::Subgroup, true).map(|pair| words(&pair.captions[0]).collect()).collect();
        let is_new = |word: &&str| !train.contains(word);
        assert_eq!(held_out.iter().filter(|words| words.iter().any(is_new)).count(), 333);
        assert_eq!(held_out.iter().filter(|words| words.iter().all(is_new)).count(), 164);
    }

    #[test]
    fn each_subgroup_is_contiguous_and_in_one_group() {
        let mut runs: Vec<(&str, &str)> =
            pairs(HeldOutBy::Caption).iter().map(|pair| (pair.subgroup, pair.group)).collect();
        runs.dedup();
        let names: Vec<&str> = runs.into_iter().map(|(subgroup, _)| subgroup).collect();
        assert_eq!(names, subgroups::SUBGROUPS.map(|(_, name)| name));
    }

    #[test]
    fn training_pairs_keep_their_canonical_caption() {
        assert!(
            BOTH.iter()
                .all(|&by| side(by, false).all(|pair| pair.captions[0] == captions::phrase(pair.name)))
        );
    }

    #[test]
    fn a_variant_names_the_emoji_it_varies() {
        let all = pairs(HeldOutBy::Caption);
        let keys: HashSet<&String> = all.iter().map(|pair| &pair.key).collect();
        for pair in all {
            assert!(keys.contains(&pair.base), "{pair:?}");
            assert_eq!(pair.tone.is_some(), pair.base != pair.key, "{}", pair.name);
        }
        let plain = |held_out| side(HeldOutBy::Caption, held_out).filter(|pair| pair.tone.is_none()).count();
        assert_eq!((plain(false), plain(true)), (1817, 97));
    }

    #[test]
    fn the_splits_are_stable() {
        let first = |by| side(by, true).take(3).map(|pair| pair.captions[0].as_str()).collect::<Vec<_>>();
        assert_eq!(
            first(HeldOutBy::Caption),
            ["grinning face", "smiling face with hearts", "kissing face with closed eyes"]
        );
        assert_eq!(
            first(HeldOutBy::Subgroup),
            ["grinning face", "grinning face with big eyes", "grinning face with smiling eyes"]
        );
    }
}
