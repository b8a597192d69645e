//! The characters of a sequence, with the token that each is from.

use crate::Result;
use mm_text::Tokenizer;

/// The text of tokens, tags included, with the token of each character.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    pub characters: Vec<char>,
    /// For each character, the index of its token.
    pub tokens: Vec<usize>,
}

impl Spelling {
    /// Spells `ids`, the special ones included: transformers' `decode` without `skip_special_tokens`, up to
    /// white space beside tags.
    ///
    /// # Errors
    /// The tokenizers library cannot decode them.
    pub fn new(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Self> {
        let mut spelling = Self::default();
        let mut run = 0..0;
        for (index, &id) in ids.iter().enumerate() {
            match tokenizer.token(id).filter(|token| is_tag(token)) {
                Some(tag) => {
                    spelling.push_run(tokenizer, ids, run.clone())?;
                    spelling.push(tag.chars(), index);
                    run = index + 1..index + 1;
                }
                None => run.end = index + 1,
            }
        }
        spelling.push_run(tokenizer, ids, run)?;
        Ok(spelling)
    }

    fn push(&mut self, characters: impl Iterator<Item = char>, token: usize) {
        self.characters.extend(characters);
        self.tokens.resize(self.characters.len(), token);
    }

    /// Appends tokens that are no tags, which may be parts of characters. A character is from the token with
    /// which it is complete; white space, from the token after it.
    fn push_run(&mut self, tokenizer: &Tokenizer, ids: &[u32], run: std::ops::Range<usize>) -> Result<()> {
        let whole: Vec<char> = tokenizer.decode(&ids[run.clone()])?.chars().collect();
        let mut done = 0;
        for end in run.clone() {
            let is_last = end + 1 == run.end;
            let known = if is_last {
                whole.len()
            } else {
                let part = tokenizer.decode(&ids[run.start..=end])?;
                part.chars().zip(&whole).take_while(|(a, b)| a == *b).count()
            };
            self.push(whole[done..known.max(done)].iter().copied(), end);
            done = known.max(done);
        }
        Ok(())
    }
}

/// Whether `token` is a tag, or another token in angle brackets.
pub(super) fn is_tag(token: &str) -> bool {
    token.len() > 2 && token.starts_with('<') && token.ends_with('>')
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_text::{character_tokenizer, train_bpe};

    #[test]
    fn each_character_knows_its_token() {
        let tags = ["<s_a>", "</s_a>"].map(str::to_owned);
        let tokenizer = character_tokenizer("0123456789. x".chars(), &tags, 64).unwrap();
        let ids = tokenizer.encode_words("<s_a>1 .0</s_a>x").unwrap();
        let Spelling { characters, tokens } = Spelling::new(&tokenizer, &ids).unwrap();
        assert_eq!(characters.iter().collect::<String>(), "<s_a>1 .0</s_a>x");
        // The space is there as soon as something follows it.
        assert_eq!(tokens, [0, 0, 0, 0, 0, 1, 3, 3, 4, 5, 5, 5, 5, 5, 5, 6]);
        assert!(Spelling::new(&tokenizer, &[]).unwrap().characters.is_empty());
    }

    #[test]
    fn pieces_of_words_are_joined() {
        let texts = ["a red star above two dogs", "there is a red star"].map(str::to_owned);
        let tokenizer = train_bpe(texts.clone().into_iter(), 600, 32).unwrap();
        let ids = tokenizer.encode_words(&texts[0]).unwrap();
        let Spelling { characters, tokens } = Spelling::new(&tokenizer, &ids).unwrap();
        assert_eq!(characters.iter().collect::<String>(), texts[0]);
        assert!(tokens.is_sorted() && tokens.last() == Some(&(ids.len() - 1)));
    }
}
