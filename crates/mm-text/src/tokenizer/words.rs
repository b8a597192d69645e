//! The words that tokens spell.

use crate::{Result, Tokenizer};
use std::collections::BTreeMap;

impl Tokenizer {
    /// The words of the text that `tokens` add to `prompt`, each with the places of its tokens. A token
    /// without text, such as the end token, is part of no word.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn words(&self, prompt: &[u32], tokens: &[u32]) -> Result<Vec<(String, Vec<usize>)>> {
        let mut ids = prompt.to_vec();
        let mut text = self.decode(&ids)?;
        let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &token) in tokens.iter().enumerate() {
            ids.push(token);
            let longer = self.decode(&ids)?;
            if longer != text {
                let word = longer.split_whitespace().count().saturating_sub(1);
                places.entry(word).or_default().push(place);
            }
            text = longer;
        }
        let all: Vec<&str> = text.split_whitespace().collect();
        // A decoder may join a token to the word before it, so that there are fewer words in the end.
        let mut words: Vec<(usize, Vec<usize>)> = Vec::new();
        for (word, tokens) in places {
            let word = word.min(all.len().saturating_sub(1));
            match words.last_mut().filter(|(last, _)| *last == word) {
                Some((_, of_word)) => of_word.extend(tokens),
                None => words.push((word, tokens)),
            }
        }
        let named = |(word, tokens): (usize, Vec<usize>)| Some((all.get(word)?.to_string(), tokens));
        Ok(words.into_iter().filter_map(named).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of `text` with the number of tokens of each, after `prompt`.
    fn counted(folder: &str, prompt: &str, text: &str) -> Vec<(String, usize)> {
        let folder = format!("{}/../../data/goldens/caption/{folder}", env!("CARGO_MANIFEST_DIR"));
        let tokenizer = Tokenizer::for_decoder(folder.as_ref()).unwrap();
        let mut tokens = tokenizer.encode_words(text).unwrap();
        tokens.push(tokenizer.eos_id());
        let prompt = tokenizer.encode_words(prompt).unwrap();
        let found = tokenizer.words(&prompt, &tokens).unwrap();
        let all: Vec<usize> = found.iter().flat_map(|(_, tokens)| tokens.clone()).collect();
        assert!(all.is_sorted() && !all.contains(&(tokens.len() - 1)), "{all:?}");
        found.into_iter().map(|(word, tokens)| (word, tokens.len())).collect()
    }

    #[test]
    fn tokens_belong_to_the_words_that_they_spell_and_the_end_token_to_none() {
        let counts = |words: &[(&str, usize)]| -> Vec<(String, usize)> {
            words.iter().map(|&(word, count)| (word.to_owned(), count)).collect()
        };
        let found = counted("blip", "a picture of", "two red circles.");
        assert_eq!(found, counts(&[("two", 1), ("red", 1), ("circles.", 3)]));
        let found = counted("vit-gpt2", "", "a zebra");
        assert_eq!(found.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>(), ["a", "zebra"]);
        assert!(found[1].1 > 1, "{found:?}");
        // The generated tokens go on with the last word of the prompt.
        let found = counted("vit-gpt2", "a zeb", "ra");
        assert_eq!(found[0].0, "zebra");
        assert_eq!(counted("vit-gpt2", "", ""), []);
    }
}
